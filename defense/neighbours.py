"""The nearest other rows of every row of a whole set: exact, or from an index that says what it missed.

FAISS finds candidates in float32, and no two of its ways add up alike. So the answer is not theirs: candidates are
compared once more in float64, by code that all ways share (defense.search.dot). Equal rows are one row for the search:
captions of a set repeat, and a thousand equal ones would fill every list of candidates.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import xxhash
from torch import Tensor

from defense import search, threads
from defense.detector import Neighbours
from defense.search import Way
from infra import log
from infra.seeding import rng

How = Literal["auto", "exact", "approximate"]

EXACT_UP_TO = {"cpu": 200_000, "cuda": 5_000_000}  # different rows; beyond it "auto" takes the index
EXTRA = 16  # candidates beyond those that are kept, for float32 puts some in the wrong order
WINDOW = 2  # candidates on either side of a rank, likewise
BLOCK = 4096  # queries at a time
PRODUCTS = 2**23  # that a thread keeps at a time, in float32: 32 MiB
TERMS = 2**22  # products at a time, in float64: 32 MiB
CACHED = 2**18  # differences at a time, in float64: they are read ten times, and 2 MiB stay in a core's cache
SAMPLE = 1000  # queries by which the recall of an index is measured
RECALLS = (16, 256)
ENOUGH = 0.99  # of both recalls, where nothing else is said
SPARED = 0.75  # of what the recall may lack: the sample is not all
LEAST_PROBES, MOST_PROBES = 2, 256  # lists of an index that a row looks into
AROUND = 4  # times as many are those around its own, from which they are chosen; and no fewer than
LEAST_AROUND = 128
LISTS = 2  # of an index, times the root of its rows
PER_LIST = 40  # rows by which the centre of each list is learned


@dataclass(frozen=True)
class Found:
    """near: of every row. recall: by k, the share of the k nearest that an index finds, measured; {} where exact."""

    near: Neighbours
    recall: dict[int, float]


def unit(vectors: np.ndarray) -> np.ndarray:
    """float32 (N, D), of length 1. Raises ValueError for a row that is zero or not finite."""
    made = np.empty(vectors.shape, np.float32)
    for start in range(0, len(vectors), BLOCK):
        some = np.asarray(vectors[start : start + BLOCK], np.float64)
        lengths = np.linalg.norm(some, axis=1, keepdims=True)
        if not (np.isfinite(lengths) & (lengths > 0)).all():
            raise ValueError("the model gives embeddings that are zero or not finite: its training diverged")
        made[start : start + BLOCK] = some / lengths
    made += 0.0  # -0.0 is 0.0
    return made


def nearest(
    rows: np.ndarray,
    keep: int,
    ranks: Sequence[int] = (),
    *,
    how: How = "auto",
    device: str = "cpu",
    block: int = BLOCK,
    what: str = "rows",
    enough: float = ENOUGH,
) -> Found:
    """The `keep` nearest of every row (N - 1 where there are fewer) and, by rank, the distances at `ranks`.

    rows: float32 (N, D), of length 1, as `unit` gives them. ranks: beyond N - 1 they are left out. what: for words.
    enough: the recall that an index is to have.

    Exact means: as from the float64 distances of all pairs, whatever the block, the device and the order of rows, up to
    places of equal distance; where two distances differ by less than 1e-7, one may be given for the other at a rank of
    `ranks`. Memory: the rows once more where an index is made or some are equal (twice for both), the answer, and some
    300 MiB, of an index for each thread.
    """
    assert keep >= 0 and rows.dtype == np.float32
    others = len(rows) - 1
    keep, ranks = min(keep, others), [rank for rank in ranks if keep < rank <= others]
    near = Neighbours(np.empty((len(rows), keep), np.int64), np.empty((len(rows), keep)), {})
    near.radii.update({rank: np.empty(len(rows)) for rank in ranks})
    if keep == 0:
        return Found(near, {})
    entries, members = _distinct(rows)
    want = min(len(entries), max([keep, *ranks]) + 1 + EXTRA)
    finder = _finder(entries, want, how, device, what, enough)
    entries, members = finder.entries, members.taken(finder.order)

    def answer(ids: Tensor) -> int:
        places, scores = _own_first(ids, *finder.candidates(ids))
        _tell(entries, ids, *_compared(entries, ids, places, scores, keep, finder.exact), members, near)
        return len(ids)

    with log.progress(f"searching {what}", len(entries), "rows") as bar:
        for count in finder.each(block, answer):
            bar.add(count)
    return Found(near, finder.recall)


def among(rows: np.ndarray, asked: np.ndarray, keep: int, *, device: str = "cpu") -> np.ndarray:
    """Of every row of `asked`, float32 (M, D), the places of the `keep` nearest of `rows`, float32 (N, D), all of them
    compared; of equal distances the lower place first: int64 (M, min(keep, N)). All of length 1. Candidates are found
    in float32, EXTRA more than are kept, and put in order in float64.
    """
    entries = torch.from_numpy(np.ascontiguousarray(rows))
    there = entries.to(device)
    want, way = min(keep + EXTRA, len(rows)), search.choose("auto", there.device)[0]
    found = [np.empty((0, min(keep, len(rows))), np.int64)]
    for part in torch.from_numpy(np.ascontiguousarray(asked)).split(BLOCK):
        places = search.candidates(part.to(device), there, want, way)[1].cpu()
        found.append(_ordered(part, entries, places, want)[0][:, :keep].numpy())
    return np.concatenate(found)


# -------------------------------------------------------------------------------------------- different rows


def distance(left: Tensor, right: Tensor) -> Tensor:
    """Half the squared distance, float64 (...): a function of the two rows alone, to the bit. float32 (..., D) each, of
    which the left one may stand for many.
    """
    apart = right.to(torch.float64, copy=True).sub_(left)
    return search.total(apart.mul_(apart)) / 2


def _own_first(ids: Tensor, scores: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Candidates with the row itself in front, whatever its rank was, and their products: (B, C) each."""
    own = places == ids[:, None]
    absent = ~own.any(dim=1)  # more rows are as near as itself than there are candidates: the last of them goes
    at = own.int().argmax(dim=1)[:, None].masked_fill(absent[:, None], places.shape[1] - 1)
    column = torch.arange(places.shape[1]).expand_as(places)
    order = torch.where(column == 0, at, column - (column <= at).long())
    places, scores = places.gather(1, order), scores.gather(1, order)
    places[:, 0] = ids
    return places, scores


