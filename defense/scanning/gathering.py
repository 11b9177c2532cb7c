"""Parts of shards -> whole-set arrays in the order of row ids, in files of this machine; and neighbours among them.

A set's arrays may be larger than memory, so each is a file that is mapped. What was once found near is kept beside the
parts: the search of a large set is the longest step of a scan.
"""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from defense import detector, neighbours
from defense.changing.views import KEYHOLES
from defense.detector import Changed, Evidence, Needs, Neighbours
from defense.neighbours import How
from defense.scanning.encoding import MEAN, PLAIN, TEXTS, Encode
from infra import log, storage
from infra.errors import Damaged
from pipeline.dataset import Dataset

OF_KEYHOLES = 0.9  # recall of an index: a walk is asked where it stays, which of a dense cluster's rows it met or not


@dataclass(frozen=True)
class Pairs:
    """table: row, key, shard, caption, image_sha256 of every pair, sorted by row id; place: of each pair in the order
    of shards its line in the table, int64 (N,)."""

    table: pa.Table
    place: np.ndarray

    @classmethod
    def of(cls, dataset: Dataset) -> "Pairs":
        """Raises Damaged."""
        table = dataset.index_of_samples(["row", "key", "caption", "image_sha256"])
        order = table.append_column("at", pa.array(range(table.num_rows))).sort_by(
            [("row", "ascending"), ("shard", "ascending"), ("key", "ascending")]
        )
        place = np.empty(table.num_rows, np.int64)
        place[order["at"].to_numpy()] = np.arange(table.num_rows)
        return cls(order.drop_columns(["at"]).combine_chunks(), place)


@dataclass(frozen=True)
class Gathered:
    """arrays: float32 (N, D) by name, of length 1: images, captions, and the images after each change. mean: of all
    images as the model sees them, float64 (S, S, 3)."""

    arrays: dict[str, np.ndarray]
    mean: np.ndarray


def gather(dataset: Dataset, encode: Encode, pairs: Pairs, width: int, scratch: Path) -> Gathered:
    """All parts of a dataset, which must be there. Equal captions, and equal images, have equal embeddings to the bit:
    those of the first of them. Raises Damaged for a part that is none."""
    names = encode.names
    shape = (pairs.table.num_rows, width)
    arrays: dict[str, np.ndarray] = {
        name: np.lib.format.open_memmap(scratch / f"{name}.npy", "w+", np.float32, shape) for name in names
    }
    total: Any = 0.0
    start = 0
    filled = [shard for shard in dataset.shards if shard.samples]
    with log.progress("gathering", len(filled), "shards") as bar:
        for shard in filled:
            part = _read(storage.join(encode.parts, encode.name(shard)), (*names, MEAN))
            places = pairs.place[start : start + shard.samples]
            for name in names:
                if part[name].shape != (shard.samples, width):
                    raise Damaged(f"{encode.parts}/{encode.name(shard)} holds {part[name].shape} {name}: remove it")
                arrays[name][places] = neighbours.unit(part[name])
            total = total + part[MEAN] * shard.samples
            start += shard.samples
            bar.add(1)
    by_image, by_caption = (_first(pairs.table[name]) for name in ("image_sha256", "caption"))
    for name, rows in arrays.items():
        first = by_caption if name == TEXTS else by_image
        again = np.flatnonzero(first != np.arange(len(first)))
        rows[again] = rows[first[again]]
    return Gathered(arrays, total / start)


def evidence(
    gathered: Gathered, pairs: Pairs, needs: Needs, parts: str, how: How, device: str
) -> tuple[Evidence, dict[str, dict[str, float]]]:
    """What the detectors are given, and the recall of each search that was not exact, by name and k."""
    recall: dict[str, dict[str, float]] = {}

    def near(name: str, keep: int, ranks: Sequence[int] = ()) -> Neighbours:
        others = pairs.table.num_rows - 1
        if ranks and others <= max(ranks):  # in a small set all are kept: the farthest may be asked for
            keep, ranks = others, ()
        place = storage.join(parts, f"near-{name}-{how}.npz")
        if not storage.exists(place):
            enough = OF_KEYHOLES if name in KEYHOLES else neighbours.ENOUGH
            found = neighbours.nearest(
                gathered.arrays[name], keep, ranks, how=how, device=device, what=name, enough=enough
            )
            _write(place, found)
        near, recall_here = _told(_read(place, ("rows", "distances", "ranks", "radii", "recall")))
        recall.update({name: recall_here} if recall_here else {})
        return near

    arrays = gathered.arrays
    return Evidence(
        ids=pairs.table["row"].to_numpy(),
        images=arrays[PLAIN],
        texts=arrays[TEXTS],
        near=near(PLAIN, needs.neighbours, detector.ranks(needs)),
        captions=near(TEXTS, needs.captions) if needs.captions else None,
        changed={name: Changed(arrays[name], near(name, needs.neighbours)) for name in needs.views},
    ), recall


def _first(column: pa.ChunkedArray) -> np.ndarray:
    """Of each value the place where it stands first: int64 (N,)."""
    codes = column.combine_chunks().dictionary_encode().indices.to_numpy()
    _, first = np.unique(codes, return_index=True)
    return np.asarray(first[codes])


def _write(place: str, found: neighbours.Found) -> None:
    near, buffer = found.near, io.BytesIO()
    ranks = np.array(sorted(near.radii), np.int64)
    np.savez(
        buffer,
        rows=near.rows.astype(np.int32),
        distances=near.distances,
        ranks=ranks,
        radii=np.array([near.radii[rank] for rank in ranks.tolist()]),
        recall=np.array(list(found.recall.items()), np.float64).reshape(-1, 2),
    )
    storage.write(place, buffer.getvalue())


def _told(part: dict[str, np.ndarray]) -> tuple[Neighbours, dict[str, float]]:
    radii = dict(zip(part["ranks"].tolist(), part["radii"], strict=True))
    recall = {str(int(rank)): round(float(share), 6) for rank, share in part["recall"]}
    return Neighbours(part["rows"], part["distances"], radii), recall


def _read(place: str, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(storage.read(place)), allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise Damaged(f"{place} is missing or damaged ({error}): remove it, and run the same command again") from error
