"""The folder into which a run's shards come ahead of use, and from which they go behind it, as its readers see it.

SHA256.tar    a verified shard, or a link to it where it lies on this machine's disk
steps         int64 a rank of this node: the step that it will take next; -1: not known yet
lock          held by the process that fetches (train.fetching) for as long as it lives
failed.json   why it gave up: {"kind", "message"}
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from infra import storage
from infra.errors import Damaged, Lost, named

TICK = 0.02  # seconds


@dataclass(frozen=True)
class Ahead:
    """One rank's view of it. slot: which of this node's ranks it is."""

    folder: str
    slot: int

    @staticmethod
    def begun(folder: str, ranks: int) -> "Ahead":
        """With the steps of so many ranks, none of which is known yet."""
        os.makedirs(folder, exist_ok=True)
        np.full(ranks, -1, np.int64).tofile(f"{folder}/steps")
        return Ahead(folder, 0)

    def tell(self, step: int) -> None:
        """This rank will take no step before this one any more, counted over all epochs."""
        with open(f"{self.folder}/steps", "r+b") as file:
            file.seek(8 * self.slot)
            file.write(np.int64(step).tobytes())

    def slowest(self) -> int:
        """The first step that any rank will still take; -1 while one has not told."""
        return int(np.fromfile(f"{self.folder}/steps", np.int64).min())

    def wait(self, tar: str) -> None:
        """Until this shard is there. Raises what the process that fetches gave up for, Lost if it has died."""
        while not os.path.lexists(tar):
            alive = self._is_alive()  # before the look for its last word
            with contextlib.suppress(FileNotFoundError):
                raise named(**storage.read_json(f"{self.folder}/failed.json"))
            if not alive and not os.path.lexists(tar):
                raise Lost("the process that fetches shards has died: run the same command again")
            time.sleep(TICK)

    def fail(self, error: Exception) -> None:
        """The last word to all who wait."""
        known = {"kind": "Damaged" if isinstance(error, Damaged) else "Lost", "message": str(error)}
        storage.write(f"{self.folder}/failed.json", json.dumps(known).encode())

    @contextlib.contextmanager
    def fetching(self, seconds: float = 60.0) -> Iterator[None]:
        """While open, this process is the one that fetches. Raises Lost if another one remains that long."""
        deadline = time.monotonic() + seconds
        with open(f"{self.folder}/lock", "w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:  # of a run that was killed a moment ago
                    if time.monotonic() > deadline:
                        raise Lost(
                            f"another process fetches shards into {self.folder}: has the run two starts?"
                        ) from error
                time.sleep(TICK)
            yield

    def _is_alive(self) -> bool:
        with open(f"{self.folder}/lock") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False