def _compared(
    entries: Tensor, ids: Tensor, places: Tensor, scores: Tensor, keep: int, exact: bool
) -> tuple[Tensor, Tensor]:
    """(places, the first ones in their true order; the distances of these, float64 (B, keep + 1 + EXTRA))."""
    head = min(keep + 1 + EXTRA, places.shape[1])
    places, distances = _ordered(entries[ids], entries, places, head)
    if head < len(entries) and exact:
        # What is no candidate has no larger product than the last of them; a float32 sum of D products, in any order,
        # is off by at most D 2**-24 times the rows' lengths (Higham 2002, 3.1), which are 1 but for rounding.
        margin = 1.01 * entries.shape[1] * 2.0**-24 + 1e-6
        crowded = distances[:, keep] >= 1 - scores[:, head - 1].double() - margin
        if len(some := crowded.nonzero()[:, 0]):
            places[some] = _in_float64(entries, ids[some], places.shape[1])
            places[some], distances[some] = _ordered(entries[ids[some]], entries, places[some], head)
    return places, distances


def _ordered(queries: Tensor, entries: Tensor, places: Tensor, head: int) -> tuple[Tensor, Tensor]:
    """The first `head` candidates by distance, then place; the others stay where they are."""
    distances = _distances(queries, entries, places[:, :head])
    order = torch.from_numpy(np.lexsort((places[:, :head].numpy(), distances.numpy()), axis=-1))
    first = places[:, :head].gather(1, order)
    return torch.cat([first, places[:, head:]], dim=1), distances.gather(1, order)


