"""How fast a loader worker turns stored pairs into pixels and tokens: ours by index, against a webdataset pipeline.

    python tests/bench/loading.py [--samples 4000] [--rounds 5]

Both read the same shards (drawn images of 64 pixels) in one process, decode with Pillow, and tokenise every caption
anew at first. Ours shuffles globally; webdataset reads in the order of the shards, so the comparison favours it.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline import dataset
from pipeline.picturebook import captions, draw
from pipeline.shards import Sample, write_shard
from train import cache, model
from train.objectives.clip import Clip
from train.stream import Pairs, Stream

SIZE, BATCH = 64, 128


def drawn(folder: str, count: int) -> dataset.Dataset:
    """A dataset of picture-book pairs in shards of 1,000."""
    dataset.claim(folder, {})
    for shard, start in enumerate(range(0, count, 1000)):
        pairs = [
            Sample(f"{row:09d}", row, draw.encoded(0, row, SIZE), "jpg", captions.caption(0, row), {})
            for row in range(start, min(start + 1000, count))
        ]
        dataset.commit(folder, shard, write_shard(Path(folder).with_name("scratch.tar"), pairs))
    return dataset.finalise(folder, -(-count // 1000))


def ours(made: dataset.Dataset, architecture: dict[str, Any]) -> Iterator[int]:
    with cache.filled(made, 8, quiet=True) as local:
        tokenize = model.tokenizer(architecture)
        pairs = Pairs(local, Clip(), tokenize, size=SIZE, augment="none", seed=0)
        for batch in Stream(pairs, seed=0, batch=BATCH).epoch(0):
            yield len(batch["rows"])


def peer(made: dataset.Dataset, architecture: dict[str, Any]) -> Iterator[int]:
    import webdataset

    tokenize = model.tokenizer(architecture)
    urls = [made.tar_url(shard) for shard in made.shards]
    pairs = webdataset.WebDataset(urls, shardshuffle=False).decode("pil").to_tuple("jpg", "txt")
    pairs = pairs.map_tuple(
        lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1), lambda text: tokenize([text])[0]
    )
    for images, _ in pairs.batched(BATCH, partial=False):
        yield len(images)


def rate(read: Callable[[], Iterator[int]]) -> float:
    start = time.perf_counter()
    count = sum(read())
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    architecture = model.architecture("picturebook-resnet")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ANTIDOTE_CACHE"] = f"{folder}/cache"
        made = drawn(f"{folder}/set", given.samples)
        rounds = []
        for number in range(given.rounds + 1):  # the first one warms up the page cache, and is not counted
            pair = rate(lambda: ours(made, architecture)), rate(lambda: peer(made, architecture))
            print(f"round {number}: ours {pair[0]:,.0f}, webdataset {pair[1]:,.0f} samples/s")
            rounds.append(pair)
    mine, theirs = zip(*rounds[1:], strict=True)
    print(
        json.dumps(
            {
                "samples_per_second": round(statistics.median(mine)),
                "webdataset_samples_per_second": round(statistics.median(theirs)),
                "ours_over_webdataset": round(statistics.median(a / b for a, b in rounds[1:]), 2),
            }
        )
    )


if __name__ == "__main__":
    main()
