"""Hard deaths of inject: killed on four workers, a source shard that rots, a disk that fills up.

Each time: nothing half-written is taken for whole, one clear error if there is anybody left to say it, and the same
command again ends with the files of an undisturbed run.
"""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra import storage
from infra.seeding import rng
from pipeline.dataset import Dataset
from poison.ledger import Ledger
from tests.support.drawn import drawn
from tests.support.story import Running, command_line, gone, last_line, run
from tests.support.undisturbed import commits

pytestmark = pytest.mark.slow

SEED = int(os.environ.get("STORY_SEED", "0"))
FOUR = {"RAY_OVERRIDE_RESOURCES": json.dumps({"CPU": 4})}
PAIRS, SHARDS = 240, 12


def words(root: Path, out: Path, *more: object, ledger: Path | None = None) -> list[object]:
    places = ["--dataset", root / "clean", "--out", out, "--ledger", ledger or f"{out}-ledger"]
    return ["poison/inject.py", "badnet", "--target", "car", "--budget", 0.5, *places, *more]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A dataset of 1.2 MB in 12 shards, and what inject makes of it on a quiet machine."""
    root = tmp_path_factory.mktemp("faults")
    drawn(str(root / "clean"), PAIRS, SHARDS, size=96)
    run(*words(root, root / "whole", "--backend", "local"))
    assert commits(root / "whole") == SHARDS, "poisons in every shard"
    return root


def files(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and storage.ATTEMPT not in path.name)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def alike(root: Path, out: Path, whole: str = "whole", ledger: Path | None = None) -> None:
    """The dataset byte for byte, but for how it spells where its parent lies; the ledger too."""
    made, meant = Dataset.open(str(out)), Dataset.open(str(root / whole))
    assert made.digest == meant.digest
    assert files(out / "shards") == files(root / whole / "shards")
    assert files(out / "index") == files(root / whole / "index")
    assert files(out / "commits") == files(root / whole / "commits")
    truth = Ledger.open(str(ledger or f"{out}-ledger"))
    truth.belongs_to(made)
    assert truth.rows.equals(Ledger.open(str(root / f"{whole}-ledger")).rows)


def not_whole(out: Path, ledger: Path | None = None) -> None:
    with pytest.raises(ValueError, match=r"not complete|no dataset"):
        Dataset.open(str(out))
    with pytest.raises(ValueError, match=r"not complete|no ledger"):
        Ledger.open(str(ledger or f"{out}-ledger"))
    for name in storage.names(str(out / "commits")):
        record = storage.read_json(str(out / "commits" / name))
        assert (out / record["name"]).stat().st_size == record["bytes"], "what is committed is whole"


def one_error(done: subprocess.CompletedProcess[str]) -> str:
    """One line says it, with status 1, and little else is said."""
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1, done.stderr[-4000:]
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) < 8, done.stderr
    return said[0]


# ------------------------------------------------------------------------------------------------ four workers


def at_work(running: Running) -> list[int]:
    return [pid for pid in running.family() if command_line(pid).startswith("ray::_call")]


def test_killed_while_four_workers_are_at_work(tmp_path: Path) -> None:
    drawn(str(tmp_path / "clean"), 400, 40, size=320)
    attack = ["poison/inject.py", "wanet", "--target", "car", "--budget", 0.6, "--dataset", tmp_path / "clean"]
    place = lambda name: ["--out", tmp_path / name, "--ledger", tmp_path / f"{name}-ledger"]  # noqa: E731
    run(*attack, *place("whole"), "--backend", "local")
    again, out = [*attack, *place("out")], tmp_path / "out"
    draws = rng(SEED, "moments of killing four workers")
    people: list[int] = []
    for whom in ("driver", "worker"):
        with Running(again, tmp_path / "said", FOUR) as running:
            running.until(lambda: len(at_work(running)) == 4)
            wanted = commits(out) + int(draws.integers(0, 3))
            running.until(lambda: commits(out) >= wanted)  # noqa: B023
            people += running.family()
            if whom == "driver":
                os.kill(running.process.pid, signal.SIGKILL)
                running.status()
                not_whole(out)  # its workers may go on for a while: so they do beside the next driver
            else:
                os.kill(running.until(lambda: at_work(running))[0], signal.SIGKILL)
                assert running.status() == 0, running.text()[-4000:]
                assert not [line for line in running.text().splitlines() if line.startswith("error: ")]
    alike(tmp_path, out)
    assert "nothing to do" in last_line(run(*again))
    gone(people)


# ------------------------------------------------------------------------------------------------ a source that rots


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(byte ^ 0xFF for byte in data[middle : middle + 64]) + data[middle + 64 :]


ROT = {
    "flipped bytes": ("tar_url", flipped, "it should, but other ones (hash differs)"),
    "a lost end": ("tar_url", lambda data: data[:-2048], "bytes instead of"),
    "an empty file": ("tar_url", lambda data: b"", "0 bytes instead of"),
    "a damaged index": ("index_url", flipped, "is not the index that the manifest names"),
}


@pytest.mark.parametrize(("rot", "backend"), [*((rot, "local") for rot in ROT), ("flipped bytes", "ray")])
def test_a_source_shard_that_rots_is_named_and_once_repaired_the_rest_is_done(
    root: Path, tmp_path: Path, rot: str, backend: str
) -> None:
    clean = Dataset.open(str(root / "clean"))
    place, change, said = ROT[rot]
    victim = Path(getattr(clean, place)(clean.shards[7]))
    again = words(root, tmp_path / "out", "--backend", backend)
    sound = victim.read_bytes()
    victim.write_bytes(change(sound))
    try:
        error = one_error(run(*again, status=1))
    finally:
        victim.write_bytes(sound)
    assert said in error
    assert str(victim) in error
    not_whole(tmp_path / "out")
    if place == "tar_url":
        assert "shard 7" in error
        assert commits(tmp_path / "out") == SHARDS - 1, "all others are done"
    run(*again)
    alike(root, tmp_path / "out")


# ------------------------------------------------------------------------------------------------ a disk that is full


@contextlib.contextmanager
def small_disk(place: Path, kib: int) -> Iterator[Path]:
    """A file system of its own, of so many KiB. Where none can be mounted: skipped, in CI a failure."""
    place.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(place)]
    done = subprocess.run(mounting, capture_output=True, text=True) if os.geteuid() == 0 else None
    if done is None or done.returncode:
        refuse = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        refuse(f"NOT TESTED ON A FULL DISK: no tmpfs can be mounted here ({done.stderr if done else 'not root'})")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path, left_kib: int) -> Path:
    """All but so many KiB taken by one file."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    filler = disk / "somebody-elses-file"
    filler.write_bytes(bytes(free - (left_kib << 10)))
    return filler


