"""Ports of this machine for the servers of one test run, of which several processes may be at work (pytest-xdist)."""

import os
import random
import socket
from contextlib import suppress

# Below the range from which the system gives ports to whoever asks: Ray itself asks for dozens meanwhile.
FIRST, LAST = 20_000, 31_999
SHARES = 16  # so many workers have ports of their own; a further one shares those of another
_told: set[int] = set()


def free_port() -> int:
    """Nobody listens there now, and neither this process nor another worker of the run is told it a second time."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % SHARES
    ours = range(FIRST + worker, LAST + 1, SHARES)
    for port in random.SystemRandom().sample(ours, len(ours)):  # whoever seeds `random` would be told the same again
        if port not in _told:
            with suppress(OSError), socket.create_server(("127.0.0.1", port)):
                _told.add(port)
                return port
    raise RuntimeError(f"none of the {len(ours)} ports of this worker is free")
