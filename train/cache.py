"""A node's copy of a dataset: every shard at hand and verified before the first step, under one bound in bytes.

Shards that lie on this machine's disk are used in place; others are fetched into `ANTIDOTE_CACHE` by one process a
node, spawned, since an S3 client does not survive a fork and the loader's workers are forked. Workers map local files
and nothing else. A batch may hold samples of any shard, so all of them must fit; for others see train.fetching.
"""

import contextlib
import hashlib
import multiprocessing
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from infra import log, storage
from infra.errors import Damaged, Lost, named
from pipeline import shards
from pipeline.dataset import Dataset, Shard, cache_folder, check
from train import room
from train.ahead import Ahead

THREADS = 8
ATTEMPTS = 3
STALL_SECONDS = 600.0  # storage gives a stalled server up after 90 s, and is asked ATTEMPTS times; a shard may be large
COLUMNS = ("rows", "shards", "offsets", "lengths", "caption_ends", "labels")
_FORMAT = 2


@dataclass(frozen=True)
class Local:
    """Where this node has a dataset: tars in the order of shard ids, and a folder of flat arrays over all samples.

    dataset, names: for messages, the dataset's url and how each tar is called there. ahead: where tars come and go.

    index: `rows` int64 (N,), `shards` int32 (N,) (position in `tars`), `offsets` and `lengths` int64 (N,) of the
    image in its tar, `caption_ends` int64 (N,) into `captions.bin` (UTF-8), `labels` int64 (N,), -1 where there is
    none. N runs over sample ids.
    """

    tars: tuple[str, ...]
    index: str
    dataset: str
    names: tuple[str, ...]
    ahead: Ahead | None = None


def located(dataset: Dataset) -> Local:
    """Where `filled` has put, or will put, the dataset on this node: a pure function of the two."""
    home = cache_folder()
    ordered = by_id(dataset)
    places = [storage.local(dataset.tar_url(shard)) or home / "shards" / f"{shard.sha256}.tar" for shard in ordered]
    known = repr([(_FORMAT, shard.id, shard.samples, shard.index_sha256) for shard in ordered])
    if dataset.mask is not None:
        known += dataset.digest
    index = home / "index" / hashlib.sha256(known.encode()).hexdigest()[:32]
    names = tuple(f"shard {shard.id} ({dataset.tar_url(shard)})" for shard in ordered)
    return Local(tuple(map(str, places)), str(index), dataset.url, names)


@contextlib.contextmanager
def filled(dataset: Dataset, cache_gib: float, quiet: bool = False) -> Iterator[Local]:
    """Bring the dataset to this node; while the context is open, no other run on the machine evicts it.

    Raises ValueError if it does not fit under `cache_gib`, Damaged or Lost if a shard cannot be had.
    """
    home, local = cache_folder(), located(dataset)
    (home / "shards").mkdir(parents=True, exist_ok=True)
    (home / "index").mkdir(exist_ok=True)
    remote = {
        f"{shard.sha256}.tar": shard.bytes for shard in dataset.shards if storage.local(dataset.tar_url(shard)) is None
    }
    if (needed := sum(remote.values())) > cache_gib * 2**30:
        raise ValueError(
            f"{needed / 2**30:.1f} GiB of shards must be fetched, more than the cache may hold: "
            f"set --cache-gib to at least {needed / 2**30 + 0.1:.1f} (it is {cache_gib:g}); it lies at {home}"
        )
    with room.lease(home, [*remote, Path(local.index).name]) as lease:
        lease.make(remote, cache_gib)
        if not quiet:
            dataset.tell_left_out()
        showing = contextlib.nullcontext() if quiet else log.progress("checking shards", len(dataset.shards), "shards")
        with showing as bar:
            fill = _fill_elsewhere if remote else _fill
            fill(dataset, local, home / "shards", bar.add if bar is not None else lambda _: None)
        yield local


def keys(dataset: Dataset, ids: np.ndarray) -> list[str]:
    """What samples are called in their shards. ids: int64 (n,), positions over the dataset's shards."""
    ordered = by_id(dataset)
    ends = np.cumsum([shard.samples for shard in ordered])
    place = np.searchsorted(ends, ids, side="right")
    found = np.empty(len(ids), object)
    for position in np.unique(place):
        shard = ordered[position]
        named = shards.samples_of(dataset.index(shard))["key"].to_pylist()
        for i in np.flatnonzero(place == position):
            found[i] = named[ids[i] - (ends[position] - shard.samples)]
    return [str(key) for key in found]


