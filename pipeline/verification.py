"""Does a dataset hold what its manifest says? Every shard is read again: size, hashes, tar, index, images."""

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from infra import config, storage
from infra.errors import Damaged, Lost
from infra.spread import Backend, spread
from pipeline import shards
from pipeline.dataset import Dataset, Shard
from pipeline.images import open_image


@dataclass(frozen=True, kw_only=True)
class Verification:
    """One dataset to be read again, whole."""

    dataset: str
    """Folder of the dataset: a path or s3://bucket/folder."""
    decode: bool = False
    """Also decode every image."""
    backend: Backend = "ray"
    dry_run: bool = False
    """Print what would be read; read nothing."""

    def run(self) -> str:
        """Returns the last line to print. Raises Lost that names every shard that is not whole."""
        opened = Dataset.open(self.dataset)
        what = f"{opened.samples:,} pairs in {len(opened.shards)} shards at {opened.url}"
        if self.dry_run:
            print(storage.dump_json(config.to_json(self)).decode(), end="")
            return f"dry run: would verify {what}"
        findings = spread(
            Verify(opened, self.decode),
            list(opened.shards),
            backend=self.backend,
            what="verifying",
            unit="shards",
            describe=lambda shard: f"shard {shard.id}",
        )
        if wrong := [finding for finding in findings if finding]:
            raise Lost(f"{len(wrong)} of {len(findings)} shards are damaged:\n  " + "\n  ".join(wrong))
        return f"verified: {what}"


@dataclass(frozen=True)
class Verify:
    """The work of one task: what is wrong with a shard, in one line, or nothing."""

    dataset: Dataset
    decode: bool

    def __call__(self, shard: Shard) -> str | None:
        with tempfile.TemporaryDirectory(prefix="antidote-") as scratch:
            try:
                self._read(shard, self.dataset.fetch(shard, Path(scratch)))
            except Damaged as error:
                return str(error)
        return None

    def _read(self, shard: Shard, path: Path) -> None:
        sha256, _, _ = shards.hashes(path)
        if sha256 != shard.sha256:
            raise Damaged(f"shard {shard.id} has another sha256 than the manifest: {self.dataset.tar_url(shard)}")
        index = self.dataset.index(shard)
        samples = 0
        with open(path, "rb") as tar:
            for row in shards.samples_of(index).to_pylist():
                samples += 1
                if trouble := self._trouble(tar, row):
                    raise Damaged(f"shard {shard.id}: {trouble}")
        members = sum(1 for _ in shards.scan(path))
        if samples != shard.samples or members < 2 * samples:
            raise Damaged(
                f"shard {shard.id} holds {samples} samples in {members} files, the manifest says {shard.samples}"
            )

    def _trouble(self, tar: BinaryIO, row: dict[str, Any]) -> str | None:
        """What of a sample is not as its index row says."""
        sample = shards.read_sample(tar, row)
        if hashlib.sha256(sample.image).hexdigest() != row["image_sha256"]:
            return f"the image of {sample.key} is not the one in the index"
        tar.seek(row["text_offset"])
        if tar.read(row["text_bytes"]) != sample.caption.encode():
            return f"the caption of {sample.key} is not the one in the index"
        if self.decode:
            try:
                open_image(sample.image)
            except ValueError as error:
                return f"{sample.key}: {error}"
        return None
