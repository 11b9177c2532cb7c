"""What the two entries do besides parsing: speak with one voice, end with one status, under torchrun or without it.

They also say how they were started; the run keeps that with each attempt, in environment.json.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from infra import log, storage
from infra.errors import Lost, interrupted
from train.ranks import Elsewhere

PATIENCE = 20.0  # seconds


def started(verb: str, argv: Sequence[str] | None) -> list[str]:
    """The command that this process was started with. argv: the words that `antidote VERB` passed on; None: a script.

    The program is named, not placed: where it lies says something of a machine and nothing of a run.
    """
    return [f"train/{verb}.py", *sys.argv[1:]] if argv is None else ["antidote", verb, *argv]


def run_entry(parse: Callable[[], Any], command: Sequence[str]) -> int:
    """Parse and run under torchrun. Rank 0 speaks; status 2 for bad input, 1 for damage or loss, 130 at Ctrl-C, on
    every rank.

    command: as `started` says it.

    torchrun kills the other ranks as soon as one has ended, so they give rank 0 the time to say what is wrong.
    """
    speaks = int(os.environ.get("RANK", 0)) == 0
    with _ctrl_c_noted() as came:
        try:
            return _run(parse, command, speaks)
        except (KeyboardInterrupt, RuntimeError):
            if not came():
                raise
            return interrupted() if speaks else 130


def _run(parse: Callable[[], Any], command: Sequence[str], speaks: bool) -> int:
    try:
        with contextlib.nullcontext() if speaks else _silence():
            job = parse()
        _hold_no_credentials(command)
        line = job.run(command)
        if speaks:
            log.result(line)
        return 0
    except SystemExit as stop:
        if not speaks and stop.code not in (None, 0, 130):
            time.sleep(PATIENCE)
        return int(stop.code or 0)
    except ValueError as error:
        return _end(error, 2, speaks)
    except (Lost, OSError, Elsewhere) as error:
        return _end(error, 1, speaks)


def _hold_no_credentials(command: Sequence[str]) -> None:
    """Raises ValueError, without repeating it, for a url that cannot be opened because of what it holds.

    A run refuses such a url where it opens it. But of a flag that is given twice only the last value is opened, and
    the command is kept whole.
    """
    for word in command:
        url = word.partition("=")[2] if word.startswith("--") else word
        if "://" in url:
            storage.local(url)


def _end(error: Exception, status: int, speaks: bool) -> int:
    if not speaks:
        time.sleep(PATIENCE)  # still here afterwards: rank 0 does not share this error, so say it
    print(f"error: {error}", file=sys.stderr, flush=True)
    if place := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        # torchrun ends with a report of its own, which says what is in this file, or else how to get a traceback.
        shown = {"py_callstack": f"error: {error}", "timestamp": str(int(time.time()))}
        with open(place, "w") as file:
            json.dump({"message": {"message": str(error), "extraInfo": shown}}, file)
    return status


@contextlib.contextmanager
def _ctrl_c_noted() -> Iterator[Callable[[], bool]]:
    """Says whether SIGINT came: a rank may meet it as a collective that fails, because another rank has left."""
    came: list[int] = []

    def note(number: int, _: Any) -> None:
        came.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # Python sets handlers in the main thread only
        yield lambda: bool(came)
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere), contextlib.redirect_stdout(nowhere):
        yield
