"""A node's shards where not all fit: one process brings those of its lanes' windows ahead, and drops those behind.

It is spawned and has the only S3 client; readers map what is there and wait for the rest (train.ahead). As the order
is known, it keeps the shards that are needed next, as many as there is room for. Every shard is verified before its
first use; one on this machine's disk is used in place, by a link.
"""

import contextlib
import functools
import hashlib
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from infra import log, storage
from infra.errors import Damaged, Lost, named
from pipeline.dataset import Dataset, Shard, cache_folder, check
from train import cache, room
from train.ahead import TICK, Ahead
from train.cache import Local
from train.lanes import Plan, Uses

KEPT = ".kept"  # a shard of an interrupted start, not yet verified again
NAME = "shards of lanes"  # of the process
LOOK_SECONDS = 1.0  # between looks for shards that somebody has removed


def located(dataset: Dataset, run: str, rank: int, slot: int) -> Local:
    """Where `served` puts what this rank reads. run: the folder of the run. slot: of the rank among its node's."""
    name = hashlib.sha256(f"{storage.real(run)} {rank - slot}".encode()).hexdigest()[:32]
    folder = cache_folder() / room.OWN / name
    tars = tuple(str(folder / f"{shard.sha256}.tar") for shard in cache.by_id(dataset))
    return replace(cache.located(dataset), tars=tars, ahead=Ahead(str(folder), slot))


@contextlib.contextmanager
def served(
    dataset: Dataset, plan: Plan, epochs: int, lanes: range, local: Local, ranks: int, cache_gib: float, quiet: bool
) -> Iterator[None]:
    """While open, the shards of these lanes come and go, at the pace of this node's `ranks`, into `local.ahead`.

    Raises ValueError if the cache cannot hold what a step needs, Damaged or Lost if the index cannot be had.
    """
    assert local.ahead is not None
    work = _Work(dataset, plan, epochs, lanes, local, local.ahead)
    sizes, home, folder = work.sizes, cache_folder(), Path(local.ahead.folder)
    needed, wished = plan.need(epochs, lanes, sizes), int(sizes.sum())
    for name in room.SHARED:
        (home / name).mkdir(parents=True, exist_ok=True)
    with room.lease(home, [Path(local.index).name, folder.name]) as lease:
        lease.reserve(needed, needed, cache_gib)  # before anything is written
        Ahead.begun(str(folder), ranks)
        if not quiet:
            dataset.tell_left_out()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_fetch, name=NAME, args=(work, os.getpid(), theirs), daemon=True)
        process.start()
        theirs.close()
        try:
            try:
                kind, message = ours.recv()
            except EOFError as error:
                process.join(5)
                raise Lost(f"the process that fetches shards has died (status {process.exitcode})") from error
            if kind != "indexed":
                raise named(kind, message)
            size = lease.reserve(needed, wished, cache_gib)
            if not quiet and wished:
                log.say(
                    f"in lanes: of {wished / room.GIB:.3g} GiB of shards that lie elsewhere, this node holds up to "
                    f"{size / room.GIB:.3g} GiB at a time"
                )
            ours.send(size)
            yield
        finally:
            process.kill()
            process.join()
            ours.close()
        shutil.rmtree(folder)  # not where it ends otherwise: the run goes on with what is there


