"""Pairs that runs learned from, some poisoned and some clean: drawn from the dataset that a ledger belongs to."""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.judging import roles
from eval.store.records import AttackRecord
from eval.store.runs import Run
from infra.seeding import hash64
from pipeline import shards
from pipeline.dataset import Dataset
from poison.ledger import Ledger

SAMPLE = 500  # pairs of either kind


@dataclass(frozen=True)
class Drawn:
    """Pairs in the order of their shards. dataset: its url; places: (shard id, key) of each; digest: of their content,
    in that order."""

    dataset: str
    rows: tuple[int, ...]
    poisoned: tuple[bool, ...]
    captions: tuple[str, ...]
    places: tuple[tuple[int, str], ...]
    digest: str

    def stored(self) -> Iterator[bytes]:
        """Their encoded images, in order. Raises Damaged, or ValueError if the dataset went away."""
        dataset = Dataset.open(self.dataset)
        keys: dict[int, set[str]] = {}
        for number, key in self.places:
            keys.setdefault(number, set()).add(key)
        with tempfile.TemporaryDirectory() as scratch:
            for shard in (shard for shard in dataset.shards if shard.id in keys):
                wanted = keys[shard.id]
                path = dataset.fetch(shard, Path(scratch))
                with open(path, "rb") as file:
                    for row in shards.samples_of(dataset.index(shard)).to_pylist():
                        if row["key"] in wanted:
                            yield shards.read_sample(file, row).image
                if path.parent == Path(scratch):
                    path.unlink()


def draw(dataset: Dataset, ledger: Ledger, seed: int) -> Drawn:
    """SAMPLE poisoned pairs and as many clean ones, or all there are.

    By hashes of row ids, so neither order nor sharding has a say in which they are.
    """
    index = dataset.index_of_samples(["row", "key", "caption", "image_sha256"])
    rows = index["row"].to_numpy()
    lot, poisoned = hash64(seed, "pairs", rows), np.isin(rows, ledger.rows["row"].to_numpy())
    kept = np.zeros(len(rows), bool)
    for which in (np.flatnonzero(poisoned), np.flatnonzero(~poisoned)):
        kept[which[np.argsort(lot[which])][:SAMPLE]] = True
    found = index.filter(kept).to_pylist()
    told = [(line["row"], line["image_sha256"], line["caption"]) for line in found]
    return Drawn(
        dataset=dataset.url,
        rows=tuple(line["row"] for line in found),
        poisoned=tuple(poisoned[kept].tolist()),
        captions=tuple(line["caption"] for line in found),
        places=tuple((line["shard"], line["key"]) for line in found),
        digest=hashlib.sha256(json.dumps(told).encode()).hexdigest(),
    )


def learned(runs: Sequence[Run], ledger: Ledger, attack: AttackRecord, known: Sequence[AttackRecord]) -> Dataset:
    """The dataset with this attack's poisons that one of the runs learned from.

    Raises ValueError if none did, or if it is no longer there, or another one.
    """
    carriers = [run for run in runs if roles.carries(run.dataset_digest, attack, known)]
    if not carriers:
        raise ValueError(
            f"pair_similarity shows runs the pairs that one of them learned from, and none learned from those of "
            f"{ledger.url}: give the poisoned run with --runs as well"
        )
    dataset = Dataset.open(carriers[0].dataset)
    if dataset.digest != carriers[0].dataset_digest:
        raise ValueError(f"{dataset.url} is not the dataset that {carriers[0].url} learned from (digests differ)")
    return dataset
