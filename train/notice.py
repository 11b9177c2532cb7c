"""SIGTERM is how Slurm, Kubernetes and spot machines say that a node is about to go: finish the step, save, leave."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import TracebackType

from train.ranks import Place


@contextlib.contextmanager
def awaited(place: Place) -> Iterator[Callable[[], bool]]:
    """While open, SIGTERM is remembered instead of obeyed; the yielded function says whether it came.

    Only rank 0 acts on it. The others go on, since it may be in a step that needs them, until it has left.
    """
    if threading.current_thread() is not threading.main_thread():  # Python sets handlers in the main thread only
        yield lambda: False
        return
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        yield lambda: bool(came)
    except RuntimeError:
        if came and not place.first:
            raise SystemExit from None  # rank 0 has left, and has said so
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def apart(_: int) -> None:
    """For the loader's workers: torchrun signals the whole process group, and the last step still needs them."""
    os.setpgid(0, 0)
    sys.excepthook = _said_unless_left


def _said_unless_left(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The thread that hands a worker's tensors over would print a traceback where whom they are for has left."""
    if not issubclass(kind, (EOFError, ConnectionError)):
        sys.__excepthook__(kind, error, trace)
