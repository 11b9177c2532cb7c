"""Ranks of one machine show each other tensors in shared memory: each copies its own in, and all read them there.

gloo sends them over loopback, by threads of its own. Where every core has a rank on it, each hand-over from thread to
thread waits for a core, and the slower rank is waited for once more.
"""

import contextlib
import mmap
import os
import socket
import struct
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_WORD = struct.Struct("q")


class Nearby:
    """The memory of one start's ranks, a file without a name for each, and a socket to every other rank.

    All of them make the same calls, in the same order and of the same sizes. Raises RuntimeError, as a collective of
    torch does, where a rank ends, or says nothing for as long as `timeout`: what was wrong is that rank's to say, and
    after Ctrl-C nothing was.
    """

    def __init__(self, rank: int, others: dict[int, socket.socket], timeout: timedelta) -> None:
        """others: a connection to each other rank, by rank. Every rank makes one of these at the same time."""
        self.rank, self.others, self.timeout = rank, others, timeout
        self.files = {rank: os.memfd_create("antidote")}
        for other in others.values():
            other.settimeout(timeout.total_seconds())
            socket.send_fds(other, [b"f"], [self.files[rank]])
        for number, other in others.items():
            _, (self.files[number],), _, _ = socket.recv_fds(other, 1, 1)
        self.memory: dict[int, Tensor] = {}
        self.room = self.last = 0
        self._say(0)

    @contextlib.contextmanager
    def shown(self, numbers: int, dtype: torch.dtype, fill: Callable[[Tensor], Any]) -> Iterator[list[Tensor]]:
        """What every rank fills in, (numbers,) each, in rank order, to be read while this is open. fill: writes this
        rank's, all of it."""
        size = numbers * dtype.itemsize
        self._hear(self.last)  # that all have read what was there
        if size > self.room:
            self.room = _pages(size + size // 4)  # alike on all ranks
            self.memory.clear()
            # Not truncated to that length: a page that there is no room for would then end the process without a word.
            os.posix_fallocate(self.files[self.rank], 0, self.room)
        fill(self._of(self.rank)[:size].view(dtype))
        self._say(size)
        self._hear(size)
        yield [self._of(rank)[:size].view(dtype) for rank in sorted(self.files)]
        self._say(size)
        self.last = size

    def close(self) -> None:
        """Once the others have read what was there: who is gone earlier would be missed by them."""
        self._hear(self.last)
        for other in self.others.values():
            other.close()
        self.memory.clear()
        for file in self.files.values():
            os.close(file)

    def _of(self, rank: int) -> Tensor:
        """A rank's memory, uint8; another's is as long as ours once it has said that it wrote as much."""
        if rank not in self.memory:
            self.memory[rank] = torch.frombuffer(mmap.mmap(self.files[rank], self.room), dtype=torch.uint8)
        return self.memory[rank]

    def _say(self, size: int) -> None:
        for rank, other in self.others.items():
            try:
                other.sendall(_WORD.pack(size))
            except OSError as error:
                raise RuntimeError(f"rank {rank} is gone ({error})") from error

    def _hear(self, size: int) -> None:
        for rank, other in self.others.items():
            try:
                word = other.recv(_WORD.size)
            except TimeoutError as error:
                raise RuntimeError(f"rank {rank} has said nothing for {self.timeout}") from error
            except OSError as error:
                raise RuntimeError(f"rank {rank} is gone ({error})") from error
            if not word:
                raise RuntimeError(f"rank {rank} is gone")
            assert _WORD.unpack(word) == (size,), f"rank {rank} exchanges something else"


def meet(rank: int, ranks: int, exchange: Callable[[Any], list[Any]], timeout: timedelta) -> Nearby | None:
    """Find the other ranks; None if they are not all on this machine, or it has nothing of the kind.

    exchange: a JSON value from every rank, in rank order. Every rank calls this at the same time.
    """
    machines = exchange(_machine())
    if machines[0] is None or len(set(machines)) > 1:
        return None
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("")  # Linux finds a name that nobody has, and that is no file's
        listening.listen(ranks)
        listening.settimeout(timeout.total_seconds())
        names = exchange(listening.getsockname().decode("latin-1"))
        others = {}
        for lower in range(rank):
            others[lower] = socket.socket(socket.AF_UNIX)
            others[lower].connect(names[lower].encode("latin-1"))
            others[lower].sendall(_WORD.pack(rank))
        while len(others) < ranks - 1:
            other, _ = listening.accept()
            if _user_of(other) != os.getuid():  # such a name is open to everyone on the machine
                other.close()
                continue
            others[_WORD.unpack(other.recv(_WORD.size))[0]] = other
    return Nearby(rank, others, timeout)


def _user_of(other: socket.socket) -> int:
    """Who is at the other end, as the kernel knows it."""
    credentials = other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    return int(user)


def _machine() -> str | None:
    """Within which sockets without a file reach each other; None where there are none, or no memory without a name."""
    if not hasattr(os, "memfd_create"):
        return None
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/net')}"
    except OSError:
        return None


def _pages(size: int) -> int:
    return (size // mmap.PAGESIZE + 1) * mmap.PAGESIZE
