"""Dataset -> this rank's batches, through torch's DataLoader: the same ones whatever the number of workers.

A worker is asked for whole batches by their sample ids (train.order) and knows nothing else of the run: which images
and captions it makes of a pair depends on (seed, epoch, row) alone. A batch is

    {"images": {view: uint8 (B, 3, H, W)}, "texts": {view: int64 (B, L)}, "rows", "roles", "labels": int64 (B,),
     "present": int64 (P,), "seconds": float64 (3,)}

Images lie in memory as they are decoded, colours innermost (torch.channels_last), so nothing is transposed here.
present: which texts there are, as places in the views laid end to end; a row of a text that is not there is -1. It is
known here, since to look for it on a GPU would make every step wait. seconds: what a worker spent on decoding, on
views and their transforms, and on tokens (SPENT). Where the device decodes, a batch also has "coded", and its images
are whole when train.decoding has completed it.
"""

import functools
import mmap
import os
import random
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from infra.errors import Damaged, Lost
from infra.seeding import digest64, rng
from pipeline import foreign, tars
from pipeline.images import decoded
from train import decoding, notice, order, transforms
from train.cache import COLUMNS, Local
from train.lanes import Plan
from train.objective import Objective, Pair, Views
from train.transforms import Augment

Batch = dict[str, Any]
SPENT = ("decode", "transform", "tokens")
MAPS = 512  # of tars, each of which holds a file descriptor


@dataclass(frozen=True)
class Request:
    """One batch of one rank. ids, roles: int64 (B,). epoch None: as evaluation sees them, without augmentation."""

    ids: np.ndarray
    roles: np.ndarray
    epoch: int | None