def by_id(dataset: Dataset) -> list[Shard]:
    return sorted(dataset.shards, key=lambda shard: shard.id)


def _fill(dataset: Dataset, local: Local, folder: Path, report: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        futures = [pool.submit(bring, dataset, shard, folder) for shard in dataset.shards]
        try:
            for future in as_completed(futures):
                future.result()
                report(1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    index(dataset, local)


def index(dataset: Dataset, local: Local) -> None:
    """Make the flat arrays where they are not there yet."""
    if not os.path.isdir(local.index):
        _write_index(dataset, Path(local.index))


def bring(dataset: Dataset, shard: Shard, folder: Path) -> None:
    """One verified shard. A server that is down for longer than storage waits is asked again before a run is lost."""
    if storage.local(dataset.tar_url(shard)) is not None:
        dataset.fetch(shard, folder)
        return
    copy = folder / f"{shard.sha256}.tar"
    if copy.exists():
        try:
            check(copy, shard, str(copy))
            os.utime(copy)
            return
        except Damaged:
            copy.unlink()
    for attempt in range(ATTEMPTS):
        try:
            os.utime(dataset.fetch(shard, folder))
            return
        except OSError as error:
            if attempt == ATTEMPTS - 1:
                raise Lost(f"shard {shard.id} could not be fetched: {error}") from error
            time.sleep(2.0**attempt)


def _fill_elsewhere(dataset: Dataset, local: Local, folder: Path, report: Callable[[int], None]) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_fetcher, args=(dataset, local, folder, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        while True:
            if not ours.poll(STALL_SECONDS):
                raise Lost(f"no shard of {dataset.url} arrived for {STALL_SECONDS:.0f} s; run the same command again")
            kind, message = ours.recv()
            if kind == "done":
                return
            if kind != "shard":
                raise named(kind, message)
            report(1)
    except EOFError as error:
        process.join(5)
        raise Lost(f"the process that fetches shards has died (status {process.exitcode})") from error
    finally:
        process.kill()
        process.join()
        ours.close()


def _fetcher(dataset: Dataset, local: Local, folder: Path, out: Connection) -> None:
    try:
        _fill(dataset, local, folder, lambda _: out.send(("shard", "")))
        out.send(("done", ""))
    except (Lost, ValueError, OSError) as error:
        out.send((type(error).__name__, str(error)))


def _write_index(dataset: Dataset, place: Path) -> None:
    """The flat arrays, under their name only once complete; written as they come, since many do not fit in memory."""
    attempt = place.with_name(f"{storage.ATTEMPT}{uuid.uuid4().hex}")
    attempt.mkdir()
    total, end = sum(shard.samples for shard in dataset.shards), 0
    with contextlib.ExitStack() as stack:
        captions_file = stack.enter_context(open(attempt / "captions.bin", "wb"))
        files = {name: stack.enter_context(open(attempt / f"{name}.npy", "wb")) for name in COLUMNS}
        kinds = {name: np.dtype(np.int32 if name == "shards" else np.int64) for name in COLUMNS}
        for name, file in files.items():
            head = {"descr": kinds[name].str, "fortran_order": False, "shape": (total,)}
            np.lib.format.write_array_header_1_0(file, head)
        for position, shard in enumerate(by_id(dataset)):
            samples = shards.samples_of(dataset.index(shard))
            if samples.num_rows != shard.samples:
                raise Damaged(f"{dataset.index_url(shard)} lists {samples.num_rows} samples, not {shard.samples}")
            captions = [caption.encode() for caption in samples["caption"].to_pylist()]
            captions_file.write(b"".join(captions))
            ends = end + np.cumsum([len(caption) for caption in captions], dtype=np.int64)
            end = int(ends[-1]) if len(ends) else end
            columns = {
                "rows": samples["row"].to_numpy(),
                "shards": np.full(samples.num_rows, position),
                "offsets": samples["image_offset"].to_numpy(),
                "lengths": samples["image_bytes"].to_numpy(),
                "caption_ends": ends,
                "labels": samples["label"].to_numpy() if dataset.classes else np.full(samples.num_rows, -1),
            }
            for name, values in columns.items():
                files[name].write(values.astype(kinds[name]).tobytes())
    try:
        os.rename(attempt, place)
    except OSError:  # another run was first, with the same content
        shutil.rmtree(attempt)
