import dataclasses
import fcntl
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from infra import storage
from infra.errors import Damaged, Lost
from pipeline import dataset
from pipeline.dataset import Dataset
from tests.support.drawn import drawn, samples
from train import cache, room

GIB = 2**30
FILL_ELSEWHERE = cache._fill_elsewhere


@pytest.fixture
def remote(monkeypatch):
    """A dataset that does not lie on this disk; fetched in this process, where alone memory:// is the same memory."""
    monkeypatch.setattr(
        cache, "_fill_elsewhere", lambda data, local, folder, report: cache._fill(data, local, folder, report)
    )
    monkeypatch.setattr(cache.time, "sleep", lambda _: None)
    url = f"memory://cache-{time.monotonic_ns()}"
    yield drawn(url, 30, 3)
    storage.remove(url)


def test_shards_on_this_disk_are_used_in_place(tmp_path):
    data = drawn(str(tmp_path / "data"), 30, 3)
    with cache.filled(data, 1.0) as local:
        assert all(tar.startswith(str(tmp_path / "data")) for tar in local.tars)
        assert list((dataset.cache_folder() / "shards").iterdir()) == []
        assert local == cache.located(data)


def test_the_index_says_where_every_image_and_caption_lies(tmp_path):
    data = drawn(str(tmp_path / "data"), 30, 3)
    with cache.filled(data, 1.0) as local:
        columns = {name: np.load(f"{local.index}/{name}.npy") for name in cache.COLUMNS}
        captions = Path(local.index, "captions.bin").read_bytes()
    starts = np.concatenate([[0], columns["caption_ends"][:-1]])
    for i, sample in enumerate(samples(30)):
        tar = Path(local.tars[columns["shards"][i]]).read_bytes()
        assert columns["rows"][i] == sample.row
        assert tar[columns["offsets"][i] :][: columns["lengths"][i]] == sample.image
        assert captions[starts[i] : columns["caption_ends"][i]].decode() == sample.caption


def test_a_damaged_local_shard_is_named_before_the_first_step(tmp_path):
    data = drawn(str(tmp_path / "data"), 30, 3)
    path = Path(data.tar_url(data.shards[1]))
    path.write_bytes(path.read_bytes()[:-512] + b"x" * 512)
    with pytest.raises(Damaged, match=r"shard 1 has .* \(hash differs\)"), cache.filled(data, 1.0):
        pass


def test_remote_shards_are_fetched_once_and_verified_each_time(remote):
    with cache.filled(remote, 1.0) as local:
        assert all(Path(tar).parent == dataset.cache_folder() / "shards" for tar in local.tars)
    storage.remove(remote.tar_url(remote.shards[0]))
    with cache.filled(remote, 1.0) as again:
        assert again == local
    Path(local.tars[2]).write_bytes(b"rotten")
    with cache.filled(remote, 1.0):
        assert Path(local.tars[2]).stat().st_size == remote.shards[2].bytes, "fetched anew"


def test_a_shard_that_cannot_be_had_is_named(remote):
    storage.remove(remote.tar_url(remote.shards[1]))
    with pytest.raises(Damaged, match="shard 1 is missing: memory://"), cache.filled(remote, 1.0):
        pass


def test_a_passing_fault_is_survived(remote, monkeypatch):
    faults = iter([ConnectionResetError("reset"), TimeoutError("slow")])
    download = storage.download

    def unlucky(url: str, path: Path) -> None:
        if (fault := next(faults, None)) is not None:
            raise fault
        download(url, path)

    monkeypatch.setattr(storage, "download", unlucky)
    with cache.filled(remote, 1.0) as local:
        assert all(Path(tar).exists() for tar in local.tars)


def test_a_lasting_fault_ends_in_one_error(remote, monkeypatch):
    def broken(url: str, _path: Path) -> None:
        raise ConnectionResetError(f"cannot read {url}: reset by peer")

    monkeypatch.setattr(storage, "download", broken)
    with (
        pytest.raises(Lost, match=r"shard . could not be fetched: cannot read memory://.*: reset by peer"),
        cache.filled(remote, 1.0),
    ):
        pass


