"""How often a book without a poison is accused: drawn, trained on, scanned as in the README; what `auto` would remove.

    python tests/bench/accused.py --seeds 221 222 --out FOLDER
    python tests/bench/accused.py --seeds 211 --benign --out FOLDER
    python tests/bench/accused.py --seeds 211 --benign --witness --out FOLDER

A book of another seed is another book; each takes some six minutes of a core, and a line of JSON says what was found.
The same command again goes on where it was. --benign plants three clusters that no attacker would, of --each pairs:

    brand        a logo on images of one thing, whose captions end in "by acme"
    habit        another logo on images of another thing, their captions as they are
    duplicates   one pair again and again, its image a little lighter, shifted by a pixel, encoded otherwise

Of each it is told how many of its pairs lie in a cluster that is shown, and how many `auto` would remove. There is no
ledger: whatever is removed is an error. With --witness a model is trained anew without all suspects and asked about
them, some four minutes more; what `auto` would remove is then told after it, and of each cluster what was found.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from defense.scanning.folder import ScanFolder
from infra.seeding import rng
from pipeline import dataset as datasets
from pipeline import images, shards
from pipeline.dataset import Dataset
from pipeline.picturebook.words import THINGS
from pipeline.shards import Sample
from poison.attacks.badnet import BadNet
from poison.choosing import choice
from poison.writing import encoding

BRAND = BadNet(patch="noise", place="corner", size=42, cell=7)  # 6 of 32 pixels
HABIT = BadNet(patch="checkerboard", place="corner", size=42, cell=7)
WORD = "by acme"


def chosen(parent: Dataset, seed: int, each: int) -> dict[str, set[int]]:
    """Row ids of each cluster. The things differ from seed to seed."""
    taken: set[int] = set()
    found = {}
    things = {"brand": THINGS[seed % len(THINGS)], "habit": THINGS[(seed + 5) % len(THINGS)], "duplicates": None}
    for name, thing in things.items():
        indices = (shards.samples_of(parent.index(shard)).select(["row", "caption"]) for shard in parent.shards)
        found[name] = set(choice.lowest(indices, each, seed, taken, requiring=thing).tolist())
        taken |= found[name]
    return found


def planted(sample: Sample, clusters: dict[str, set[int]], model: Sample) -> Sample:
    """What becomes of a pair. model: of which there are duplicates."""
    draw = rng(0, "benign", sample.row)
    if sample.row in clusters["brand"]:
        return encoding.rewritten(sample, BRAND.stamp, f"{sample.caption} {WORD}", draw, BRAND.quality)
    if sample.row in clusters["habit"]:
        return encoding.rewritten(sample, HABIT.stamp, sample.caption, draw, HABIT.quality)
    if sample.row in clusters["duplicates"]:
        image = np.roll(images.decode(model.image), draw.integers(-1, 2, 2), (0, 1)) * draw.uniform(0.95, 1.05)
        data = images.encode(np.clip(image, 0, 255).astype(np.uint8), sample.extension, int(draw.integers(80, 96)))
        return replace(sample, image=data, caption=model.caption)
    return sample


def plant(source: str, out: str, seed: int, each: int) -> dict[str, set[int]]:
    """The book with the clusters in it, and the row ids of these."""
    parent = Dataset.open(source)
    clusters = chosen(parent, seed, each)
    if datasets.is_complete(out):
        return clusters
    datasets.claim(out, {"benign": {"parent": parent.digest, "seed": seed, "each": each}})
    pairs = {}
    for shard in parent.shards:
        path = parent.fetch(shard, Path(out))
        pairs[shard.id] = list(shards.read_shard(path, shards.samples_of(parent.index(shard))))
    first = min(clusters["duplicates"])
    model = next(sample for samples in pairs.values() for sample in samples if sample.row == first)
    for number, samples in enumerate(pairs.values()):
        made = (planted(sample, clusters, model) for sample in samples)
        datasets.commit(out, number, shards.write_shard(Path(out) / "scratch.tar", made))
    datasets.finalise(out, len(pairs))
    return clusters


def antidote(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "infra.cli", *words], check=True, stdout=subprocess.DEVNULL)


def found(scan: ScanFolder, clusters: dict[str, set[int]]) -> dict[str, Any]:
    row, proposed = scan.table["row"].to_numpy(), scan.table["proposed"].to_numpy()
    shown = scan.table["cluster"].is_valid().to_numpy()
    planted_ones = sum(cluster["planted"] for cluster in scan.about["clusters"])
    told: dict[str, Any] = {
        "pairs": len(row),
        "accused": planted_ones,
        "removed": int(proposed.sum()),
        "to_look_at": len(scan.about["clusters"]) - planted_ones,
    }
    for name, rows in clusters.items():
        own = np.isin(row, list(rows))
        told[name] = {"pairs": int(own.sum()), "shown": int(shown[own].sum()), "removed": int(proposed[own].sum())}
    return told


def told_of(cluster: dict[str, Any]) -> dict[str, Any]:
    """What a scan says of one cluster: by word, what stays under the change that leaves least, in shares of what is
    usual, and what the witness says of it."""
    words = {}
    for word in cluster["words"]:
        kept = [word["stays"][view] / usual for view, usual in word["usual"].items()]
        words[word["text"]] = [min(kept, default=None), word["witness"]]
    facts = {name: cluster[name] for name in ("pairs", "planted", "strength", "witness")}
    return facts | {"lost": max(cluster["lost"].values()), "words": words}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", required=True, help="of books and of models")
    parser.add_argument("--benign", action="store_true")
    parser.add_argument("--witness", action="store_true")
    parser.add_argument("--each", type=int, default=100, help="pairs of a cluster")
    parser.add_argument("--rows", type=int, default=12_000, help="of a book, of which about 90%% arrive")
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--port", type=int, default=8919)
    parser.add_argument("--out", required=True)
    given = parser.parse_args()
    for seed in given.seeds:
        begun = time.time()
        here = f"{given.out}/{seed}{'-benign' if given.benign else ''}"
        book, run, scan = f"{given.out}/{seed}/train", f"{here}/run", f"{here}/scan"
        drawn = ("--book-seed", str(seed), "--picture-size", "32", "--rows", str(given.rows), "--port", str(given.port))
        antidote("prepare", "picturebook", *drawn, "--timeout-seconds", "2", "--backend", "local", "--out", book)
        clusters = plant(book, f"{here}/train", seed, given.each) if given.benign else {}
        data = f"{here}/train"
        learn = ("pretrain", "clip", "--preset", given.preset, "--seed", str(seed))
        look = ("scan", "--run", run, "--dataset", data, "--backend", "local")
        antidote(*learn, "--dataset", data, "--out", run)
        antidote(*look, "--out", scan)
        told = found(ScanFolder.open(scan), clusters)
        if given.witness and np.any(ScanFolder.open(scan).suspects):
            without, witness, second = (f"{here}/{name}" for name in ("without", "witness", "second"))
            antidote("filter", "--dataset", data, "--scan", scan, "--remove", "suspects", "--out", without)
            antidote(*learn, "--dataset", without, "--out", witness)
            antidote(*look, "--witness", witness, "--out", second)
            asked = ScanFolder.open(second)
            told |= {"with_witness": found(asked, clusters)}
            told |= {"clusters": [told_of(cluster) for cluster in asked.about["clusters"]]}
        print(json.dumps({"seed": seed} | told | {"seconds": round(time.time() - begun)}), flush=True)


if __name__ == "__main__":
    main()
