"""Shards that come ahead of use and go behind it: from a bucket, under a bound that the folder is watched for."""

import contextlib
import multiprocessing
import os
import shutil
import signal
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from defense.objectives.cleanclip import CleanClip
from defense.objectives.roclip import RoClip
from defense.objectives.safeclip import SafeClip
from infra import rundir, storage
from infra.errors import Damaged, Lost
from pipeline.dataset import Dataset, cache_folder
from tests.conftest import speaking
from tests.support.drawn import drawn
from tests.support.learning import trained_on_ranks
from tests.support.several_ranks import on_ranks
from tests.support.stopping import stop
from tests.support.story import Running, gone
from train import checkpoint, fetching
from train.cache import Local
from train.lanes import Plan
from train.objectives.clip import Clip
from train.presets import Recipe
from train.room import GIB
from train.training import Pretraining

SHARDS, SAMPLES = 50, 400


@pytest.fixture(scope="module")
def remote(moto_s3) -> Iterator[Dataset]:
    with speaking(moto_s3.environment):
        url = f"{moto_s3.make_bucket(f'lanes-{uuid.uuid4().hex[:8]}')}/set"
        yield drawn(url, SAMPLES, SHARDS, size=48, extension="png")


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Dataset:
    return drawn(str(tmp_path_factory.mktemp("fetching") / "set"), 96, 6)


def tenth(data: Dataset) -> int:
    return sum(shard.bytes for shard in data.shards) // 10


def planned(data: Dataset, lanes: int = 2, window: int = 1) -> Plan:
    ids, counts = zip(*((shard.id, shard.samples) for shard in data.shards), strict=True)
    return Plan(0, 20, lanes, window, ids, counts)


@contextlib.contextmanager
def served(data: Dataset, plan: Plan, limit: int, rank: int = 0, ranks: int = 1, epochs: int = 1) -> Iterator[Local]:
    """To one rank, a node of its own."""
    local = fetching.located(data, "run", rank, 0)
    lanes = plan.of(rank, ranks)
    with fetching.served(data, plan, epochs, lanes, local, ranks=1, cache_gib=limit / GIB, quiet=True):
        yield local


def used(folder: Path) -> int:
    """Bytes of all files, as they are at this moment."""
    found = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found += os.lstat(f"{place}/{name}").st_size
    return found


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[list[int]]:
    """The bytes in a folder, looked at all the time."""
    sizes, ended = [0], threading.Event()

    def look() -> None:
        while not ended.wait(0.003):
            sizes.append(used(folder))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield sizes
    finally:
        ended.set()
        thread.join()


def fetchers() -> list[int]:
    """Not ranks of other tests, which this worker may have started too."""
    return [child.pid for child in multiprocessing.active_children() if child.name == fetching.NAME]


def step_through(data: Dataset, plan: Plan, local: Local, lanes: range, epoch: int = 0) -> Iterator[set[str]]:
    """What a rank does: waits for the shards of each batch, and goes on. Yields the tars that are there then."""
    ends = np.cumsum([shard.samples for shard in data.shards])
    local.ahead.tell(epoch * plan.steps)
    for step, ids in enumerate(plan.line(epoch).batches(lanes), epoch * plan.steps + 1):
        for shard in np.unique(np.searchsorted(ends, ids, side="right")):
            local.ahead.wait(local.tars[shard])
            assert Path(local.tars[shard]).stat().st_size == data.shards[shard].bytes
        yield {path.name for path in Path(local.ahead.folder).glob("[0-9a-f]*.tar")}
        local.ahead.tell(step)


def test_a_node_has_the_shards_of_its_own_lanes_come_and_go_under_the_bound(remote):
    plan, limit = planned(remote), tenth(remote)
    lanes = plan.of(1, 2)
    with watched(cache_folder()) as sizes, served(remote, plan, limit, 1, 2, epochs=2) as local:
        seen = [there for epoch in (0, 1) for there in step_through(remote, plan, local, lanes, epoch)]
    own = {f"{remote.shards[each].sha256}.tar" for epoch in (0, 1) for each in plan.line(epoch).uses(lanes).shards}
    assert set().union(*seen) == own
    assert len(own) < SHARDS
    assert max(map(len, seen)) > 2, "ahead"
    assert limit / 2 < max(sizes) <= limit
    assert not Path(local.ahead.folder).exists(), "a run that is done needs nothing more"


def test_shards_that_all_fit_are_fetched_once(remote):
    plan = planned(remote)
    with served(remote, plan, 20 * tenth(remote), epochs=3) as local:
        first = [*step_through(remote, plan, local, plan.of(0, 1))]
        inodes = {tar: Path(tar).stat().st_ino for tar in local.tars}
        assert len(first[-1]) == SHARDS
        assert all(len(there) == SHARDS for there in step_through(remote, plan, local, plan.of(0, 1), 1))
        assert inodes == {tar: Path(tar).stat().st_ino for tar in local.tars}
        lost = Path(local.tars[7])
        with lost.open("rb"):  # else the disk may give its number to the next file
            lost.unlink()
            local.ahead.wait(str(lost))
        assert lost.stat().st_ino != inodes[str(lost)], "somebody removed it: it comes again"


