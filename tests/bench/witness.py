"""What a model that never saw a poison says of each attack's: how much room a witness has between poisons and others.

    python tests/bench/witness.py --run runs/clean --dataset train --poisoned poisoned/sig poisoned/badnet \
      --ledgers ledgers/sig ledgers/badnet

The run learned from --dataset, of which the others are poisoned copies. It stands in for a witness of each, which costs
a training an attack: of all images it never saw one with a trigger; unlike a witness it did learn from what the poisons
were before. Each poison is laid among the pairs of --dataset that no poison comes from, and a line of JSON an attack
tells how many of the 16 nearest captions say the target's word: of the median poison (what a verdict asks), on the
mean, and how many poisons lie where a third say it.

Where --dataset holds some of the poisons, as if a scan had found the others alone, only these others are asked about.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from defense import detector, neighbours
from defense.detectors.panel import Panel
from defense.judging.captions import common_words, words_of
from defense.judging.testimony import TRUE
from defense.scanning import gathering, viewer
from defense.scanning.encoding import PLAIN, Encode
from defense.scanning.gathering import Pairs
from infra import storage
from pipeline import leaving
from pipeline.dataset import Dataset
from poison.ledger import Ledger


def seen(encode: Encode, pairs: Pairs) -> np.ndarray:
    """float32 (N, D): the images of a dataset through the run's eyes."""
    for task in enumerate(encode.dataset.shards):
        if task[1].samples:
            encode(task)
    with tempfile.TemporaryDirectory(prefix="antidote-") as scratch:
        return gathering.gather(encode.dataset, encode, pairs, encode.viewer.width, Path(scratch)).arrays[PLAIN]


def only(dataset: Dataset, made: set[tuple[int, str]]) -> Dataset:
    """The poisons alone, as a value."""

    def others() -> Iterator[dict[str, object]]:
        table = dataset.index_of_samples(["row", "key"])
        for row, key, shard in zip(*(table[name].to_pylist() for name in ("row", "key", "shard")), strict=True):
            if (row, key) not in made:
                yield {"row": row, "shard": shard, "reason": "clean"}

    return leaving.without(dataset, pa.Table.from_pylist(list(others())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--poisoned", nargs="+", required=True)
    parser.add_argument("--ledgers", nargs="+", required=True, help="of these, in their order")
    given = parser.parse_args()
    panel = detector.named("panel")
    assert isinstance(panel, Panel)
    clean = Dataset.open(given.dataset)
    pairs = Pairs.of(clean)
    rows = pairs.table["row"].to_numpy()
    learned = set(zip(rows.tolist(), pairs.table["image_sha256"].to_pylist(), strict=True))
    vocabulary = [words_of(caption) for caption in pairs.table["caption"].to_pylist()]
    everywhere = Counter(word for words in vocabulary for word in words)
    with tempfile.TemporaryDirectory(prefix="antidote-") as scratch:
        encode = Encode(clean, viewer.read(storage.real(given.run)), (), f"{scratch}/clean", 1)
        images = seen(encode, pairs)
        for url, place in zip(given.poisoned, given.ledgers, strict=True):
            ledger, dataset = Ledger.open(place), Dataset.open(url)
            assert ledger.dataset_digest == dataset.digest, f"{place} is not of {url}"
            made = set(zip(ledger.rows["row"].to_pylist(), ledger.rows["key"].to_pylist(), strict=True))
            poisons = only(dataset, made)
            own = Pairs.of(poisons)
            lines = zip(own.table["row"].to_pylist(), own.table["image_sha256"].to_pylist(), strict=True)
            asked = np.array([line not in learned for line in lines])
            said = [words_of(caption) for caption in own.table["caption"].to_pylist()]
            target = common_words(said, everywhere + Counter(w for words in said for w in words), len(rows))[0]
            there = np.flatnonzero(~np.isin(rows, own.table["row"].to_numpy()[asked]))
            shown = seen(replace(encode, dataset=poisons, parts=f"{scratch}/{len(made)}-{dataset.digest[:12]}"), own)
            near = there[neighbours.among(images[there], shown[asked], panel.k)]
            shares = np.array([np.mean([target.text in vocabulary[row] for row in line]) for line in near.tolist()])
            told = {"attack": url.rstrip("/").rsplit("/", 1)[-1], "poisons": len(shares), "word": target.text}
            found = {"median": float(np.median(shares)), "mean": float(shares.mean())}
            third = {"a_third": int((shares >= TRUE).sum())}
            print(json.dumps(told | {name: round(value, 3) for name, value in found.items()} | third), flush=True)


if __name__ == "__main__":
    main()