def _distances(queries: Tensor, entries: Tensor, places: Tensor) -> Tensor:
    """float64 (B, C) from the queries, (B, D), to rows `places` (B, C)."""
    parts = max(1, CACHED // (places.shape[1] * entries.shape[1]))
    found = torch.empty(places.shape, dtype=torch.float64)  # small pieces, kept one by one, lie between large ones
    for some, others, made in zip(*(each.split(parts) for each in (queries, places, found)), strict=True):
        made.copy_(distance(some[:, None], entries[others]))
    return found


def _in_float64(entries: Tensor, ids: Tensor, count: int) -> Tensor:
    """The `count` nearest of every row, itself among them, all compared in float64: int64 (B, count)."""
    found = []
    squares = torch.cat([search.dot(part, part) for part in entries.split(BLOCK)])
    for some in ids.split(max(1, TERMS // len(entries))):
        parts = entries.split(max(1, TERMS // entries.shape[1]))
        products = torch.cat([entries[some].double() @ part.double().T for part in parts], dim=1)
        about = (squares[some, None] + squares) / 2 - products
        farthest = about.kthvalue(min(count, len(entries)), dim=1).values + 1e-11  # as exact as products are
        for own, row, limit in zip(some.tolist(), about, farthest, strict=True):
            near = (row <= limit).nonzero()[:, 0]
            exact = distance(entries[own], entries[near])
            found.append(near[torch.from_numpy(np.lexsort((near.numpy(), exact.numpy())))][:count])
    return torch.stack(found)


# -------------------------------------------------------------------------------------------- equal rows


@dataclass(frozen=True)
class _Members:
    """The rows of each different one, in order: rows[starts[u] : starts[u] + sizes[u]]."""

    rows: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray

    def taken(self, order: Tensor) -> "_Members":
        return _Members(self.rows, self.starts[order.numpy()], self.sizes[order.numpy()])


def _distinct(rows: np.ndarray) -> tuple[Tensor, _Members]:
    """The different rows, in the order of their first place, float32 (U, D)."""
    known: dict[bytes, int] = {}
    digests = (xxhash.xxh3_128_digest(np.ascontiguousarray(row).data) for row in rows)
    group = np.fromiter((known.setdefault(digest, len(known)) for digest in digests), np.int64, len(rows))
    sizes = np.bincount(group)
    members = _Members(np.argsort(group, kind="stable"), np.cumsum(sizes) - sizes, sizes)
    entries = rows if len(sizes) == len(rows) else rows[members.rows[members.starts]]
    return torch.from_numpy(np.ascontiguousarray(entries)), members


def _tell(entries: Tensor, ids: Tensor, places: Tensor, distances: Tensor, members: _Members, near: Neighbours) -> None:
    """From different rows to all: one that stands for several is as many neighbours, and one fewer of itself."""
    keep, own = near.rows.shape[1], ids.numpy()
    ends = members.sizes[places.numpy()].cumsum(axis=1)  # how many rows the candidates up to this one stand for
    slots = np.arange(min(keep + 1 + EXTRA, len(near.rows)))
    head = distances.shape[1]
    column, within = _located(ends[:, :head], np.broadcast_to(slots, (len(own), len(slots))))
    rows = members.rows[members.starts[np.take_along_axis(places.numpy(), column, 1)] + within]
    far = np.take_along_axis(distances.numpy(), column, 1)
    order = np.lexsort((rows, far), axis=-1)[:, : keep + 1]  # two that are as near as each other, and stand for more
    rows, far = (np.take_along_axis(each, order, 1) for each in (rows, far))
    radii = {rank: _radius(entries, ids, places, ends, rank, members) for rank in near.radii}
    for place in range(int(members.sizes[own].max())):
        there = np.flatnonzero(members.sizes[own] > place)
        mine = members.rows[members.starts[own[there]] + place]
        skip = min(place, keep)  # its own group comes first, at distance 0
        near.rows[mine] = np.delete(rows[there], skip, axis=1)
        near.distances[mine] = np.delete(far[there], skip, axis=1)
        for rank, values in radii.items():
            near.radii[rank][mine] = values[there]


def _located(ends: np.ndarray, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which candidate each slot (B, S) falls to, and which of its rows: int64 (B, S) each. ends: rising (B, C)."""
    column = np.stack([(ends <= slot[:, None]).sum(axis=1) for slot in slots.T], axis=1)
    before = np.where(column > 0, np.take_along_axis(ends, np.maximum(column - 1, 0), 1), 0)
    return column, slots - before


def _radius(entries: Tensor, ids: Tensor, places: Tensor, ends: np.ndarray, rank: int, members: _Members) -> np.ndarray:
    """Distance to the rank-th other row, float64 (B,): candidates around it are put in order in float64."""
    column, _ = _located(ends, np.full((len(ids), 1), rank))
    start = np.clip(column - WINDOW, 0, max(0, places.shape[1] - 2 * WINDOW - 1))
    some = np.minimum(start + np.arange(2 * WINDOW + 1), places.shape[1] - 1)
    around = places.gather(1, torch.from_numpy(some))
    distances = _distances(entries[ids], entries, around).numpy()
    order = np.lexsort((around.numpy(), distances), axis=-1)
    before = np.where(start > 0, np.take_along_axis(ends, np.maximum(start - 1, 0), 1), 0)
    sizes = np.take_along_axis(members.sizes[around.numpy()], order, 1)
    found, _ = _located(before + sizes.cumsum(axis=1), np.full((len(ids), 1), rank))
    return np.take_along_axis(np.take_along_axis(distances, order, 1), found, 1)[:, 0]


# -------------------------------------------------------------------------------------------- candidates


def _finder(entries: Tensor, want: int, how: How, device: str, what: str, enough: float) -> "_Whole | _Index":
    limit = EXACT_UP_TO["cuda" if device.startswith("cuda") else "cpu"]
    if how == "exact" or (how == "auto" and len(entries) <= limit):
        return _Whole.of(entries, want, device)
    return _Index.of(entries, want, device, what, enough)


@dataclass(frozen=True)
class _Whole:
    """Every row is compared with every other, by FAISS; on a GPU by torch where this build of FAISS has no GPU code.

    order: the places of its entries among those that it was given, int64 (U,).
    """

    entries: Tensor
    order: Tensor
    there: Tensor
    want: int
    way: Way
    exact = True
    recall: dict[int, float]

    @classmethod
    def of(cls, entries: Tensor, want: int, device: str) -> "_Whole":
        place = torch.device(device)
        way = search.choose("auto" if place.type == "cuda" else "faiss-cpu", place)[0]
        return cls(entries, torch.arange(len(entries)), entries.to(place), want, way, {})

    def each(self, size: int, work: Callable[[Tensor], int]) -> Iterator[int]:
        """What `work` makes of the places of all rows, some `size` at a time."""
        return map(work, self.order.split(size))

    def candidates(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """float32 products and places of the `want` largest, in falling order: (B, want)."""
        scores, places = search.candidates(self.entries[ids].to(self.there.device), self.there, self.want, self.way)
        return scores.cpu(), places.cpu()


@dataclass(frozen=True)
class _Index:
    """An inverted file: rows lie in lists by the nearest of some centres, and each is compared with those of the lists
    whose centres are nearest to it. The rows of one list are asked for together: they look into the same lists, mostly,
    and what many of them have to do with one list is one product of matrices. FAISS's own, by which the centres are
    learned here, takes each row by itself: for few neighbours as fast, for a thousand twice as long
    (tests/bench/scan.py).

    whole: the entries, list after list, for rows that are fetched one by one take as long as their product; order:
    their places among those that were given. starts: of every list, and the end. centres: float32 (L, D). around: int64
    (L, A), of each list those that its rows may look into, itself first; probes: into how many each does.
    """

    whole: _Whole
    order: Tensor
    starts: Tensor
    centres: Tensor
    around: Tensor
    probes: int
    recall: dict[int, float]
    exact = False

    @classmethod
    def of(cls, entries: Tensor, want: int, device: str, what: str, enough: float) -> "_Index":
        """Looks into as few lists as hold enough of a sample's neighbours, or MOST_PROBES; says what is found."""
        count = len(entries)
        number = lists_of(count)
        log.say(f"{what}: {count:,} rows are searched by an index of {number:,} lists")
        draw = rng(0, "rows of an index", count)
        learned = torch.from_numpy(np.sort(draw.choice(count, number * PER_LIST, replace=False)))
        centres = _centres(entries[learned], number)
        order, starts = _listed(entries, centres)
        around = (centres @ centres.T).fill_diagonal_(2).argsort(dim=1, descending=True)
        made = cls(_Whole.of(entries[order], want, device), order, starts, centres, around, 1, {})
        made = made.tuned(torch.from_numpy(np.sort(draw.choice(count, min(SAMPLE, count), replace=False))), enough)
        told = ", ".join(f"recall@{rank} {share:.4f}" for rank, share in made.recall.items())
        log.say(f"{what}: {told}, of {min(SAMPLE, count):,} rows, looking into {made.probes} lists", recall=made.recall)
        if min(made.recall.values()) < enough:
            log.warn(
                f"{what}: the index misses more than {1 - enough:.0%} of the neighbours: scores are blurred; "
                "--search exact is not"
            )
        return made

    def tuned(self, sample: Tensor, recall: float) -> "_Index":
        """The same that looks into as few lists as give this recall of a sample, and says what they give."""
        want, count = self.whole.want, len(self.order)
        ranks = [rank for rank in RECALLS if rank < min(want, count)] or [min(want, count) - 1]
        true = self.whole.candidates(sample)[1]
        nearest = (self.entries[sample] @ self.centres.T).argsort(dim=1, descending=True)
        needed = _probes(nearest, self._lists(true[:, : ranks[-1] + 1]), 1 - SPARED * (1 - recall))
        probes = min(max(LEAST_PROBES, needed), MOST_PROBES, len(self.centres))
        made = replace(self, probes=probes, around=self.around[:, : max(LEAST_AROUND, AROUND * probes)])
        found = made.candidates(sample)[1]
        return replace(made, recall={rank: _recall(sample, found, true, rank) for rank in ranks})

    @property
    def entries(self) -> Tensor:
        return self.whole.entries

    def each(self, size: int, work: Callable[[Tensor], int]) -> Iterator[int]:
        """As of `_Whole`, by several threads."""
        return threads.each(work, torch.arange(len(self.order)).split(size))

    def candidates(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """As of `_Whole`; where the lists hold too few rows, all are compared."""
        scores = torch.empty((len(ids), self.whole.want))
        places = torch.empty((len(ids), self.whole.want), dtype=torch.int64)
        lists, sizes = self._lists(ids), self.starts.diff()
        for number in lists.unique().tolist():
            mine = (lists == number).nonzero()[:, 0]
            near = self.around[number]
            own = near[(self.entries[ids[mine]] @ self.centres[near].T).topk(self.probes, dim=1).indices]
            few = sizes[own].sum(dim=1) < self.whole.want
            if few.any():
                scores[mine[few]], places[mine[few]] = self.whole.candidates(ids[mine[few]])
            cells = int(sizes[own].max()) * self.probes
            for some in (~few).nonzero()[:, 0].split(max(1, PRODUCTS // cells)):
                if len(some):
                    scores[mine[some]], places[mine[some]] = self._best(ids[mine[some]], own[some])
        return scores, places

    def _best(self, ids: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Of each row the best in its lists, own (B, P): scores and places, (B, want)."""
        rows, starts = self.entries[ids], self.starts[own]
        width = int((self.starts[own + 1] - starts).max())
        scores = torch.full((own.numel(), width), -torch.inf)
        order = own.flatten().argsort(stable=True)
        numbers, counts = own.flatten()[order].unique_consecutive(return_counts=True)
        for number, slots in zip(numbers.tolist(), order.split(counts.tolist()), strict=True):
            start, end = self.starts[number : number + 2].tolist()
            scores[slots, : end - start] = rows[slots // own.shape[1]] @ self.entries[start:end].T
        found, at = scores.view(len(ids), -1).topk(self.whole.want, dim=1)
        return found, starts.gather(1, at // width) + at % width

    def _lists(self, places: Tensor) -> Tensor:
        """In which list each of these rows is, int64."""
        return torch.searchsorted(self.starts, places.contiguous(), right=True) - 1


def lists_of(rows: int) -> int:
    """How many lists an index of so many rows has."""
    return max(1, min(int(LISTS * rows**0.5), rows // PER_LIST))


def _listed(entries: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The places of all entries, list after list, and where each list starts, and the end."""
    lists = torch.empty(len(entries), dtype=torch.int64)  # the small kept one by one would lie between the large
    for part, near in zip(entries.split(BLOCK), lists.split(BLOCK), strict=True):
        near.copy_((part @ centres.T).argmax(dim=1))
    sizes = torch.bincount(lists, minlength=len(centres))
    return lists.argsort(stable=True), torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])


def _centres(rows: Tensor, count: int) -> Tensor:
    """By k-means, of length 1: float32 (count, D). The same for the same rows."""
    import faiss

    means = faiss.Kmeans(rows.shape[1], count, niter=5, spherical=True, seed=1, max_points_per_centroid=PER_LIST)
    means.train(rows.numpy())
    return torch.from_numpy(means.centroids)


def _probes(nearest: Tensor, lists: Tensor, share: float) -> int:
    """How many lists hold this share of the neighbours.

    nearest: int64 (B, L), of each of B rows all lists, the nearest first; lists: int64 (B, C), of its neighbours.
    """
    rank = torch.empty_like(nearest).scatter_(1, nearest, torch.arange(nearest.shape[1]).expand_as(nearest))
    return int(torch.quantile(rank.gather(1, lists).double(), share)) + 1


def _recall(ids: Tensor, found: Tensor, true: Tensor, rank: int) -> float:
    """The share of the `rank` nearest others that were found. ids: (B,); found, true: places, (B, C)."""
    pairs = zip(ids.tolist(), found[:, : rank + 1].tolist(), true[:, : rank + 1].tolist(), strict=True)
    shares = [len(set(one) & set(other) - {own}) / len(set(other) - {own}) for own, one, other in pairs]
    return float(np.mean(shares))