@pytest.mark.parametrize("damage", ["other bytes", "gone"])
def test_a_shard_that_cannot_be_had_is_named_to_whoever_waits_for_it(remote, damage):
    bad = int(planned(remote).line(0).shards[10])
    url = remote.tar_url(remote.shards[bad])
    whole = storage.read(url)
    message = {"other bytes": rf"shard {bad} has .* \(hash differs\): {url}", "gone": f"shard {bad} is missing: {url}"}
    storage.write(url, whole[:-1] + b"x") if damage == "other bytes" else storage.remove(url)
    try:
        with served(remote, planned(remote), tenth(remote)) as local, pytest.raises(Damaged, match=message[damage]):
            list(step_through(remote, planned(remote), local, range(2)))
        assert not Path(local.tars[bad]).exists()
    finally:
        storage.write(url, whole)


def test_a_start_that_was_killed_leaves_shards_which_are_verified_again(remote):
    plan = planned(remote)
    with pytest.raises(KeyboardInterrupt), served(remote, plan, 20 * tenth(remote)) as local:  # noqa: PT012
        local.ahead.tell(0)
        for tar in local.tars[:6]:
            local.ahead.wait(tar)
        os.kill(fetchers()[0], signal.SIGKILL)
        with pytest.raises(Lost, match="the process that fetches shards has died: run the same command again"):
            local.ahead.wait(f"{local.ahead.folder}/never")
        raise KeyboardInterrupt
    rotten, sound = Path(local.tars[3]), Path(local.tars[4])
    rotten.write_bytes(b"x" * rotten.stat().st_size)
    inode = sound.stat().st_ino
    (Path(local.ahead.folder) / f"{storage.ATTEMPT}1.tar").write_bytes(b"half")
    with served(remote, plan, 20 * tenth(remote)) as local:
        assert not Path(local.tars[3]).exists(), "nothing is read before it is verified"
        local.ahead.tell(0)
        for tar in (rotten, sound):
            local.ahead.wait(str(tar))
        assert rotten.read_bytes() == storage.read(remote.tar_url(remote.shards[3]))
        assert sound.stat().st_ino == inode
        assert not list(Path(local.ahead.folder).glob(f"{storage.ATTEMPT}1*"))


def test_shards_on_this_disk_are_used_in_place(here):
    with served(here, planned(here), 10_000_000) as local:
        for _ in step_through(here, planned(here), local, range(2)):
            pass
        uses = planned(here).line(0).uses(range(2))
        for shard in uses.shards.tolist():
            assert Path(local.tars[shard]).is_symlink()
            assert os.path.samefile(local.tars[shard], here.tar_url(here.shards[shard]))


def test_a_cache_too_small_for_the_windows_is_refused_with_the_number_that_will_do(remote):
    plan = planned(remote, 4, 4)
    needed = plan.need(1, plan.of(0, 1), np.array([shard.bytes for shard in remote.shards]))
    assert needed > tenth(remote)
    with pytest.raises(ValueError, match=r"set --cache-gib to at least 0\.00\d \(it is ") as refused:
        fetching.served(
            remote, plan, 1, plan.of(0, 1), fetching.located(remote, "run", 0, 0), 1, 1e-6, True
        ).__enter__()
    assert "\n" not in str(refused.value)
    assert not fetchers()
    told = float(str(refused.value).split("at least ")[1].split()[0])
    assert needed <= told * GIB
    with served(remote, plan, int(told * GIB)):
        other = fetching.located(remote, "other", 0, 0)
        with pytest.raises(ValueError, match="other runs"):
            fetching.served(remote, plan, 1, plan.of(0, 1), other, 1, told, True).__enter__()


# Whole runs

RECIPE = Recipe(batch=20, epochs=2, lr=1e-3)


def pretraining(data: Dataset, out: Path, **changed: object) -> Pretraining:
    fields = {"objective": Clip(), "dataset": data.url, "out": str(out), "model": "tiny-vit", "recipe": RECIPE}
    fields |= {"workers": 0, "order": "lanes", "lanes": 2, "window": 1, "cache_gib": tenth(data) / GIB}
    return Pretraining(**(fields | changed))  # type: ignore[arg-type]


def weights(run: Pretraining) -> bytes:
    return checkpoint.find(run.out).read(checkpoint.MODEL)


def losses(run: Pretraining) -> list[float]:
    return [line["loss"] for line in rundir.metrics(run.out)]


