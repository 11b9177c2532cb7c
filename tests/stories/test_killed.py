"""kill -9 of every kind of process in every stage, at random moments: the result is that of an undisturbed run.

One stage is one chain: killed, given again, killed again elsewhere, given again, until it is done. What was killed,
when, and what came of it is printed as a table at the end. Of inject: test_inject_faults.
"""

import contextlib
import functools
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra import rundir, storage
from infra.seeding import rng
from tests.support.story import Running, command_line, gone, last_line, parent, run
from tests.support.undisturbed import CELLS, Undisturbed, cells, commits, unfinished
from train import checkpoint

pytestmark = pytest.mark.slow

SEED = int(os.environ.get("STORY_SEED", "0"))
draws = rng(SEED, "moments of killing")
ENTRIES = {"pretrain": "train/pretrain.py", "finetune": "train/finetune.py"}


@dataclass(frozen=True)
class Seen:
    """One line of the table."""

    stage: str
    kind: str
    moment: str
    outcome: str


@dataclass
class Matrix:
    """What was killed, what came of it, and everybody who ever belonged to a killed command."""

    lines: list[Seen]
    people: list[int]

    def saw(self, running: Running, kind: str, moment: str, outcome: str) -> None:
        stage = next(str(word) for word in running.words if str(word).endswith(".py"))
        self.lines.append(Seen(Path(stage).stem, kind, moment, outcome))


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    return Matrix([], [])


@pytest.fixture(scope="module", autouse=True)
def shared_memory(matrix: Matrix) -> Iterator[None]:
    """/dev/shm is as it was, but for what others use who run beside these tests: what is left behind nobody holds."""
    before = set(os.listdir("/dev/shm"))
    yield
    deadline = time.monotonic() + 10  # what another process made a moment ago it does not hold yet
    while left := {name for name in os.listdir("/dev/shm") if _ours(name)} - before - held(set(matrix.people)):
        assert time.monotonic() < deadline, f"left in /dev/shm: {sorted(left)}"
        time.sleep(0.1)


def held(people: set[int]) -> set[str]:
    """Names in /dev/shm that a living process other than these has open or mapped."""
    found: set[str] = set()
    for place in Path("/proc").glob("[0-9]*"):
        if int(place.name) in people:
            continue
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            found.update(re.findall(r"/dev/shm/(\S+)", (place / "maps").read_text()))
            for number in (place / "fd").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    found.update(re.findall(r"^/dev/shm/(\S+)", os.readlink(number)))
    return found


def _ours(name: str) -> bool:
    return name.startswith(("torch_", "sem.", "plasma", "ray", "psm_"))


# ------------------------------------------------------------------------------------------------ who may be killed


def driver(running: Running) -> list[int]:
    return [running.process.pid]


def worker(running: Running) -> list[int]:
    """Of Ray: one with work if there is one, between two short tasks an idle one."""
    titles = {pid: command_line(pid) for pid in running.family()}
    return [pid for title in ("ray::_call", "ray::IDLE") for pid in titles if titles[pid].startswith(title)][:1]


def busy_worker(running: Running) -> list[int]:
    return [pid for pid in running.family() if command_line(pid).startswith("ray::_call")][:1]


def image_server(running: Running) -> list[int]:
    return [pid for pid in running.family() if "-m pipeline.picturebook" in command_line(pid)]


def rank(running: Running) -> list[int]:
    """Both ranks, in a random order."""
    return _shuffled(pid for pid in running.family() if parent(pid) == running.process.pid and _trains(pid))


def first_rank(running: Running) -> list[int]:
    return [pid for pid in rank(running) if b"\0RANK=0\0" in Path(f"/proc/{pid}/environ").read_bytes()]


def loader(running: Running) -> list[int]:
    """A loader's worker is a fork of its rank, by the same name."""
    ranks = rank(running)
    return _shuffled(pid for pid in running.family() if parent(pid) in ranks and _trains(pid))


def fetcher(running: Running) -> list[int]:
    return [pid for pid in running.family() if "spawn_main" in command_line(pid)]


def _trains(pid: int) -> bool:
    words = command_line(pid)  # torchrun's own forks have its name until they become something else
    return any(entry in words for entry in ENTRIES.values()) and "torchrun" not in words and "spawn_main" not in words