@pytest.mark.parametrize("key", [True, False], ids=["no server", "no key"])
def test_the_fetcher_says_in_one_line_what_is_wrong(remote, speak, key):
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"} if key else {}
    nowhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true"}
    speak(nowhere | keys | {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull})
    data = dataclasses.replace(remote, bases=("s3://bucket/set",))
    wanted = (Lost, "shard . could not be fetched: cannot read s3://bucket/set/.*no connection")
    kind, said = wanted if key else (ValueError, "s3://bucket/set/.*check AWS_ACCESS_KEY_ID")
    local = cache.located(data)
    (folder := dataset.cache_folder() / "shards").mkdir(parents=True)
    with pytest.raises(kind, match=said) as caught:
        FILL_ELSEWHERE(data, local, folder, lambda _: None)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)


def test_a_dataset_larger_than_the_cache_is_refused_before_anything_is_fetched(remote):
    with pytest.raises(ValueError, match=r"set --cache-gib to at least 0\.1"), cache.filled(remote, 1000 / GIB):
        pass
    assert list((dataset.cache_folder() / "shards").iterdir()) == []


def test_what_no_run_uses_makes_room_and_what_one_uses_stays(remote):
    other = drawn(f"{remote.url}-other", 24, 2, seed=5)
    size, more = (sum(shard.bytes for shard in data.shards) for data in (remote, other))
    enough_for_one = (max(size, more) + 4096) / GIB
    with cache.filled(remote, enough_for_one) as first:
        with (
            pytest.raises(ValueError, match="other runs on this machine use the cache"),
            cache.filled(other, enough_for_one),
        ):
            pass
        assert all(Path(tar).exists() for tar in first.tars)
    with cache.filled(other, enough_for_one) as second:
        assert all(Path(tar).exists() for tar in second.tars)
    held = sum(path.stat().st_size for path in (dataset.cache_folder() / "shards").iterdir())
    assert held <= enough_for_one * GIB


def test_of_two_runs_that_begin_together_one_gets_the_room(tmp_path):
    """Neither has fetched anything when the other looks."""
    wanted = [{"one.tar": 600, "both.tar": 200}, {"other.tar": 600, "both.tar": 200}]
    with room.lease(tmp_path, ["one.tar", "both.tar"]) as one, room.lease(tmp_path, ["other.tar", "both.tar"]) as other:
        one.make(wanted[0], 1000 / GIB)
        with pytest.raises(ValueError, match="other runs on this machine use the cache"):
            other.make(wanted[1], 1000 / GIB)
        with room.lease(tmp_path, ["lane"]) as lanes, pytest.raises(ValueError, match="are in use"):
            lanes.reserve(300, 300, 1000 / GIB)
        other.make(wanted[1], 1400 / GIB)  # what both wait for comes once
        (tmp_path / "shards").mkdir()
        (tmp_path / "shards/one.tar").write_bytes(bytes(600))
        other.make(wanted[1], 1400 / GIB)  # and counts once when it is there
        with pytest.raises(ValueError, match="other runs on this machine use the cache"):
            other.make(wanted[1], 1399 / GIB)
    with room.lease(tmp_path, ["other.tar"]) as alone:
        alone.make({"other.tar": 900}, 1000 / GIB)
    assert not (tmp_path / "shards/one.tar").exists(), "no run uses it any more"


def test_a_run_may_end_while_another_looks(tmp_path, monkeypatch):
    with room.lease(tmp_path, ["one.tar"]) as lease:
        gone = tmp_path / "leases/gone.json"
        glob = type(tmp_path).glob
        monkeypatch.setattr(type(tmp_path), "glob", lambda folder, form: [*glob(folder, form), gone])
        lease.make({"one.tar": 1}, 1.0)


