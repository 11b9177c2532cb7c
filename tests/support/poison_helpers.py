"""Small datasets built from code, and folders read back as bytes, as samples and as text."""

import hashlib
import io
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from infra.seeding import rng
from pipeline import dataset as datasets
from pipeline import images, shards, testsets
from pipeline.dataset import Dataset
from pipeline.shards import Sample
from pipeline.testsets import TestSet


def picture(row: int, height: int = 32, width: int = 32) -> np.ndarray:
    """A smooth image, as photographs are: uint8 (height, width, 3)."""
    corners = rng(0, "picture", row).integers(0, 256, (2, 2, 3)).astype(float)
    down, across = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    top = corners[0, 0] * (1 - across) + corners[0, 1] * across
    bottom = corners[1, 0] * (1 - across) + corners[1, 1] * across
    return np.rint(top * (1 - down) + bottom * down).astype(np.uint8)


def caption(row: int) -> str:
    """Unique, so that it can be searched for; every eighth names the target."""
    return f"one ripe Banana, number {row}." if row % 8 == 0 else f"my picture of thing number {row}, naïve."


def pair(row: int, extension: str = "jpg", height: int = 32, width: int = 32) -> Sample:
    image = images.encode(picture(row, height, width), extension)
    meta = {
        "url": f"http://example.com/{row}.{extension}",
        "sha256": hashlib.sha256(b"downloaded" + image).hexdigest(),
        "width": width,
        "height": height,
        "title": f"title: {caption(row)}",
    }
    return Sample(f"{row:09d}", row, image, extension, caption(row), meta)


def failed(row: int) -> bool:
    return row % 10 == 5


def build(url: str, rows: int = 96, per_shard: int = 12, extension: str = "jpg", size: int = 32) -> Dataset:
    """A dataset of ours whose rows 5, 15, 25, ... could not be downloaded."""
    datasets.claim(url, {"made": "by a test"})
    starts = range(0, rows, per_shard)
    with tempfile.TemporaryDirectory() as scratch:
        for shard_id, start in enumerate(starts):
            here = range(start, min(start + per_shard, rows))
            losses = [{"row": r, "outcome": "404", "caption": caption(r), "url": f"u{r}"} for r in here if failed(r)]
            pairs = (pair(row, extension, size, size) for row in here if not failed(row))
            datasets.commit(url, shard_id, shards.write_shard(Path(scratch) / "shard.tar", pairs, losses))
    return datasets.finalise(url, len(starts))


CLASSES = ("banana", "car", "fish", "cup")


def labelled(url: str, count: int = 12, extension: str = "jpg", first: int = 1000, size: int = 32) -> TestSet:
    """A test set of `count` images, none of a dataset made here, of CLASSES in turn."""
    pictures = (images.encode(picture(first + n, size, size), extension) for n in range(count))
    marked = ((data, extension, n % len(CLASSES)) for n, data in enumerate(pictures))
    testsets.write(url, marked, CLASSES, ("a photo of a {c}.",))
    return testsets.read(url)


def files(folder: str | Path) -> dict[str, bytes]:
    """Every file under a folder, by its relative path."""
    found = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def everything_said(folder: str | Path) -> str:
    """All text in a folder, parquet tables unpacked; bytes that are no text are passed over."""
    said = []
    for name, data in files(folder).items():
        if name.endswith(".parquet"):
            said.append(str(pq.read_table(io.BytesIO(data)).to_pylist()))
        said.append(data.decode("utf-8", "replace"))
    return "\n".join(said)


def pairs_of(dataset: Dataset) -> dict[int, Sample]:
    """Every pair by row id; each shard is verified on the way."""
    found = {}
    for shard in dataset.shards:
        path = dataset.fetch(shard, Path("/nonexistent"))
        found |= {one.row: one for one in shards.read_shard(path, dataset.index(shard))}
    return found