def _shuffled(pids: Iterator[int]) -> list[int]:
    return [int(pid) for pid in draws.permutation(sorted(pids))]


def kill(running: Running, kind: Callable[[Running], list[int]], when: Callable[[], object] = lambda: True) -> int:
    """kill -9 of one such process as soon as `when()` holds and there is one."""
    running.until(when)
    pid = running.until(lambda: kind(running))[0]
    os.kill(pid, signal.SIGKILL)
    return pid


# ------------------------------------------------------------------------------------------------ on Ray


def killed(matrix: Matrix, words: list[object], kind: Callable[[Running], list[int]], when, moment: str, said: Path):
    """A command whose driver is killed: all that it started must go, though nobody tells it to."""
    with Running(words, said) as running:
        running.until(when)
        matrix.people += running.family()
        kill(running, kind)
        running.status()
        gone([pid for pid in matrix.people if "-m pipeline.picturebook" in command_line(pid)], 15)  # it holds the port
        matrix.saw(running, "driver", moment, "gone; the same command went on")


def survived(matrix: Matrix, words: list[object], moments: list[tuple[Callable[[], object], str]], said: Path) -> str:
    """A command of which a worker is killed at each of these moments: it must end well all the same."""
    with Running(words, said) as running:
        for when, moment in moments:
            running.until(when)
            matrix.people += running.family()
            kill(running, worker)
            matrix.saw(running, "worker", moment, "survived")
        assert running.status() == 0, running.text()[-4000:]
        assert not [line for line in running.text().splitlines() if line.startswith("error: ")]
        return running.text()


def at_least(count: Callable[[], int], wanted: int) -> Callable[[], bool]:
    return lambda: count() >= wanted


def random_counts(low: int, high: int, number: int) -> list[int]:
    return sorted(int(value) for value in draws.choice(range(low, high + 1), number, replace=False))


