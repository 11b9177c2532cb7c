"""The order of an epoch where the data exceed a node's cache: lanes, each read from a few shards at a time.

An epoch's shards are permuted, laid end to end, and cut at sample boundaries into equal lanes; what is left at the end,
less than a batch, is not seen in this epoch. Within a lane, samples are permuted in windows of so many shards. A batch
takes the next samples of every lane, in the order of lanes, and a rank reads the lanes of its part: so a node needs
only the shards of its lanes' windows at hand. As in train.order, all is a pure function of the seed, the epoch and the
shards' ids and counts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from infra.seeding import hash64
from train import order


@dataclass(frozen=True)
class Plan:
    """The epochs of a run in lanes. window: shards. shard_ids: ascending; counts: samples of each that are to be read.

    Raises ValueError unless the lanes divide the batch, and for less than a batch.
    """

    seed: int
    batch: int
    lanes: int
    window: int
    shard_ids: tuple[int, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.batch % self.lanes:
            raise ValueError(
                f"{self.lanes} lanes do not divide a batch of {self.batch:,}: set --lanes to {self._near(1)}, say, "
                "or --batch to a multiple of them"
            )
        order.steps_per_epoch(sum(self.counts), self.batch)

    @property
    def steps(self) -> int:
        """Of an epoch: as many as in any other order."""
        return order.steps_per_epoch(sum(self.counts), self.batch)

    @property
    def share(self) -> int:
        """Samples of a batch that each lane gives."""
        return self.batch // self.lanes

    def of(self, rank: int, ranks: int, together: int = 1) -> range:
        """The lanes that so many ranks read, from `rank` on. Raises ValueError unless all ranks divide the lanes."""
        if self.lanes % ranks:
            raise ValueError(
                f"{ranks} ranks do not divide {self.lanes} lanes: set --lanes to {self._near(ranks)}, say, which a "
                "run keeps for good"
            )
        return range(rank * self.lanes // ranks, (rank + together) * self.lanes // ranks)

    def _near(self, ranks: int) -> int:
        """The most lanes up to what was asked for that divide the batch, and that the ranks divide."""
        fit = [lanes for lanes in range(ranks, self.batch + 1, ranks) if self.batch % lanes == 0]
        return max((lanes for lanes in fit if lanes <= self.lanes), default=min(fit, default=ranks))

    def line(self, epoch: int) -> "Line":
        return _line(self, epoch)

    def need(self, epochs: int, lanes: range, sizes: np.ndarray) -> int:
        """The most bytes of shards that a step of these epochs reads from. sizes: int64 (S,), bytes to be at hand."""
        return max(self.line(epoch).need(lanes, sizes) for epoch in range(epochs))


@dataclass(frozen=True)
class Uses:
    """When shards are read in an epoch: int64 (U,) each, by first step. A shard that lanes share has several uses.

    shards: positions by shard id. first, last: steps, both included.
    """

    shards: np.ndarray
    first: np.ndarray
    last: np.ndarray


@dataclass(frozen=True)
class _Window:
    """shards [begin, end) of the line, of which a lane reads the places [start, stop) of the line."""

    begin: int
    end: int
    start: int
    stop: int


@dataclass(frozen=True)
class Line:
    """One epoch's shards laid end to end."""

    plan: Plan
    epoch: int

    @cached_property
    def shards(self) -> np.ndarray:
        """int64: positions by shard id, in the order of the epoch; without those that have no samples."""
        ids, counts = np.array(self.plan.shard_ids, np.int64), np.array(self.plan.counts, np.int64)
        permuted = np.argsort(hash64(self.plan.seed, f"shards of epoch {self.epoch}", ids), kind="stable")
        return permuted[counts[permuted] > 0]

    @cached_property
    def ends(self) -> np.ndarray:
        """int64: where each of `shards` ends on the line."""
        return np.cumsum(np.array(self.plan.counts, np.int64)[self.shards])

    @cached_property
    def shift(self) -> np.ndarray:
        """int64: what makes a place on the line, within each of `shards`, the id of a sample."""
        first = np.cumsum([0, *self.plan.counts[:-1]])[self.shards]
        return first - np.concatenate([[0], self.ends[:-1]])

    def batches(self, lanes: range, first_step: int = 0) -> Iterator[np.ndarray]:
        """Sample ids that these lanes give to each batch, from a step on: int64 (lanes * share,), in order of lanes."""
        readers = [self._read(lane, first_step * self.plan.share) for lane in lanes]
        for _ in range(first_step, self.plan.steps):
            yield np.concatenate([next(reader) for reader in readers])

    def uses(self, lanes: range) -> Uses:
        """Of these lanes."""
        found: list[tuple[np.ndarray, ...]] = []
        for lane in lanes:
            base, windows = lane * self._length, list(self._windows(lane))
            begin, end, start, stop = np.array([(w.begin, w.end, w.start - base, w.stop - base) for w in windows]).T
            steps = start // self.plan.share, (stop - 1) // self.plan.share
            found.append((self.shards[begin[0] : end[-1]], *(np.repeat(each, end - begin) for each in steps)))
        shards, first, last = map(np.concatenate, zip(*found, strict=True))
        by_step = np.argsort(first, kind="stable")
        return Uses(shards[by_step], first[by_step], last[by_step])

    def need(self, lanes: range, sizes: np.ndarray) -> int:
        """The most bytes of shards that a step reads from. sizes: int64, bytes by position of shard."""
        uses = self.uses(lanes)
        by_shard = np.lexsort((uses.first, uses.shards))
        shards, scale = uses.shards[by_shard], self.plan.steps + 1
        first, last = (shards * scale + steps[by_shard] for steps in (uses.first, uses.last))
        covered = np.concatenate([[-1], np.maximum.accumulate(last)[:-1]])  # a shard counts once, whoever reads it
        first = np.maximum(first, covered + 1)
        counts = first <= last
        change = np.zeros(self.plan.steps + 1, np.int64)
        bytes_ = sizes[shards[counts]]
        np.add.at(change, first[counts] % scale, bytes_)
        np.add.at(change, last[counts] % scale + 1, -bytes_)
        return int(np.cumsum(change).max())

    @property
    def _length(self) -> int:
        return self.plan.steps * self.plan.share

    def _windows(self, lane: int) -> Iterator[_Window]:
        """Of one lane, in order. The first are of different sizes, so that not all lanes ask for new shards at once."""
        start, stop = lane * self._length, (lane + 1) * self._length
        begin, last = np.searchsorted(self.ends, [start, stop - 1], side="right").tolist()
        end = begin + 1 + lane % self.plan.window
        while begin <= last:
            end = min(end, last + 1)
            until = min(stop, int(self.ends[end - 1]))
            yield _Window(begin, end, start, until)
            begin, end, start = end, end + self.plan.window, until

    def _read(self, lane: int, place: int) -> Iterator[np.ndarray]:
        """What a lane gives to each batch, from a place in it on."""
        share, waiting = self.plan.share, np.empty(0, np.int64)
        for window in self._windows(lane):
            passed = max(place - (window.start - lane * self._length), 0)
            if window.start + passed >= window.stop:
                continue
            waiting = np.concatenate([waiting, self._ids(window)[passed:]])
            while len(waiting) >= share:
                yield waiting[:share]
                waiting = waiting[share:]

    def _ids(self, window: _Window) -> np.ndarray:
        places = np.arange(window.start, window.stop)
        shards = np.searchsorted(self.ends[window.begin : window.end], places, side="right") + window.begin
        ids = places + self.shift[shards]
        return ids[np.argsort(hash64(self.plan.seed, f"order of epoch {self.epoch}", ids), kind="stable")]


@lru_cache(maxsize=2)
def _line(plan: Plan, epoch: int) -> Line:
    return Line(plan, epoch)
