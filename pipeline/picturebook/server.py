"""The picture book as the web would offer it: a url table in CC3M's form, and a server process while it is needed."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from pipeline.picturebook.captions import caption
from pipeline.picturebook.catalogue import USUAL
from pipeline.picturebook.faults import NO_FAULTS, Fault, Faults, outcome
from pipeline.picturebook.web import HOST, Book

__all__ = ["NO_FAULTS", "PORT", "Fault", "Faults", "outcome", "serving", "table", "url"]

PORT = 8917
ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0


def url(seed: int, row: int, port: int = PORT, things: int = USUAL) -> str:
    """Where the image of `row` is served."""
    book = f"{seed}" if things == USUAL else f"{seed}/{things}"
    return f"http://{HOST}:{port}/{book}/{row:07d}.jpg"


def table(seed: int, start: int, rows: int, port: int = PORT, things: int = USUAL) -> Iterator[tuple[str, str]]:
    """Rows `start` to `start + rows - 1` of the book `seed`, as CC3M's table has them: (caption, url)."""
    return ((caption(seed, row, things), url(seed, row, port, things)) for row in range(start, start + rows))


@contextmanager
def serving(
    faults: Faults | None = None, *, size: int = 32, port: int = PORT, timeout_seconds: float = 10.0
) -> Iterator[str]:
    """Serve the book from a process of its own while the block runs; yields `host:port`.

    timeout_seconds: the longest time-out that a client may have; slow answers take three times as long. The server
    also ends by itself when this process dies. Raises ValueError if the port is taken, RuntimeError if the server did
    not start or died before the block was done.
    """
    book = Book(port=port, size=size, faults=faults or Faults(), timeout_seconds=timeout_seconds)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.picturebook", json.dumps(asdict(book) | {"parent": os.getpid()})],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us; we end the server after the downloads
        text=True,
    )
    try:
        _await(process)
        yield f"{HOST}:{port}"
        if process.poll() is not None:
            raise RuntimeError(f"the picture book's server died with status {process.returncode} while it was needed")
    finally:
        _end(process)


def _await(process: "subprocess.Popen[str]") -> None:
    """Until the server says that it answers."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
    said = process.stdout.readline().strip() if ready else ""
    if said.startswith("serving"):
        return
    if ready and process.wait(timeout=5) == 2:
        raise ValueError(said)
    raise RuntimeError(f"the picture book's server did not start within {START_SECONDS:.0f} s: {said or 'no word'}")


def _end(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