def test_prepare(matrix: Matrix, undisturbed: Undisturbed, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = undisturbed.prepare(out)
    first, second, third, fourth = random_counts(1, 9, 4)
    count = lambda: commits(out)  # noqa: E731
    killed(matrix, words, driver, at_least(count, first), f"{first} of 12 shards committed", tmp_path / "said")
    assert not (out / "dataset.json").exists()

    with Running(words, tmp_path / "said") as running:
        kill(running, image_server, at_least(count, second))
        matrix.people += running.family()
        assert running.status() == 1
        one_error(running)
        matrix.saw(running, "image server", f"{second} of 12 shards committed", "one error; the same command went on")

    moments = [(at_least(count, number), f"{number} of 12 shards committed") for number in (third, fourth)]
    survived(matrix, words, moments, tmp_path / "said")
    undisturbed.prepared_alike(out)
    assert "nothing to do" in last_line(run(*words))


def test_verify(matrix: Matrix, undisturbed: Undisturbed, tmp_path: Path) -> None:
    words = undisturbed.verify(undisturbed.poisoned)
    with Running(words, tmp_path / "said") as running:
        running.until(lambda: busy_worker(running))
        matrix.people += running.family()
        kill(running, driver)
        matrix.saw(running, "driver", "a shard is being read", "gone; the same command went on")
    with Running(words, tmp_path / "said") as running:
        kill(running, busy_worker)
        matrix.people += running.family()
        assert running.status() == 0, running.text()[-4000:]
        assert "verified: " in running.text()
        matrix.saw(running, "worker", "a shard is being read", "survived")


def test_evaluate(matrix: Matrix, undisturbed: Undisturbed, tmp_path: Path) -> None:
    out = undisturbed.root / "scores-of-the-killed"
    words = undisturbed.evaluate(out)
    first, second = random_counts(1, 20, 2)
    count = lambda: len(cells(out))  # noqa: E731
    killed(matrix, words, driver, at_least(count, first), f"{first} of {CELLS} cells there", tmp_path / "said")
    moments = [(lambda: True, "as soon as there is one"), (at_least(count, second), f"{second} of {CELLS} cells there")]
    survived(matrix, words, moments, tmp_path / "said")
    undisturbed.evaluated_alike(out)
    assert "nothing to do" in last_line(run(*words))


def test_scan(matrix: Matrix, undisturbed: Undisturbed, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    run(*undisturbed.scan(whole, "--backend", "local"))
    first, second = random_counts(1, 9, 2)
    count = lambda: len(storage.names(str(out / "parts")))  # noqa: E731
    words = undisturbed.scan(out)
    killed(matrix, words, driver, at_least(count, first), f"{first} of 12 parts there", tmp_path / "said")
    assert not (out / "scan.json").exists()
    survived(matrix, words, [(at_least(count, second), f"{second} of 12 parts there")], tmp_path / "said")
    undisturbed.scanned_alike(out, whole)
    assert "nothing to do" in last_line(run(*words))


# ------------------------------------------------------------------------------------------------ under torchrun

STEPS = 130


@pytest.fixture(scope="module")
def trained(undisturbed: Undisturbed) -> Callable[[str], Path]:
    """The folder of a stage's undisturbed run, made when it is first asked for."""

    @functools.cache
    def whole(stage: str) -> Path:
        out = undisturbed.root / f"whole-{stage}"
        run(*training(undisturbed, stage, out))
        return out

    return whole


def training(undisturbed: Undisturbed, stage: str, out: Path, dataset: object = None) -> list[object]:
    small = ["--preset", "tiny", "--workers", 1, "--epochs", 10, "--checkpoint-steps", 10, "--out", out]
    more = {
        "pretrain": ["clip"],
        "finetune": ["cleanclip", "--pretrained", undisturbed.root / "runs" / "poisoned"],
    }[stage]
    ranks = ["torchrun", "--standalone", "--nproc-per-node", 2, ENTRIES[stage]]
    return [*ranks, *more, "--dataset", dataset or undisturbed.source, *small]


def weights(out: Path) -> bytes:
    return checkpoint.find(str(out)).read(checkpoint.MODEL)


def steps(out: Path) -> int:
    lines = rundir.metrics(str(out))
    return lines[-1]["step"] if lines else 0


def reached(out: Path, step: int) -> Callable[[], bool]:
    """Whether a run that starts now has come to this step; what an earlier start of it measured does not count."""
    start = time.time()
    lines = out / "metrics.jsonl"
    return lambda: lines.exists() and lines.stat().st_mtime > start and steps(out) >= step


def half_written(out: Path) -> list[Path]:
    """Checkpoints with weights and without the file that says that they are whole."""
    return [folder for folder in (out / "checkpoints").glob("step-*")
            if (folder / checkpoint.MODEL).exists() and not (folder / checkpoint.COMPLETE).exists()]  # fmt: skip


def caught_saving(running: Running, out: Path) -> tuple[str, int]:
    """Stops rank 0, who writes, while a checkpoint is half written; returns its name and that process."""
    left = {folder: folder.stat().st_mtime_ns for folder in half_written(out)}  # by an earlier kill

    def new() -> set[Path]:
        return {folder for folder in half_written(out) if left.get(folder) != folder.stat().st_mtime_ns}

    while True:
        half = running.until(new)
        for pid in first_rank(running):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.05)
            if still := half & new():
                return still.pop().name, pid
            os.kill(pid, signal.SIGCONT)


def ended(matrix: Matrix, running: Running, kind: str, moment: str, *, errors: bool = False) -> None:
    """The command ends by itself, badly and in bounded time, with one error line where it can still say one."""
    start = time.monotonic()
    people = running.family()
    assert running.status(120) != 0
    seconds = time.monotonic() - start
    if errors:
        assert running.process.returncode == 1, running.text()[-4000:]
        one_error(running)
    gone(people, 60)
    matrix.saw(running, kind, moment, f"{'one error' if errors else 'ended'} in {seconds:.0f} s; went on")


def one_error(running: Running) -> None:
    """Under torchrun there are tracebacks beside it: torchrun's own, and those of ranks that lost their neighbour."""
    said = running.text()
    lines = {line for line in said.splitlines() if line.startswith("error: ")}
    assert len(lines) == 1, said[-6000:]
    assert "torchrun" in running.words or "Traceback (most recent call last)" not in said, said[-6000:]


def killed_starting(matrix: Matrix, words: list[object], said: Path) -> None:
    with Running(words, said) as running:
        running.until(lambda: rank(running))
        time.sleep(float(draws.uniform(0, 2)))
        kill(running, driver)
        ended(matrix, running, "driver", "the ranks are starting")


def killed_saving(matrix: Matrix, words: list[object], kind: Callable[[Running], list[int]], out: Path, said: Path):
    with Running(words, said) as running:
        half, pid = caught_saving(running, out)
        kill(running, kind)
        if kind is first_rank:
            running.status()
            assert half not in [whole.name for whole in checkpoint.whole(str(out))]
        else:
            os.kill(pid, signal.SIGCONT)  # it is to see by itself that torchrun has gone
        ended(matrix, running, kind.__name__.removeprefix("first_"), f"while {half} is written")


def went_on(words: list[object], out: Path, whole: Path) -> None:
    """Given once more and let alone, it ends as the undisturbed one did."""
    assert not (out / "DONE").exists()
    run(*words)
    assert weights(out) == weights(whole), "bit for bit"
    assert [(line["step"], line["loss"]) for line in rundir.metrics(str(out))] == [
        (line["step"], line["loss"]) for line in rundir.metrics(str(whole))
    ]
    assert {found.name for found in checkpoint.whole(str(out))} == {
        found.name for found in checkpoint.whole(str(whole))
    }


def test_pretraining(matrix, undisturbed, trained, moto_s3, speak, tmp_path, monkeypatch) -> None:
    out, said = tmp_path / "run", tmp_path / "said"
    words = training(undisturbed, "pretrain", out)
    moments = random_counts(12, STEPS - 40, 3)
    killed_starting(matrix, words, said)

    for kind, number in ((driver, moments[0]), (rank, moments[1])):
        with Running(words, said) as running:
            kill(running, kind, reached(out, number))
            ended(matrix, running, kind.__name__, f"step {steps(out)} of {STEPS}")

    for kind in (first_rank, driver):
        killed_saving(matrix, words, kind, out, said)

    with Running(words, said) as running:
        kill(running, loader, reached(out, moments[2]))
        ended(matrix, running, "loader worker", f"step {steps(out)} of {STEPS}", errors=True)

    speak(moto_s3.environment)
    url = copied(undisturbed.source, storage.join(moto_s3.make_bucket("killed"), "source"))
    monkeypatch.setenv("ANTIDOTE_CACHE", str(tmp_path / "another-cache"))
    with Running(training(undisturbed, "pretrain", out, url), said) as running:
        running.until(lambda: fetcher(running))
        time.sleep(float(draws.uniform(0, 0.3)))
        kill(running, fetcher)
        ended(matrix, running, "fetcher", "shards are fetched from S3", errors=True)

    went_on(training(undisturbed, "pretrain", out, url), out, trained("pretrain"))
    assert "nothing to do" in last_line(run(*words))


def test_finetuning(matrix, undisturbed, trained, tmp_path) -> None:
    """What differs from pretraining: it begins with a run's weights. The loop is the same one."""
    out, said = tmp_path / "run", tmp_path / "said"
    words = training(undisturbed, "finetune", out)
    killed_starting(matrix, words, said)
    killed_saving(matrix, words, first_rank, out, said)
    went_on(words, out, trained("finetune"))


def copied(folder: Path, url: str) -> str:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        storage.write(storage.join(url, path.relative_to(folder).as_posix()), path.read_bytes())
    return url


# ------------------------------------------------------------------------------------------------ in the end


def test_nothing_is_left_behind(matrix: Matrix, record_property) -> None:
    gone(matrix.people, 150)  # Ray's agents notice after a minute that they are alone
    widths = [max(len(getattr(line, name)) for line in matrix.lines) for name in ("stage", "kind", "moment")]
    table = [f"killed (STORY_SEED={SEED})"]
    for line in matrix.lines:
        cells = (line.stage, line.kind, line.moment)
        table.append("  ".join([*(text.ljust(width) for text, width in zip(cells, widths, strict=True)), line.outcome]))
    record_property("read", "\n".join(table))
    seen = {(line.stage, line.kind) for line in matrix.lines}
    for stage in ("prepare", "verify", "evaluate", "scan"):
        assert {(stage, "driver"), (stage, "worker")} <= seen
    assert {("pretrain", kind) for kind in ("driver", "rank", "loader worker", "fetcher")} <= seen
    assert {("finetune", kind) for kind in ("driver", "rank")} <= seen


def test_unfinished_writes_are_never_taken_for_files(undisturbed: Undisturbed) -> None:
    for path in unfinished(undisturbed.root):
        assert path.name not in storage.names(str(path.parent))