class Pairs(Dataset[Batch]):
    """Stored pairs by sample id; what runs in a worker. Cheap to pickle: files are opened by who reads them."""

    def __init__(
        self,
        local: Local,
        objective: Objective,
        tokenize: Callable[[list[str]], Tensor],
        *,
        size: int,
        augment: Augment,
        seed: int,
        on_device: bool = False,
    ) -> None:
        """on_device: leave to the device what it can decode; for objectives that show an image as it is."""
        self.local, self.objective, self.tokenize = local, objective, tokenize
        self.size, self.augment, self.seed, self.on_device = size, augment, seed, on_device
        self.tokens = functools.lru_cache(maxsize=1 << 15)(self._tokens)  # 0.2 ms a caption, 5,500 of them a second
        self.maps: dict[int, mmap.mmap] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: value for name, value in vars(self).items() if name not in ("tokens", "maps", "columns", "captions")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @functools.cached_property
    def columns(self) -> dict[str, np.ndarray]:
        maps = {name: np.load(f"{self.local.index}/{name}.npy", mmap_mode="r") for name in COLUMNS}
        return {
            name: np.asarray(each) for name, each in maps.items()
        }  # to ask a memmap for a number costs ten times more

    @functools.cached_property
    def captions(self) -> mmap.mmap | bytes:
        """All of them, end to end."""
        path = f"{self.local.index}/captions.bin"
        return _mapped(path) if os.path.getsize(path) else b""

    def __len__(self) -> int:
        return len(self.columns["rows"])

    def __getitem__(self, request: Request) -> Batch:
        """Raises nothing in a worker, where a message would drown in a traceback: a failure is {"error": exception}."""
        try:
            if self.local.ahead is not None:
                for shard in np.unique(self.columns["shards"][request.ids]).tolist():
                    self.local.ahead.wait(self.local.tars[shard])
            return self._batch(request)
        except Lost as error:
            return {"error": error}

    def _batch(self, request: Request) -> Batch:
        images: dict[str, np.ndarray] = {}
        texts: dict[str, np.ndarray] = {}
        rows, labels = np.empty(len(request.ids), np.int64), np.empty(len(request.ids), np.int64)
        seconds = np.zeros(len(SPENT))
        plain = self.augment == "none" and type(self.objective).views is Objective.views  # nothing is drawn
        coded: list[tuple[int, bytes, transforms.Frame]] = []
        augment: Augment
        for i, (sample, role) in enumerate(zip(request.ids.tolist(), request.roles.tolist(), strict=True)):
            marks = [time.perf_counter()]
            if request.epoch is not None and (left := self._left_to_device(sample, request.epoch)) is not None:
                data, caption, frame = left
                coded.append((i, data, frame))
                rows[i], labels[i] = (self.columns[name].item(sample) for name in ("rows", "labels"))
                marks.append(time.perf_counter())
                blank = np.zeros((self.size, self.size, 3), np.uint8)
                views, augment = Views({"image": blank}, {"text": caption}), "none"
            else:
                pair = self.pair(sample, role)
                marks.append(time.perf_counter())
                rows[i], labels[i] = pair.row, pair.label
                augment = "none" if request.epoch is None else self.augment
                if request.epoch is None or plain:
                    views = Views({"image": pair.decoded}, {"text": pair.caption})
                else:
                    _seed_globals(self.seed, request.epoch, pair.row)
                    views = self.objective.views(pair, rng(self.seed, "views", request.epoch, pair.row))
            for name, image in views.images.items():
                pixels = np.asarray(transforms.trained(image, self.size, augment))
                if i == 0:
                    images[name] = np.empty((len(rows), *pixels.shape), np.uint8)
                images[name][i] = pixels
            marks.append(time.perf_counter())
            for name, text in views.texts.items():
                if i == 0:
                    texts[name] = np.empty((len(rows), len(self.tokens(""))), np.int64)
                texts[name][i] = -1 if text is None else self.tokens(text)
            seconds += np.diff([*marks, time.perf_counter()])
        more = {"coded": decoding.packed(coded)} if self.on_device else {}
        return more | {
            "images": {name: torch.from_numpy(array).permute(0, 3, 1, 2) for name, array in images.items()},
            "texts": {name: torch.from_numpy(array) for name, array in texts.items()},
            "rows": torch.from_numpy(rows),
            "roles": torch.from_numpy(request.roles),
            "labels": torch.from_numpy(labels),
            "present": torch.from_numpy(np.flatnonzero([tokens[:, 0] >= 0 for tokens in texts.values()])),
            "seconds": torch.from_numpy(seconds),
        }

    def _left_to_device(self, sample: int, epoch: int) -> tuple[bytes, str, transforms.Frame] | None:
        """(file, caption, frame) of a pair whose image the device shall decode; None: a worker shall."""
        if not self.on_device:
            return None
        data, caption = self.stored(sample)
        if (found := decoding.takes(data, self.size)) is None:
            return None
        _seed_globals(self.seed, epoch, self.columns["rows"].item(sample))
        return data, caption, transforms.drawn(*found, self.size, self.augment)

    def pair(self, sample: int, role: int = 0) -> Pair:
        """The stored pair. Raises Damaged, naming shard, key and row, if its image cannot be read."""
        columns = self.columns
        row, (data, caption) = int(columns["rows"][sample]), self.stored(sample)
        try:
            image = decoded(data, quick_over=self.size)
        except ValueError as error:
            shard = int(columns["shards"][sample])
            key = _key(self.local.tars[shard], int(columns["offsets"][sample]))
            hint = "mend it or take it out" if columns["labels"][sample] >= 0 else foreign.way_past(self.local.dataset)
            raise Damaged(f"{self.local.names[shard]}, key {key}, row {row}: {error}; {hint}") from error
        return Pair(row, image, caption, role, int(columns["labels"][sample]), self.seed)

    def stored(self, sample: int) -> tuple[bytes, str]:
        """The image's bytes and the caption, as they lie there."""
        columns = self.columns
        at, ends = columns["offsets"].item(sample), columns["caption_ends"]
        caption = self.captions[ends.item(sample - 1) if sample else 0 : ends.item(sample)].decode()
        return self.tar(columns["shards"].item(sample))[at : at + columns["lengths"].item(sample)], caption

    def _tokens(self, text: str) -> np.ndarray:
        return self.tokenize([text])[0].numpy()

    def tar(self, shard: int) -> mmap.mmap:
        """Raises Damaged if it is not there."""
        if (known := self.maps.get(shard)) is not None:
            return known
        if self.local.ahead is not None:  # a map would keep the room of a shard that was dropped
            self.maps = {each: known for each, known in self.maps.items() if os.path.lexists(self.local.tars[each])}
        while len(self.maps) >= MAPS:
            self.maps.pop(next(iter(self.maps)))
        try:
            self.maps[shard] = _mapped(self.local.tars[shard])
        except FileNotFoundError as error:
            raise Damaged(f"{self.local.names[shard]} is missing: it was there when the run began") from error
        return self.maps[shard]


def _mapped(path: str) -> mmap.mmap:
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _key(tar: str, offset: int) -> str:
    """What the file at `offset` of a tar is called: searched for only where it is to be named."""
    names = (name for name, start, _ in tars.scan(Path(tar)) if start == offset)
    return next(names, "unknown").rpartition(".")[0]


def _seed_globals(seed: int, epoch: int, row: int) -> None:
    """For libraries that draw from global generators, as torchvision does. Not torch.manual_seed: 130 us, and it
    queues a call for every GPU at each use."""
    seed = digest64(seed, "global generators", epoch, row)
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