def test_a_bound_beyond_all_numbers_is_a_bound(tmp_path):
    with room.lease(tmp_path, ["one.tar"]) as lease:
        lease.make({"one.tar": 1}, 1e300)
        assert lease.reserve(10, 20, 1e300) == 20


def test_two_runs_may_fill_the_same_cache_at_once(tmp_path):
    data = drawn(str(tmp_path / "data"), 30, 3)
    found: list[cache.Local] = []

    def fill() -> None:
        with cache.filled(data, 1.0, quiet=True) as local:
            found.append(local)
            time.sleep(0.05)

    threads = [threading.Thread(target=fill) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [cache.located(data)] * 4
    assert len(list((dataset.cache_folder() / "index").iterdir())) == 1


def test_the_fetching_process_dies_with_one_clear_error(monkeypatch):
    """A real spawned process; it cannot see this one's memory://, so what it is asked for is missing there."""
    data = drawn(f"memory://spawned-{time.monotonic_ns()}", 6, 2)
    monkeypatch.setattr(cache, "ATTEMPTS", 1)
    with pytest.raises(Damaged, match=r"shard . is missing"), cache.filled(data, 1.0):
        pass


def test_a_fetcher_that_says_nothing_is_ended(monkeypatch):
    data = drawn(f"memory://silent-{time.monotonic_ns()}", 6, 2)
    monkeypatch.setattr(cache, "STALL_SECONDS", 0.01)
    with pytest.raises(Lost, match="arrived for 0 s; run the same command again"), cache.filled(data, 1.0):
        pass


def test_a_fetcher_that_is_killed_is_noticed(monkeypatch):
    data = drawn(f"memory://killed-{time.monotonic_ns()}", 6, 2)
    monkeypatch.setattr(cache, "_fetcher", _Suicide())
    with pytest.raises(Lost, match="process that fetches shards has died"), cache.filled(data, 1.0):
        pass


class _Suicide:
    def __call__(self, *_: object) -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)


def test_a_bare_folder_of_foreign_tars_is_filled_too(tmp_path):
    data = drawn(str(tmp_path / "data"), 12, 2)
    bare = tmp_path / "bare"
    bare.mkdir()
    for shard in data.shards:
        (bare / f"{shard.id:05d}.tar").write_bytes(Path(data.tar_url(shard)).read_bytes())
    with cache.filled(Dataset.open(str(bare)), 1.0) as local:
        assert [Path(tar).parent for tar in local.tars] == [bare, bare]


def test_what_another_run_is_writing_is_neither_counted_nor_removed(tmp_path, monkeypatch):
    """Its file may be gone, under its proper name, between the listing of the folder and the look at it."""
    data = drawn(str(tmp_path / "data"), 6, 2)
    with cache.filled(data, 1.0, quiet=True):
        pass
    home = dataset.cache_folder()
    writing = home / "shards" / f"{storage.ATTEMPT}1.tar"
    writing.write_bytes(bytes(2**20))
    listed, iterdir = [], type(home).iterdir

    def vanishing(folder: Path):
        yield from iterdir(folder)
        if folder.name == "shards":
            listed.append(1)
            yield folder / f"{storage.ATTEMPT}2.tar"

    monkeypatch.setattr(type(home), "iterdir", vanishing)
    with room.lease(home, []) as lease:
        lease.make({}, 1e-9)
    assert listed
    assert writing.exists()
    assert [path.name for path in iterdir(home / "index")] == [], "what no run uses goes"


def test_a_lease_of_a_run_by_older_code_is_understood(tmp_path):
    place = tmp_path / "leases" / "older.json"
    place.parent.mkdir()
    place.write_text('["00.tar"]')
    with open(place) as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        assert room._leased(tmp_path) == ({"00.tar"}, 0)
    assert room._leased(tmp_path) == (set(), 0)
    assert not place.exists(), "its run is dead"
