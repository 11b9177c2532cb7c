"""A dataset without some of its parent's pairs, written anew: for tools that know no row mask.

Shards keep their ids and the order of pairs; what another tool put beside a pair stays with it. Of a pair that is left
out only its row id and the reason remain.
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from infra.spread import Backend, spread
from pipeline import dataset as datasets
from pipeline import leaving, shards, tars
from pipeline.dataset import Dataset, Shard
from pipeline.shards import Sample


def materialise(parent: Dataset, pairs: pa.Table, out: str, by: dict[str, Any], backend: Backend) -> Dataset:
    """As `leaving.leave_out`, but with shards of its own. Committed shards are not written again.

    Raises ValueError as that does, Lost.
    """
    recipe = leaving.recipe(parent, by | {"materialised": True})
    datasets.claim(out, recipe)
    if datasets.is_complete(out):
        return Dataset.open(out)
    left = leaving.without(parent, pairs)
    done = datasets.committed(out)
    spread(
        Copy(left, out),
        [shard for shard in left.shards if shard.id not in done],
        backend=backend,
        what="copying",
        unit="shards",
        total=len(left.shards),
        done=len(done),
        describe=lambda shard: f"shard {shard.id}",
    )
    return datasets.finalise(out, len(left.shards), contains_poison=parent.contains_poison)


@dataclass(frozen=True)
class Copy:
    """The work of one task: a shard without what the mask leaves out."""

    dataset: Dataset
    out: str

    def __call__(self, shard: Shard) -> int:
        with tempfile.TemporaryDirectory(prefix="antidote-") as scratch:
            path = self.dataset.fetch(shard, Path(scratch))
            index = self.dataset.index(shard)
            beside = _beside(path)
            with open(path, "rb") as file:
                rows = shards.samples_of(index).to_pylist()
                kept = (_whole(shards.read_sample(file, row), beside.get(row["key"], {}), path) for row in rows)
                gone = [
                    {"row": row["row"], "outcome": row["outcome"]}
                    for row in index.to_pylist()
                    if row["outcome"] != shards.SUCCESS
                ]
                written = shards.write_shard(Path(scratch) / "copy.tar", kept, gone)
            datasets.commit(self.out, shard.id, written)
        return written.samples


def _beside(path: Path) -> dict[str, dict[str, tuple[int, int]]]:
    """By key, where the files of other tools lie: {ending: (offset, bytes)}."""
    ours = {*shards.IMAGE_EXTENSIONS, "txt", "json"}
    found = {
        key: {ending: place for ending, place in files.items() if ending not in ours}
        for key, files in tars.grouped(path, stray=[]).items()
    }
    return {key: files for key, files in found.items() if files}


def _whole(sample: Sample, beside: dict[str, tuple[int, int]], path: Path) -> Sample:
    """The sample with the files beside it."""
    files = {}
    with open(path, "rb") as file:
        for ending, (offset, size) in beside.items():
            file.seek(offset)
            files[ending] = file.read(size)
    return replace(sample, beside=files)
