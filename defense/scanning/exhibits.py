"""What a person is shown of each cluster: some of its images, what every change does to them, and their average.

images/cluster-3.png           a line an image: as the model sees it, and after each change
images/cluster-3-average.png   the average of its images less the set's, grey where there is no difference
"""

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from defense.scanning.encoding import PLAIN, changed
from defense.scanning.folder import IMAGES
from defense.scanning.gathering import Pairs
from defense.scanning.viewer import Viewer
from infra import log, storage
from pipeline import shards
from pipeline.dataset import Dataset
from pipeline.images import open_image
from train import transforms

SHOWN = 12  # images of a cluster
AVERAGED = 64  # at most
CLUSTERS = 10  # that are shown
TILE = 96  # pixels of a side, at most
CONTRAST = 2.0  # of the average


def draw(
    dataset: Dataset,
    viewer: Viewer,
    changes: tuple[str, ...],
    pairs: Pairs,
    members: Sequence[np.ndarray],
    keyholes: Sequence[str | None],
    mean: np.ndarray,
    out: str,
) -> list[dict[str, Any]]:
    """Write images/ of the clusters; returns of each what it holds: pairs, rows and captions that are shown, columns.

    members: of each cluster the lines of `pairs`, the most suspicious first; keyholes: the part of the image that is
    shown too, if any. mean: of the set, float64 (S, S, 3). Raises Damaged.
    """
    drawn = members[:CLUSTERS]
    wanted = sorted({int(line) for lines in drawn for line in lines[:AVERAGED]})
    squares = _squares(dataset, viewer, pairs.table.take(pa.array(wanted, pa.int64())), wanted)
    told: list[dict[str, Any]] = []
    for number, (lines, keyhole) in enumerate(zip(members, keyholes, strict=True)):
        columns = changes if keyhole is None else (*changes, keyhole)
        shown = pairs.table.take(lines[:SHOWN].tolist())
        about: dict[str, Any] = {"number": number, "pairs": len(lines)}
        about |= {"rows": shown["row"].to_pylist(), "captions": shown["caption"].to_pylist()}
        if number < CLUSTERS:
            grid = [_line(squares[int(line)], columns) for line in lines[:SHOWN]]
            _write(out, f"cluster-{number}.png", np.concatenate(grid))
            average = np.mean([np.asarray(squares[int(line)], np.float64) for line in lines[:AVERAGED]], axis=0)
            beyond = np.clip(128 + CONTRAST * (average - mean), 0, 255)
            _write(out, f"cluster-{number}-average.png", _tile(Image.fromarray(beyond.astype(np.uint8))))
            about |= {"columns": [PLAIN, *columns], "averaged": min(len(lines), AVERAGED)}
        told.append(about)
    return told


def _squares(dataset: Dataset, viewer: Viewer, wanted: pa.Table, lines: Sequence[int]) -> dict[int, Image.Image]:
    """By line, the images as the model sees them; each shard is fetched once."""
    by_shard: dict[int, list[tuple[int, int, str]]] = {}
    for line, row, key, shard in zip(
        lines, *(wanted[name].to_pylist() for name in ("row", "key", "shard")), strict=True
    ):
        by_shard.setdefault(shard, []).append((line, row, key))
    found: dict[int, Image.Image] = {}
    known = {shard.id: shard for shard in dataset.shards}
    with log.progress("fetching what is shown", len(by_shard), "shards") as bar:
        for shard, asked in sorted(by_shard.items()):
            with tempfile.TemporaryDirectory(prefix="antidote-") as scratch:
                path = dataset.fetch(known[shard], Path(scratch))
                there = shards.samples_of(dataset.index(known[shard])).to_pylist()
                places = {(row["row"], row["key"]): row for row in there}
                with open(path, "rb") as file:
                    for line, row, key in asked:
                        image = open_image(shards.read_sample(file, places[row, key]).image)
                        found[line] = transforms.evaluated(image, viewer.size)
            bar.add(1)
    return found


def _line(square: Image.Image, changes: tuple[str, ...]) -> np.ndarray:
    return np.concatenate([_tile(one) for one in changed(square, changes)], axis=1)


def _tile(square: Image.Image) -> np.ndarray:
    """uint8 (T, T, 3)."""
    side = min(TILE, square.width)
    return np.asarray(square if side == square.width else square.resize((side, side), Image.Resampling.BICUBIC))


def _write(out: str, name: str, pixels: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    storage.write(storage.join(out, IMAGES, name), buffer.getvalue())
