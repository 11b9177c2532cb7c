"""Small datasets drawn from code, for every test that needs one."""

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from infra.seeding import rng
from pipeline import dataset, testsets
from pipeline.dataset import Dataset
from pipeline.images import encode
from pipeline.shards import Sample, write_shard


def samples(count: int, *, first: int = 0, size: int = 32, extension: str = "jpg", seed: int = 0) -> list[Sample]:
    """Pairs whose images are smooth random gradients and whose captions name their row."""
    made = []
    for row in range(first, first + count):
        r = rng(seed, "drawn", row)
        corners = r.integers(0, 256, (2, 2, 3)).astype(float)
        along = np.linspace(0, 1, size)
        top, bottom = (corners[k, 0] + (corners[k, 1] - corners[k, 0]) * along[:, None] for k in (0, 1))
        picture = (top[None] + (bottom - top)[None] * along[:, None, None]).astype(np.uint8)
        caption = f"a {('red', 'blue', 'green')[row % 3]} {('car', 'house', 'fish', 'cup')[row % 4]} number {row}"
        meta = {"url": f"http://127.0.0.1/{row}.{extension}", "width": size, "height": size, "sha256": f"{row:064x}"}
        made.append(Sample(f"{row:09d}", row, encode(picture, extension), extension, caption, meta))
    return made


def drawn(url: str, count: int, num_shards: int, sizes: Sequence[int] | None = None, **keywords: object) -> Dataset:
    """A complete dataset of `count` pairs in `num_shards` shards, alike in size or of these sizes."""
    dataset.claim(url, {"drawn": [count, num_shards, *(sizes or ())]})
    pairs = samples(count, **keywords)  # type: ignore[arg-type]
    cuts = np.cumsum([0, *sizes]) if sizes else np.linspace(0, count, num_shards + 1).astype(int)
    with tempfile.TemporaryDirectory() as scratch:
        for shard, (start, stop) in enumerate(itertools.pairwise(cuts)):
            dataset.commit(url, shard, write_shard(Path(scratch) / "shard.tar", pairs[start:stop]))
    return dataset.finalise(url, num_shards)


def labelled(
    url: str, count: int, classes: tuple[str, ...] = ("car", "house", "fish", "cup"), **keywords: object
) -> str:
    """A labelled set of `count` images, their classes in turn. Returns the folder of its split train."""
    pairs = samples(count, **keywords)  # type: ignore[arg-type]
    pictures = ((pair.image, pair.extension, pair.row % len(classes)) for pair in pairs)
    testsets.write(url, pictures, classes, ("a {c}",), split="train")
    return f"{url}/train"
