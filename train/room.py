"""The room of a node's cache: which runs of this machine use what, and what may go to make room.

lock              held while anybody looks or makes room
leases/           of each run that is alive: {"uses": bytes by name, "room": bytes}
shards/, index/   what runs share, by content
lanes/            folders of runs in lanes; each holds no more than the room of its lease
"""

import contextlib
import fcntl
import json
import math
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from infra import storage

GIB = 2**30
SHARED, OWN = ("shards", "index"), "lanes"

_held: set[TextIO] = set()
# A lock lives until its file is closed everywhere: a loader's worker, which outlives a killed rank, would hold it.
os.register_at_fork(after_in_child=lambda: [file.close() for file in _held] and None)


@dataclass
class Lease:
    """What one run uses, for as long as it lives: a lock ends with its process, however that ends.

    uses: by name the bytes that it has or will have under `shards`, 0 for all else. room: bytes of its own folder.
    """

    home: Path
    uses: dict[str, int]
    file: TextIO = field(repr=False)
    room: int = 0

    def say(self) -> None:
        """For whoever looks. Called under the lock."""
        self.file.seek(0)
        self.file.truncate()
        json.dump({"uses": self.uses, "room": self.room}, self.file)
        self.file.flush()

    def reserve(self, needed: int, wished: int, cache_gib: float) -> int:
        """Room for a folder under `lanes`: at least `needed` bytes, up to `wished`. What no run uses makes room, the
        longest unused first. Raises ValueError if there is not so much.
        """
        with _locked(self.home):
            known = _contents(self.home)
            used, rooms = _leased(self.home, known)
            rooms -= self.room
            kept = rooms + sum(size for path, (size, _) in known.items() if path.name in used and not _own(path))
            most = _bytes(cache_gib) - kept
            if most < needed:
                least = math.ceil((kept + needed) / GIB * 1000) / 1000
                raise ValueError(
                    f"the shards that the lanes' windows need at one time have {needed / GIB:.3g} GiB, and "
                    f"{kept / GIB:.3g} GiB of the cache are in use (the index of the samples, other runs): set "
                    f"--cache-gib to at least {least:g} (it is {cache_gib:g}), or --window lower"
                )
            _evict(known, used, _bytes(cache_gib) - rooms - min(most, wished))
            there = sum(size for path, (size, _) in known.items() if path.name in self.uses and _own(path))
            _check_disk(self.home, needed - there)
            self.room = max(needed, min(most, wished, there + shutil.disk_usage(self.home).free))
            self.say()
            return self.room

    def make(self, wanted: dict[str, int], cache_gib: float) -> None:
        """Remove what no run uses, the longest unused first, until `wanted` (names of shards, bytes) fits the bound
        beside what others have, and what they wait for. Raises ValueError if it cannot.
        """
        with _locked(self.home):
            known = _contents(self.home)
            used, rooms = _leased(self.home, known, wanted)
            missing = _to_come(wanted, known)
            _evict(known, used, _bytes(cache_gib) - rooms)
            needed = rooms + sum(size for path, (size, _) in known.items() if path.suffix == ".tar")
            if wanted and needed > cache_gib * GIB:
                raise ValueError(
                    f"other runs on this machine use the cache at {self.home}: "
                    f"set --cache-gib to at least {needed / GIB + 0.1:.1f} (it is {cache_gib:g}), or wait for them"
                )
            _check_disk(self.home, missing)
            self.uses |= wanted  # none of it is here yet: who comes next would find the same room once more
            self.say()


@contextlib.contextmanager
def lease(home: Path, uses: list[str]) -> Iterator[Lease]:
    """Say what this run uses: names of files and folders, which no other run removes meanwhile."""
    place = home / "leases" / f"{uuid.uuid4().hex}.json"
    place.parent.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        with _locked(home):
            file = stack.enter_context(open(place, "w"))
            taken = Lease(home, dict.fromkeys(uses, 0), file)
            taken.say()
            fcntl.flock(file, fcntl.LOCK_EX)
            _held.add(file)
        try:
            yield taken
        finally:
            _held.discard(file)
            place.unlink(missing_ok=True)


def _bytes(gib: float) -> int:
    return int(min(gib * GIB, 2.0**62))


def _own(path: Path) -> bool:
    return path.parent.name == OWN


def _evict(known: dict[Path, tuple[int, float]], used: set[str], limit: int) -> None:
    """Remove from disk, and from `known`, until all but the folders of living runs, whose room is counted, fits."""
    total = sum(size for path, (size, _) in known.items() if not (_own(path) and path.name in used))
    for path in sorted(known, key=lambda path: known[path][1]):
        if total > limit and path.name not in used:
            total -= known.pop(path)[0]
            _delete(path)


def _check_disk(home: Path, missing: int) -> None:
    if missing > (free := shutil.disk_usage(home).free):
        raise ValueError(
            f"the cache at {home} needs {missing / GIB:.1f} GiB and the disk has {free / GIB:.1f} GiB free: "
            "set ANTIDOTE_CACHE to a larger disk"
        )


@contextlib.contextmanager
def _locked(home: Path) -> Iterator[None]:
    with open(home / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _contents(home: Path) -> dict[Path, tuple[int, float]]:
    """Bytes and time of last use of all that is whole. What a killed run left a day ago unfinished is removed."""
    found: dict[Path, tuple[int, float]] = {}
    for path in [path for name in (*SHARED, OWN) if (home / name).is_dir() for path in (home / name).iterdir()]:
        with contextlib.suppress(FileNotFoundError):  # what another run writes may just have got its name
            seen = path.stat().st_mtime
            if storage.ATTEMPT not in path.name:
                files = path.iterdir() if path.is_dir() else (path,)
                found[path] = sum(file.lstat().st_size for file in files), seen
            elif time.time() - seen > 24 * 3600:
                _delete(path)
    return found


def _leased(home: Path, known: Iterable[Path] = (), more: dict[str, int] | None = None) -> tuple[set[str], int]:
    """The names that living runs use, and the bytes that they may come to hold beside what is `known` to be there: in
    folders of their own, and in shards on their way, whoever waits for them. more: as if another run said so, too.
    """
    shards, rooms = dict(more or {}), 0
    for place in (home / "leases").glob("*.json"):
        with contextlib.suppress(FileNotFoundError), open(place) as file:  # a run may end at any time
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                place.unlink()  # its run is dead
            except BlockingIOError:
                said = json.load(file)
                uses, room = (said, 0) if isinstance(said, list) else (said["uses"], said["room"])  # a list: once
                for name, size in uses.items() if isinstance(uses, dict) else dict.fromkeys(uses, 0).items():
                    shards[name] = max(size, shards.get(name, 0))
                rooms += room
    return set(shards), rooms + _to_come(shards, known)


def _to_come(shards: dict[str, int], known: Iterable[Path]) -> int:
    """Bytes of those that are not there yet."""
    there = {path.name for path in known}
    return sum(size for name, size in shards.items() if name not in there)


def _delete(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