class _Plan:
    """A sampler that says what it was last told to."""

    def __init__(self) -> None:
        self.requests: Iterator[Request] = iter(())

    def __iter__(self) -> Iterator[Request]:
        return self.requests


class Stream:
    """The batches of one rank. Workers live as long as it does, over all epochs. lanes: the order, if that is it."""

    def __init__(
        self,
        pairs: Pairs,
        *,
        seed: int,
        batch: int,
        rank: int = 0,
        ranks: int = 1,
        workers: int = 0,
        pin: bool = False,
        lanes: Plan | None = None,
    ) -> None:
        self.seed, self.batch, self.rank, self.ranks = seed, batch, rank, ranks
        self.pairs, self.lanes = pairs, lanes
        self.part = order.per_rank(batch, ranks)
        self.plan = _Plan()
        self.loader: DataLoader[Batch] = DataLoader(
            pairs,
            batch_size=None,
            sampler=self.plan,  # type: ignore[arg-type]
            num_workers=workers,
            persistent_workers=workers > 0,
            # A worker has no S3 client and no thread of its own; a spawned one imports torch for several seconds.
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
            pin_memory=pin,
            collate_fn=_as_it_is,  # type: ignore[arg-type]
            worker_init_fn=notice.apart,
            generator=torch.Generator(),  # its draws are not taken from the model's
        )

    def epoch(self, epoch: int, first_step: int = 0, roles: np.ndarray | None = None) -> Iterator[Batch]:
        """Batches of an epoch from a step on. roles: int64 per sample id, or None for 0."""
        if self.lanes is not None:
            return self._in_lanes(self.lanes, epoch, first_step)
        taken = self._order(epoch, roles)

        def requests() -> Iterator[Request]:
            for step in range(first_step, len(taken) // self.batch):
                ids = order.batch_ids(taken, step, self.batch, self.rank, self.ranks)
                yield Request(ids, roles[ids] if roles is not None else np.zeros_like(ids), epoch)

        return self._serve(requests())

    def _in_lanes(self, plan: Plan, epoch: int, first_step: int) -> Iterator[Batch]:
        own = plan.line(epoch).batches(plan.of(self.rank, self.ranks), first_step)
        requests = (Request(ids, np.zeros_like(ids), epoch) for ids in own)
        tell = self.pairs.local.ahead.tell if self.pairs.local.ahead is not None else lambda _: None
        tell(step := epoch * plan.steps + first_step)
        for batch in self._serve(requests):
            tell(step := step + 1)  # who made the batch has read what it needed
            yield batch

    def ids(self, epoch: int, step: int, roles: np.ndarray | None = None) -> np.ndarray:
        """Sample ids of one global batch, step counted within its epoch: int64 (batch,)."""
        if self.lanes is not None:
            return next(self.lanes.line(epoch).batches(range(self.lanes.lanes), step))
        return order.batch_ids(self._order(epoch, roles), step, self.batch)

    def _order(self, epoch: int, roles: np.ndarray | None) -> np.ndarray | order.InParts:
        passes = roles if self.pairs.objective.in_role_order else None
        return order.epoch_ids(self.seed, epoch, self.batch, len(self.pairs), passes)

    def evaluation(self, ids: np.ndarray) -> Iterator[Batch]:
        """These samples in batches, as evaluation sees them; for an objective that scores pairs. ids: int64 (n,)."""
        assert self.pairs.local.ahead is None, "in lanes not every shard is at hand"
        parts = [ids[start : start + self.part] for start in range(0, len(ids), self.part)]
        return self._serve(Request(part, np.zeros_like(part), None) for part in parts)

    def _serve(self, requests: Iterator[Request]) -> Iterator[Batch]:
        """Raises Damaged for a pair that cannot be read, Lost if a worker dies."""
        self.plan.requests = requests
        try:
            batches = iter(self.loader)
            if self.loader.num_workers and threading.current_thread() is threading.main_thread():
                # torch's own handler raises as soon as a worker dies, wherever this process is: in a backward pass,
                # in a collective. Without it the loader itself sees it, within five seconds, when it is asked.
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for batch in batches:
                if "error" in batch:
                    raise batch["error"]
                yield batch
        except RuntimeError as error:
            if re.match(r"DataLoader worker \(pid", str(error)) is None:
                raise
            raise Lost(
                f"a process that loads images has died ({error}); often memory was short: "
                "run the same command again, with fewer --workers if need be"
            ) from error


def _as_it_is(batch: Batch) -> Batch:
    return batch
