"""A second run as a witness: it learned from the pairs of a dataset less some. From which, and what it sees.

It is asked in `defense.scanning.testimony`. Here its lineage is read: which rows it learned from is what decides
whether it may be asked about a cluster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from defense import neighbours
from defense.scanning import viewer
from defense.scanning.encoding import PLAIN, Encode
from defense.scanning.gathering import Pairs, read_part
from defense.scanning.testimony import Testimony
from defense.scanning.viewer import Viewer
from infra import log, rundir, storage
from infra.errors import Damaged
from pipeline.dataset import Dataset


@dataclass(frozen=True)
class Witness:
    """eyes: the run; dataset: what it learned from."""

    eyes: Viewer
    dataset: Dataset

    def learned(self, pairs: Pairs) -> np.ndarray:
        """Which of these pairs it learned from: bool (N,). By row id and key: a pair that was added has a key of its
        own. Raises Damaged."""
        kept = self.dataset.index_of_samples(["row", "key"])
        known = set(zip(kept["row"].to_pylist(), kept["key"].to_pylist(), strict=True))
        lines = zip(pairs.table["row"].to_pylist(), pairs.table["key"].to_pylist(), strict=True)
        return np.array([line in known for line in lines], bool)


def read(url: str, dataset: Dataset, place: str | None = None) -> Witness:
    """The witness at a run's folder for a scan of `dataset`. place: of what it learned from, if not where it says.

    Raises ValueError unless it is a finished CLIP run that began with nothing learned and learned from a part of
    `dataset`, which is still there.
    """
    eyes = viewer.read(storage.real(url))
    inputs = rundir.environment(eyes.url)["inputs"]
    own = inputs["dataset"] or {}
    if inputs["pretrained"] is not None or "digest" not in own:
        raise ValueError(
            f"the witness {url} began with weights that may know the clusters already: a witness is pretrained anew"
        )
    way = "on the dataset that `antidote filter --clusters all` makes"
    if own["digest"] == dataset.digest:
        raise ValueError(f"the witness {url} learned from all pairs of {dataset.url}: pretrain one {way}")
    if dataset.digest not in (*own.get("filtered_from", ()), *own.get("part_of", ())):
        raise ValueError(
            f"the witness {url} learned from another dataset, of digest {own['digest'][:12]}, and not from a part of "
            f"{dataset.url}: pretrain one {way}"
        )
    named = place if place is not None else str(rundir.config(eyes.url)["dataset"])
    try:
        found = Dataset.open(named)
    except ValueError as error:
        raise ValueError(
            f"what the witness {url} learned from is not at {named} ({error}): give its --witness-dataset"
        ) from error
    if found.digest != own["digest"]:
        raise ValueError(
            f"the witness {url} learned from a dataset of digest {own['digest'][:12]}, and the one at {named} has "
            f"{found.digest[:12]}: give its --witness-dataset"
        )
    return Witness(eyes, found)


def places(dataset: Dataset, pairs: Pairs, lines: np.ndarray) -> dict[int, tuple[int, ...]]:
    """By shard, where these lines of the table stand among its pairs, rising. lines: int64 (M,)."""
    return {shard: tuple(np.flatnonzero(np.isin(own, lines)).tolist()) for shard, own in _by_shard(dataset, pairs)}


def sees(encode: Encode, pairs: Pairs, learned: np.ndarray, lines: np.ndarray, scratch: Path) -> Testimony:
    """From the parts of a witness, which must be there. learned: bool (N,); lines: int64 (M,), rising, those that
    `encode.only` names by `places`. Raises Damaged for a part that is none."""
    assert encode.only is not None
    width, shards = encode.viewer.width, {shard.id: shard for shard in encode.dataset.shards}
    images = np.lib.format.open_memmap(scratch / "witness.npy", "w+", np.float32, (pairs.table.num_rows, width))
    changed = {name: np.empty((len(lines), width), np.float32) for name in encode.changes}
    whole = _by_shard(encode.dataset, pairs)
    with log.progress("gathering what the witness sees", len(whole), "shards") as bar:
        for number, own in whole:
            place = storage.join(encode.parts, encode.name(shards[number]))
            part = read_part(place, (PLAIN, *encode.changes))
            asked = own[list(encode.only[number])]
            for name, rows in part.items():
                if rows.shape != (len(own if name == PLAIN else asked), width):
                    raise Damaged(f"{place} holds {rows.shape} {name}: remove it")
            images[own] = neighbours.unit(part[PLAIN])
            for name, rows in changed.items():
                rows[np.searchsorted(lines, asked)] = neighbours.unit(part[name])
            bar.add(1)
    return Testimony(learned, images, lines, changed)


def _by_shard(dataset: Dataset, pairs: Pairs) -> Sequence[tuple[int, np.ndarray]]:
    """Of every shard that holds a pair, its number and the lines of its pairs in the table, in its order."""
    filled = [shard for shard in dataset.shards if shard.samples]
    ends = np.cumsum([shard.samples for shard in filled])
    return [(shard.id, own) for shard, own in zip(filled, np.split(pairs.place, ends[:-1]), strict=True)]