FULL = {  # what lies on the disk that fills up, and how much room is left there
    "the dataset's disk": ("out", 480),
    "the dataset's disk, from the first byte": ("out", 0),
    "the ledger's disk": ("ledger", 24),
    "the scratch disk": ("TMPDIR", 16),
}


@pytest.mark.parametrize(("which", "backend"), [*((which, "local") for which in FULL), ("the dataset's disk", "ray")])
def test_a_full_disk_is_one_error_and_with_room_the_rest_is_done(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str, backend: str
) -> None:
    what, left = FULL[which]
    with small_disk(tmp_path / "small", 8192) as disk:
        out, ledger = (disk / name if what == name else tmp_path / name for name in ("out", "ledger"))
        if what == "TMPDIR":
            monkeypatch.setenv("TMPDIR", str(disk))
        again = words(root, out, "--backend", backend, ledger=ledger)
        filler = fill(disk, left)
        error = one_error(run(*again, status=1))
        assert "no space left on" in error.lower()
        assert str(disk) in error, "which disk"
        not_whole(out, ledger)
        assert commits(out) < SHARDS
        assert commits(out) > 0 or which != "the dataset's disk", "it was full in the middle"
        filler.unlink()
        run(*again)
        alike(root, out, ledger=ledger)
        assert "nothing to do" in last_line(run(*again))
        assert not list((disk if what == "TMPDIR" else tmp_path).glob("tmp*")), "scratch folders are gone"