@dataclass(frozen=True)
class _Work:
    """What is to be brought, when, and where to."""

    dataset: Dataset
    plan: Plan
    epochs: int
    lanes: range
    local: Local
    ahead: Ahead

    @functools.cached_property
    def shards(self) -> list[Shard]:
        return cache.by_id(self.dataset)

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """Bytes that each shard takes in the folder: int64 (S,), 0 for those on this machine's disk."""
        here = [storage.local(self.dataset.tar_url(shard)) is not None for shard in self.shards]
        return np.array([0 if local else shard.bytes for local, shard in zip(here, self.shards, strict=True)], np.int64)

    def wanted(self, step: int, size: int) -> list[int]:
        """Which shards shall be there when no step before this one will be taken: positions, in order of their use.

        As many as fit into `size` bytes; those that take none a window's length ahead, which is time to verify them.
        """
        steps, soon = self.plan.steps, step + self._window_steps
        found = []
        for epoch in range(step // steps, min(step // steps + 2, self.epochs)):
            uses, start = _uses(self.plan, epoch, self.lanes), epoch * steps
            late = (self.sizes[uses.shards] > 0) | (uses.first + start <= soon)
            found.append(uses.shards[(uses.last + start >= step) & late])
        ordered = np.concatenate([np.empty(0, np.int64), *found])
        ordered = ordered[np.sort(np.unique(ordered, return_index=True)[1])]
        fitting: list[int] = ordered[np.cumsum(self.sizes[ordered]) <= size].tolist()
        return fitting

    @property
    def _window_steps(self) -> int:
        return 1 + self.plan.steps * self.plan.window * self.plan.lanes // len(self.plan.counts)


@functools.lru_cache(maxsize=2)
def _uses(plan: Plan, epoch: int, lanes: range) -> Uses:
    return plan.line(epoch).uses(lanes)


def _fetch(work: _Work, parent: int, pipe: Connection) -> None:
    """The whole life of the process. It ends when the one that started it does, however that ends."""
    os.setpgid(0, 0)  # torchrun signals the whole process group, and the last step still needs its shards
    try:
        with work.ahead.fetching():
            _tidy(Path(work.ahead.folder))
            cache.index(work.dataset, work.local)
            pipe.send(("indexed", ""))
            size = pipe.recv()
            try:
                _keep_up(work, size, parent)
            except (Lost, ValueError, OSError) as error:
                work.ahead.fail(error)
            os._exit(1)  # without waiting for what is on its way
    except (Lost, ValueError, OSError, EOFError) as error:
        with contextlib.suppress(OSError):
            pipe.send((type(error).__name__, str(error)))


def _tidy(folder: Path) -> None:
    """What an interrupted start left: its shards are kept, and verified again when they are needed."""
    for path in folder.iterdir():
        if _is_shard(path) and not path.is_symlink():
            path.rename(path.with_suffix(KEPT))
        elif path.name not in ("lock", "steps") and path.suffix != KEPT:
            path.unlink()


def _is_shard(path: Path) -> bool:
    return path.suffix == ".tar" and storage.ATTEMPT not in path.name


def _keep_up(work: _Work, size: int, parent: int) -> None:
    folder, pool = Path(work.ahead.folder), ThreadPoolExecutor(cache.THREADS)
    names = [f"{shard.sha256}.tar" for shard in work.shards]
    here: set[str] = set()
    coming: dict[Future[None], str] = {}
    step, wanted, looked = -1, list[int](), 0.0
    if sum(path.stat().st_size for path in folder.glob(f"*{KEPT}")) > size:
        _drop(folder, set())
    while os.getppid() == parent:
        if (slowest := work.ahead.slowest()) != step:
            step, wanted = slowest, work.wanted(slowest, size)
            # What is on its way stays among the wanted: only what is needed before it can leave them. So all that is
            # there, or will be, fits.
            here -= _drop(folder, {names[position] for position in wanted})
        if time.monotonic() - looked > LOOK_SECONDS:
            here &= {path.name for path in folder.iterdir()}
            looked = time.monotonic()
        for position in wanted:
            if len(coming) == cache.THREADS:
                break
            if names[position] not in here and names[position] not in coming.values():
                coming[pool.submit(_bring, work.dataset, work.shards[position], folder)] = names[position]
        if not coming:
            time.sleep(TICK)
            continue
        for done in wait(coming, TICK, FIRST_COMPLETED).done:
            done.result()
            here.add(coming.pop(done))


def _drop(folder: Path, but: set[str]) -> set[str]:
    """Remove the shards of other names; links, which take no room, stay. Returns the names of what went."""
    gone = set()
    for path in folder.iterdir():
        name = path.with_suffix(".tar").name
        if (_is_shard(path) or path.suffix == KEPT) and name not in but and not path.is_symlink():
            path.unlink()
            gone.add(name)
    return gone


def _bring(dataset: Dataset, shard: Shard, folder: Path) -> None:
    tar, kept = folder / f"{shard.sha256}.tar", folder / f"{shard.sha256}{KEPT}"
    if kept.exists():
        try:
            check(kept, shard, str(kept))
            kept.rename(tar)
            return
        except Damaged:
            kept.unlink()
    cache.bring(dataset, shard, folder)
    if (path := storage.local(dataset.tar_url(shard))) is not None and not tar.exists():
        tar.unlink(missing_ok=True)
        tar.symlink_to(path.absolute())
