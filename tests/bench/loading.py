"""How fast one process on one core turns stored pairs into pixels and tokens, and finds them.

    python tests/bench/loading.py [--samples 2000] [--rounds 5]

Three pairs of ways over the same shards, in turn in each round:
- training at 224 pixels from JPEGs of 341 x 256 (drawn, with grain), against webdataset with Pillow and open_clip's
  transform (short side, centre, no random crop); both tokenise every caption anew at first;
- finding a pair by index (image bytes and caption), against webdataset's reader; nothing is decoded. Ours goes in the
  shuffled order, webdataset in the order of the shards, so the comparison favours it;
- pairs of 64 pixels through our stream, against webdataset that decodes with Pillow.

Each number counts the start-up in: ours checks every shard's hash before the first pair. `..._once_started` leaves out,
on both sides, what comes before the first pair or batch.
"""

import argparse
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline import dataset, images
from pipeline.picturebook import captions, draw
from pipeline.shards import Sample, write_shard
from tests.support import figures
from train import cache, model, order
from train.objectives.clip import Clip
from train.stream import Pairs, Stream

SIZE, LARGE, BATCH = 64, 224, 128


def drawn(folder: str, count: int, image: Callable[[int], bytes] | None = None) -> dataset.Dataset:
    """A dataset of picture-book pairs in shards of 1,000. image: the JPEG of a row, or the drawn one."""
    image = image or (lambda row: draw.encoded(0, row, SIZE))
    dataset.claim(folder, {})
    for shard, start in enumerate(range(0, count, 1000)):
        pairs = [
            Sample(f"{row:09d}", row, image(row), "jpg", captions.caption(0, row), {})
            for row in range(start, min(start + 1000, count))
        ]
        dataset.commit(folder, shard, write_shard(Path(folder).with_name("scratch.tar"), pairs))
    return dataset.finalise(folder, -(-count // 1000))


def grained(row: int) -> bytes:
    """A drawn image as a JPEG of 341 x 256 that takes as many bytes as a photo, some 40 KB."""
    image = Image.fromarray(images.decode(draw.encoded(0, row, SIZE))).resize((341, 256), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(row).normal(0, 6, (256, 341, 1))
    out = io.BytesIO()
    Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


def trained(made: dataset.Dataset, architecture: dict[str, Any]) -> Iterator[int]:
    with cache.filled(made, 8, quiet=True) as local:
        pairs = Pairs(local, Clip(), model.tokenizer(architecture), size=LARGE, augment="none", seed=0)
        for batch in Stream(pairs, seed=0, batch=BATCH).epoch(0):
            yield len(batch["rows"])


def open_clips(made: dataset.Dataset, architecture: dict[str, Any]) -> Iterator[int]:
    """Bytes by webdataset, pixels by open_clip's own transform."""
    import open_clip
    import webdataset

    tokenize, shown = model.tokenizer(architecture), open_clip.image_transform(LARGE, is_train=False)
    urls = [made.tar_url(shard) for shard in made.shards]
    pairs = webdataset.WebDataset(urls, shardshuffle=False).decode("pilrgb").to_tuple("jpg", "txt")
    for found, _ in pairs.map_tuple(shown, lambda text: tokenize([text])[0]).batched(BATCH, partial=False):
        yield len(found)


def indexed(made: dataset.Dataset) -> Iterator[int]:
    with cache.filled(made, 8, quiet=True) as local:
        pairs = Pairs(local, Clip(), torch.zeros, size=SIZE, augment="none", seed=0)  # type: ignore[arg-type]
        for sample in order.permutation(0, 0, len(pairs)).tolist():
            data, caption = pairs.stored(sample)
            yield int(len(data) > 0 and len(caption) > 0)


def streamed(made: dataset.Dataset) -> Iterator[int]:
    import webdataset

    urls = [made.tar_url(shard) for shard in made.shards]
    for data, caption in webdataset.WebDataset(urls, shardshuffle=False).to_tuple("jpg", "txt"):
        yield int(len(data) > 0 and len(caption) > 0)


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
    for found, _ in pairs.batched(BATCH, partial=False):
        yield len(found)


@dataclass(frozen=True)
class Pace:
    """Samples a second of processor time, in which other processes have no part; and without what comes before the
    first of them (to open, and to check every shard's hash), which took `start_up` seconds."""

    whole: float
    steady: float
    start_up: float


def pace(read: Callable[[], Iterator[int]]) -> Pace:
    start, samples = time.process_time(), read()
    first = next(samples)
    began, rest = time.process_time(), sum(samples)
    end = time.process_time()
    return Pace((first + rest) / (end - start), rest / (end - began), began - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    architecture = model.architecture("picturebook-resnet")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ANTIDOTE_CACHE"] = f"{folder}/cache"
        small = drawn(f"{folder}/small", given.samples)
        large = drawn(f"{folder}/large", given.samples // 4, grained)
        ways: dict[str, tuple[Callable[[], Iterator[int]], Callable[[], Iterator[int]]]] = {
            "train_over_open_clip": (lambda: trained(large, architecture), lambda: open_clips(large, architecture)),
            "index_over_webdataset": (lambda: indexed(small), lambda: streamed(small)),
            "ours_over_webdataset": (lambda: ours(small, architecture), lambda: peer(small, architecture)),
        }
        rounds: dict[str, list[tuple[Pace, Pace]]] = {name: [] for name in ways}
        for number in range(given.rounds + 1):  # the first one warms up the page cache, and is not counted
            for name, (mine, theirs) in ways.items():
                pair = pace(mine), pace(theirs)
                print(f"round {number}: {name} {pair[0].whole:,.0f} / {pair[1].whole:,.0f} samples/s")
                rounds[name] += [pair] if number else []
    known: dict[str, float] = {}
    for name, pairs in rounds.items():
        short = name.partition("_over_")[0]
        known[name] = statistics.median(a.whole / b.whole for a, b in pairs)
        known[f"{name}_once_started"] = statistics.median(a.steady / b.steady for a, b in pairs)
        known[f"{short}_per_second"] = statistics.median(a.whole for a, _ in pairs)
        known[f"{short}_start_up_ms"] = statistics.median(a.start_up for a, _ in pairs) * 1000
    print(figures.line(known))


if __name__ == "__main__":
    main()
