"""Run the entries as a person would, and end them as a machine room would."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


def environment() -> dict[str, str]:
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "disabled",
        "PYTHONUNBUFFERED": "1",
    }


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


def kill(
    *words: object, when: Callable[[], bool], whom: str = "driver", survives: bool = True, timeout: float = 180
) -> None:
    """Start a command and kill -9 it, or one of its workers, as soon as `when()` holds.

    whom: "driver", or a part of the command line of the descendant to kill (`a|b`: rather a than b);
    in that case the command goes on and must end well, unless `survives` is False: then it must end badly by itself.
    """
    with open(os.devnull, "wb") as quiet:
        process = subprocess.Popen(
            command(*words), cwd=ROOT, env=environment(), stdout=quiet, stderr=quiet, start_new_session=True
        )
        try:
            deadline = time.monotonic() + timeout
            while not when():
                assert process.poll() is None, f"{words} ended with {process.returncode} before it could be killed"
                assert time.monotonic() < deadline, f"{words}: nothing to interrupt after {timeout} s"
                time.sleep(0.01)
            family = list(descendants(process.pid))
            if whom == "driver":
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                gone(family)
                return
            kinds = whom.split("|")
            victims = [pid for kind in kinds for pid in family if kind in command_line(pid)]
            assert victims, f"{words}: no descendant is called {whom!r}"
            os.kill(victims[0], signal.SIGKILL)
            ended_well = process.wait(timeout=timeout) == 0
            assert ended_well == survives, (
                f"{words} ended {'well' if ended_well else 'badly'} after the death of its {whom}"
            )
            gone(family)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in children:
            yield child
            yield from descendants(child)


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


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
