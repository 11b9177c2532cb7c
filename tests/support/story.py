"""Run the entries as a person would, and end them as a machine room would."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
MARK = "ANTIDOTE_STORY"


def environment(mark: str | None = None) -> dict[str, str]:
    """Without what this process told its own Ray cluster. mark: whatever inherits it is a member of `family(mark)`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ours = {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0", "PYTHONUNBUFFERED": "1"}
    ours |= {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"} | ({MARK: mark} if mark else {})
    return inherited | ours


def command(*words: object) -> list[str]:
    """`torchrun ...` and `pipeline/prepare.py ...` as they stand in the README."""
    first = str(words[0])
    start = [str(BIN / "torchrun")] if first == "torchrun" else [sys.executable, first]
    return [*start, *map(str, words[1:])]


def run(*words: object, status: int = 0, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run to the end; the exit status must be `status`."""
    done = subprocess.run(command(*words), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=timeout)
    said = f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert done.returncode == status, f"{words}: exit status {done.returncode}\n{said}"
    return done


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout.strip().splitlines()[-1]


class Running:
    """A command that was started with all that it starts in turn; what is left of it ends with the block.

    said: a file of everything it printed.
    """

    def __init__(self, words: list[object], said: Path, more: dict[str, str] | None = None) -> None:
        self.words, self.said, self.mark = words, said, uuid.uuid4().hex
        with open(said, "wb") as file:
            self.process = subprocess.Popen(
                command(*words),
                cwd=ROOT,
                env=environment(self.mark) | (more or {}),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def until(self, when: Callable[[], T], timeout: float = 180) -> T:
        """The first value of `when()` that is not empty. The command must not end meanwhile.

        A look through all processes takes milliseconds: it is not to take a core from those that it waits for.
        """
        deadline = time.monotonic() + timeout
        while True:
            looked = time.thread_time()
            if found := when():
                return found
            status = self.process.poll()
            assert status is None, f"{self.words} ended with {status} before it could be killed\n{self.text()[-3000:]}"
            assert time.monotonic() < deadline, (
                f"{self.words}: nothing to kill after {timeout} s\n{self.text()[-3000:]}"
            )
            time.sleep(max(0.002, 5 * (time.thread_time() - looked)))

    def status(self, timeout: float = 180) -> int:
        """Its exit status, once it has ended."""
        return self.process.wait(timeout)

    def text(self) -> str:
        return self.said.read_text(errors="replace")

    def family(self) -> list[int]:
        return family(self.mark)

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:  # a test failed: leave nothing behind. Else the test itself asks for that.
            for pid in self.family():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait(30)


def descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in children:
            yield child
            yield from descendants(child)


def parent(pid: int) -> int:
    """0 where there is no such process any more."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def environ(pid: int) -> str:
    """What a process was started with, each NAME=value between two zero bytes; "" where there is none any more."""
    try:
        return "\0" + Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""


def family(mark: str) -> list[int]:
    """Every process that was started, however indirectly, with this mark; orphans too, which have no parent to ask."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return sorted(found)


def gone(pids: list[int], seconds: float = 150) -> None:
    """Wait until these processes have ended by themselves: nothing may stay behind. Ray's agents take a minute."""
    deadline = time.monotonic() + seconds
    while left := [pid for pid in pids if alive(pid)]:
        assert time.monotonic() < deadline, f"left behind: {[command_line(pid) for pid in left]}"
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