@pytest.fixture(scope="module")
def whole(remote, tmp_path_factory) -> Pretraining:
    """A run that nothing disturbs, with a cache of a tenth of its data."""
    root = tmp_path_factory.mktemp("whole")
    run = pretraining(remote, root / "run", workers=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANTIDOTE_CACHE", str(root / "cache"))
        with watched(root / "cache") as sizes:
            run.run()
    assert tenth(remote) / 2 < max(sizes) <= tenth(remote)
    return run


def test_a_run_whose_fetcher_is_killed_goes_on_as_if_never_stopped(remote, whole, tmp_path):
    run = pretraining(remote, tmp_path / "run", checkpoint_steps=5)

    def kill() -> None:
        while not checkpoint.whole(run.out):
            assert not ended.wait(0.01)
        os.kill(fetchers()[0], signal.SIGKILL)

    ended, killer = threading.Event(), threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(Lost, match="the process that fetches shards has died"):
            run.run()
    finally:
        ended.set()
        killer.join()
    assert not Path(run.out, "DONE").exists()
    with watched(cache_folder()) as sizes:
        run.run()
    assert max(sizes) <= tenth(remote)
    assert weights(run) == weights(whole)


def trained_there(environment: dict[str, str], run: Pretraining) -> str:
    """The ranks may be of another test, which spoke to no S3 server or to another one."""
    with speaking(environment):
        return trained_on_ranks(run)


def test_a_run_goes_on_with_another_number_of_ranks(moto_s3, remote, whole, tmp_path):
    run = pretraining(remote, tmp_path / "run", checkpoint_steps=10)
    stop(run, 13)
    on_ranks(2, trained_there, moto_s3.environment, run)
    assert np.allclose(losses(run), losses(whole), atol=1e-4)
    with pytest.raises(ValueError, match="exists and differs: its lanes is 2, not 4"):
        replace(run, lanes=4).run()
    with pytest.raises(ValueError, match="exists and differs: its lanes is 2, not None"):
        replace(run, order="permutation", lanes=64, window=4).run()


@pytest.mark.slow
def test_a_run_that_is_killed_ends_with_the_weights_of_one_never_stopped(remote, whole, tmp_path):
    run = pretraining(remote, tmp_path / "run", workers=1, checkpoint_steps=5)
    words = ["train/pretrain.py", "clip", "--preset", "tiny", "--dataset", remote.url, "--out", run.out, "--batch", 20]
    words += ["--order", "lanes", "--lanes", 2, "--window", 1, "--cache-gib", run.cache_gib, "--workers", 1]
    with watched(cache_folder()) as sizes:
        with Running([*words, "--checkpoint-steps", 5], tmp_path / "said") as running:
            running.until(lambda: checkpoint.whole(run.out))
            family = running.family()
            os.kill(running.process.pid, signal.SIGKILL)
            gone(family, 20)
        assert not Path(run.out, "DONE").exists()
        replace(run, preset="tiny").run()
    assert max(sizes) <= tenth(remote)
    assert weights(run) == weights(whole)


@pytest.mark.parametrize("what", [CleanClip(), RoClip(match_every=2)], ids=["cleanclip", "roclip"])
def test_defences_learn_in_lanes_and_resume_exactly(here, tmp_path, what):
    run = pretraining(here, tmp_path / "run", objective=what, recipe=replace(RECIPE, batch=16), checkpoint_steps=4)
    run.run()
    broken = replace(run, out=str(tmp_path / "broken"))
    stop(broken, 9)
    broken.run()
    assert weights(broken) == weights(run)


def test_what_lanes_cannot_give_is_one_line_and_leaves_nothing(here, tmp_path, monkeypatch):
    for changed, message in (
        ({"lanes": 3}, "3 lanes do not divide a batch of 20: set --lanes to 2, say"),
        ({"recipe": replace(RECIPE, batch=200)}, "96 samples, less than one batch of 200: set --batch lower"),
        (
            {"objective": SafeClip(), "recipe": replace(RECIPE, epochs=20)},
            "safeclip looks at all pairs before an epoch",
        ),
        ({"dataset": "nowhere"}, "no dataset"),
    ):
        with pytest.raises(ValueError, match=message):
            pretraining(here, tmp_path / "run", **changed).run()
    for changed, message in (
        ({"lanes": 0}, "lanes must be above 0"),
        ({"order": "permutation"}, "are for --order lan"),
    ):
        with pytest.raises(ValueError, match=message):
            pretraining(here, tmp_path / "run", **changed)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ValueError, match="4 ranks do not divide 2 lanes: set --lanes to 4, say"):
        pretraining(here, tmp_path / "run", dry_run=True).run()
    assert not (tmp_path / "run").exists()
    shutil.rmtree(cache_folder(), ignore_errors=True)
