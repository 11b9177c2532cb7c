"""One shard as a model sees it, its images as they are and changed: the work of one task of a scan.

    parts/00042-HASH.npz    images, captions, and one array for each changed view, rows in the shard's order
    parts/witness/...       the same as a witness sees it: images alone

A part is made by content: of the same pairs, weights and changes it is taken from the cache of this machine.
"""

import hashlib
import inspect
import io
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from defense.changing import views
from defense.scanning.viewer import Viewer
from infra import storage
from infra.errors import Damaged
from pipeline import foreign, shards
from pipeline.dataset import Dataset, Shard
from pipeline.images import open_image
from train import transforms
from train.embedding import Embedder, cached, normalised, prepared

PLAIN, TEXTS, MEAN = "images", "texts", "mean"


@dataclass(frozen=True)
class Encode:
    """The work of one task. changes: names of views, sorted; parts: folder; cpus: threads that decode and change."""

    dataset: Dataset
    viewer: Viewer
    changes: tuple[str, ...]
    parts: str
    cpus: int

    @property
    def names(self) -> tuple[str, ...]:
        """Of the arrays of embeddings in a part."""
        return (PLAIN, TEXTS, *self.changes)

    def __call__(self, task: tuple[int, Shard]) -> int:
        """Writes the part of a shard; returns its pairs. Raises Damaged for a shard or an image that cannot be read."""
        number, shard = task
        samples = shards.samples_of(self.dataset.index(shard))
        embedder = self.viewer.embedder(number)
        key = {
            "kind": "scan",
            "embedder": embedder.identity,
            "changes": {name: source(name) for name in self.changes},
            "pairs": content(samples),
        }
        made = cached(key, lambda: self._made(embedder, shard, samples))
        buffer = io.BytesIO()
        np.savez(buffer, **made)  # type: ignore[arg-type]
        storage.write(storage.join(self.parts, self.name(shard)), buffer.getvalue())
        return samples.num_rows

    def name(self, shard: Shard) -> str:
        return f"{shard.id:05d}-{shard.content_sha256[:12]}.npz"

    def _made(self, embedder: Embedder, shard: Shard, samples: pa.Table) -> dict[str, np.ndarray]:
        found: dict[str, list[np.ndarray]] = {name: [] for name in (PLAIN, *self.changes)}
        total = np.zeros((self.viewer.size, self.viewer.size, 3))
        with tempfile.TemporaryDirectory(prefix="antidote-") as scratch:
            path = self.dataset.fetch(shard, Path(scratch))

            def prepare(item: tuple[dict[str, Any], bytes]) -> tuple[np.ndarray, list[torch.Tensor]]:
                row, data = item
                try:
                    square = transforms.evaluated(open_image(data), self.viewer.size)
                except ValueError as error:
                    said = f"{path.name if storage.local(shard.name) is None else shard.name}, key {row['key']}"
                    raise Damaged(f"{said}, row {row['row']}: {error}; {foreign.way_past(self.dataset.url)}") from error
                return np.asarray(square), [embedder.preprocess(each) for each in changed(square, self.changes)]

            for batch in prepared(stored(path, samples), prepare, self.cpus):
                total += np.sum([square for square, _ in batch], axis=0, dtype=np.float64)
                for place, name in enumerate(found):
                    found[name].append(embedder.images([tensors[place] for _, tensors in batch]))
        made = {name: np.concatenate(parts) for name, parts in found.items()} | {MEAN: total / samples.num_rows}
        return made | {TEXTS: self._texts(embedder, samples["caption"].to_pylist())}

    def _texts(self, embedder: Embedder, captions: list[str]) -> np.ndarray:
        different = list(dict.fromkeys(captions))
        steps = range(0, len(different), 128)
        rows = np.concatenate([normalised(embedder.texts(different[start : start + 128])) for start in steps])
        place = {caption: number for number, caption in enumerate(different)}
        return np.asarray(rows[[place[caption] for caption in captions]])


def changed(square: Image.Image, names: tuple[str, ...]) -> list[Image.Image]:
    """The square itself, and after each change."""
    return [square, *(views.VIEWS[name](square) for name in names)]


def stored(path: Path, samples: pa.Table) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Index rows with their images' bytes, read one after the other by whoever asks."""
    with open(path, "rb") as file:
        for row in samples.to_pylist():
            yield row, shards.read_sample(file, row).image


def source(name: str) -> str:
    """A change by what it does: 12 digits of a hash of its code, and of the functions of its module that it calls."""
    view, given = views.VIEWS[name], ""
    if isinstance(view, partial):
        given = str(view.keywords)
        view = view.func
    called = [one for word in view.__code__.co_names if isinstance(one := getattr(views, word, None), FunctionType)]
    code = given + inspect.getsource(view) + "".join(map(inspect.getsource, called))
    return hashlib.sha256(code.encode()).hexdigest()[:12]


def content(samples: pa.Table) -> str:
    """sha256 of the images and captions of a shard's pairs, in order."""
    digest = hashlib.sha256()
    for pair in zip(samples["image_sha256"].to_pylist(), samples["caption"].to_pylist(), strict=True):
        digest.update(json.dumps(pair).encode() + b"\n")
    return digest.hexdigest()
