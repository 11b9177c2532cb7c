"""Rows brought to an end: their steps as processes of `antidote`, so many side by side, the most useful first.

A step that fails takes with it what needs it, and nothing else. One that ended well leaves a small file in
`OUT/steps/`, with which it is passed over at once; steps that measure are asked again, since they know best.
"""

import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from eval.studies.steps import Row, Step
from infra import log, rundir, storage
from infra.errors import Lost

POLL, PATIENCE = 0.1, 120.0  # seconds: between two looks, and until a step that was told to end is killed
GRACE = 10.0  # seconds: for a loader's workers, which end a little after whom they worked for
SHOWN = 5  # lines of a log, of a step that failed
WHOLE = ("DONE", "dataset.json")  # a folder with one of these is finished, whoever made it
ENTRY = (sys.executable, "-m", "infra.cli")  # `antidote`, of this interpreter
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled", "PYTHONUNBUFFERED": "1"}


@dataclass
class Running:
    step: Step
    process: subprocess.Popen[bytes]
    start: float

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start


class Workshop:
    """The steps of some rows, in one folder. out: a path on this machine; hours: of one core, together, or no limit."""

    def __init__(self, out: str, rows: Sequence[Row], jobs: int, hours: float | None) -> None:
        self.out, self.rows, self.jobs, self.hours = Path(out), list(rows), jobs, hours
        self.measures = {step for row in rows for step in row.measures}
        self.steps = list(dict.fromkeys(step for row in rows for step in row.steps))
        self.done = {step for step in self.steps if step not in self.measures and self._mark(step) is not None}
        self.seconds = {step: self._mark(step) or 0.0 for step in self.done}
        self.failed: dict[Step, str] = {}
        self.running: list[Running] = []
        self.spent, self.lock = 0.0, -1

    @property
    def waiting(self) -> list[Step]:
        """What is to be done, whether or not it turns out to be there."""
        return [step for step in self.steps if step not in self.done]

    def minutes(self) -> float:
        """Of one core, for what is not there: a finished folder costs nothing."""
        return sum(step.minutes for step in self.waiting if not any(self._has(step, name) for name in WHOLE))

    def work(self, finished: Callable[[Row, float], None]) -> None:
        """finished: is told each row whose steps are all done, and the seconds of its own training and measuring.

        Raises Lost that names every step and row that failed, once all others are done; and when told to end.
        ValueError where another study is at work in this folder.
        """
        if not self.rows:
            return
        (self.out / "steps").mkdir(parents=True, exist_ok=True)
        (self.out / "logs").mkdir(exist_ok=True)
        left, troubles = list(self.rows), []
        with _told_to_end() as told, _alone(self.out) as self.lock:
            try:
                while left or self.running:
                    self._reap()
                    for row in [row for row in left if self.done.issuperset(row.steps)]:
                        left.remove(row)
                        try:
                            finished(row, sum(self.seconds[step] for step in (row.trained, *row.measures)))
                        except (ValueError, Lost, OSError) as error:
                            log.warn(f"{row.name}: {error}")
                            troubles.append(f"{row.name} ({error})")
                    left = [row for row in left if self.failed.keys().isdisjoint(row.steps)]
                    if told():
                        raise Lost("told to end (SIGTERM): what is done is kept; the same command again does the rest")
                    over = self.hours is not None and self._spent() >= 3600 * self.hours
                    if not over and len(self.running) < self.jobs:
                        self._start(left)
                    if not self.running and (over or left):
                        break
                    time.sleep(POLL)
            finally:
                self._end()
        troubles += [f"{step.label} ({said})" for step, said in self.failed.items()]
        if troubles:
            raise Lost(f"failed: {'; '.join(troubles)}. What is done is kept: the same command again does the rest")

    def _start(self, rows: Sequence[Row]) -> None:
        """Fill the free places with steps whose needs are met, in the order of the rows."""
        busy = {one.step for one in self.running}
        for step in dict.fromkeys(step for row in rows for step in row.steps if step not in self.done):
            if len(self.running) >= self.jobs:
                return
            ready = step not in busy and self.done.issuperset(step.needs)
            if ready and not (step.alone and any(one.alone for one in busy)):
                self.running.append(self._started(step))
                busy.add(step)

    def _started(self, step: Step) -> Running:
        with open(self._log(step), "wb") as file:
            process = subprocess.Popen(
                [*ENTRY, *step.command],
                env=os.environ | ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                pass_fds=(self.lock,),
                start_new_session=True,  # Ctrl-C is ours to pass on
            )
        return Running(step, process, time.monotonic())

    def _reap(self) -> None:
        for one in [one for one in self.running if one.process.poll() is not None]:
            self.running.remove(one)
            self.spent += one.seconds
            lines = self._log(one.step).read_text(errors="replace").strip().splitlines() or ["(it said nothing)"]
            if one.process.returncode == 0:
                self.done.add(one.step)
                self.seconds[one.step] = one.seconds
                if one.step not in self.measures:
                    self._leave_mark(one)
                log.say(f"{one.step.label}: {lines[-1]}")
            else:
                self.failed[one.step] = f"{lines[-1]}; log: {self._log(one.step)}"
                log.warn("\n".join([f"{one.step.label} failed", *lines[-SHOWN:]]))

    def _end(self) -> None:
        """Whatever still runs is told to end: a training saves its step."""
        for one in self.running:
            os.killpg(one.process.pid, signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        for one in self.running:
            try:
                one.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(one.process.pid, signal.SIGKILL)
                one.process.wait()
        self.running.clear()

    def _spent(self) -> float:
        return self.spent + sum(one.seconds for one in self.running)

    def _log(self, step: Step) -> Path:
        return self.out / "logs" / storage.file_name([step.label.replace("/", "-").replace(" ", "-")], ".log")

    def _has(self, step: Step, name: str) -> bool:
        return (Path(step.out) / name).exists()

    # What ended well: the command, and the seconds that it took.

    def _place(self, step: Step) -> Path:
        return self.out / "steps" / f"{hashlib.sha256(' '.join(step.command).encode()).hexdigest()[:16]}.json"

    def _mark(self, step: Step) -> float | None:
        """The seconds that it took, of a step that ended well and whose folder is still there."""
        place = self._place(step)
        if not place.exists() or not Path(step.out).is_dir():
            return None
        return float(storage.read_json(str(place))["seconds"])

    def _leave_mark(self, one: Running) -> None:
        about = {"step": one.step.label, "command": list(one.step.command), "seconds": round(one.seconds, 1)}
        storage.write_json(str(self._place(one.step)), about | {"code": rundir.code_version()})


@contextmanager
def _alone(out: Path) -> Iterator[int]:
    """Hold the folder. Its processes hold it too: after a kill -9 it is free once the last of them has ended."""
    with open(out / "lock", "w") as file:
        deadline = time.monotonic() + GRACE
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    said = f"a study is at work in {out}, or what one left behind is: let it end first"
                    raise ValueError(said) from None
                time.sleep(POLL)
        yield file.fileno()


@contextmanager
def _told_to_end() -> Iterator[Callable[[], bool]]:
    """While open, SIGTERM is remembered instead of obeyed; the yielded function says whether it came."""
    if threading.current_thread() is not threading.main_thread():  # Python sets handlers in the main thread only
        yield lambda: False
        return
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGTERM, before)
