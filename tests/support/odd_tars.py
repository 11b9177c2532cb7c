"""Folders of someone else's tars, in which some samples are no pairs."""

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa

from pipeline.dataset import Dataset
from pipeline.shards import Sample
from tests.support.drawn import samples


def tar(path: Path, *members: tuple[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as made:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return path


def pair(sample: Sample) -> list[tuple[str, bytes]]:
    return [(f"{sample.key}.jpg", sample.image), (f"{sample.key}.txt", sample.caption.encode())]


def in_json(sample: Sample) -> list[tuple[str, bytes]]:
    """The caption lies in KEY.json alone."""
    return [
        (f"{sample.key}.jpg", sample.image),
        (f"{sample.key}.json", json.dumps({"caption": sample.caption}).encode()),
    ]


def truncated(sample: Sample) -> list[tuple[str, bytes]]:
    """A whole header, and not all of the pixels."""
    return [(f"{sample.key}.jpg", sample.image[:-60]), (f"{sample.key}.txt", b"a cut house")]


def corpus(folder: Path, *odd: tuple[str, bytes], good: int = 38, cut: int = 2, first: int = 0) -> str:
    """Two tars: `good` pairs, of which the second tar has `cut` truncated ones more, and members that are `odd`."""
    drawn = samples(good + cut, first=first)
    half = good // 2
    tar(folder / "00000.tar", *[member for one in drawn[:half] for member in pair(one)])
    rest = [member for one in drawn[half:good] for member in pair(one)]
    broken = [member for one in drawn[good:] for member in truncated(one)]
    tar(folder / "00001.tar", *broken, *odd, *rest)
    return str(folder)


def named(made: Dataset, *keys: str, reason: str = "filtered") -> pa.Table:
    """What leaving.leave_out takes, for the pairs of these keys."""
    index = made.index_of_samples(["row", "key"])
    found = [row for row in index.to_pylist() if row["key"] in keys]
    assert {row["key"] for row in found} == set(keys)
    return pa.Table.from_pylist([{"shard": row["shard"], "row": row["row"], "reason": reason} for row in found])


def keys_of(made: Dataset) -> list[str]:
    return made.index_of_samples(["key"])["key"].to_pylist()
