"""The pairs that a patch is learned from: chosen by hash, their images as squares of one size in a scratch file.

Choosing reads the indexes, one shard at a time; then every shard that holds a chosen pair is read once. Memory holds
the index rows of the chosen pairs, whatever the size of the dataset or of its images.
"""

import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from infra import log
from infra.seeding import hash64
from pipeline import foreign, images, shards
from pipeline.dataset import Dataset
from poison.choosing import captions
from poison.geometry import square


def chosen(dataset: Dataset, target: str, pairs: int, seed: int) -> tuple[pa.Table, pa.Table]:
    """Pairs whose caption does not name the target, and pairs whose caption does: at most `pairs` of each.

    Tables of pipeline.shards.INDEX and `shard` (id), in the order of their rows' hashes; those of lowest hash, by a
    hash of its own: not the pairs that the same seed would poison. A pair that is there twice counts once.
    Raises ValueError if there are none of either.
    """
    found: dict[bool, pa.Table | None] = {False: None, True: None}
    with log.progress("choosing pairs", len(dataset.shards), "indexes") as bar:
        for shard in dataset.shards:
            part = shards.samples_of(dataset.index(shard))
            part = part.append_column("shard", pa.array([shard.id] * part.num_rows, pa.int32()))
            naming = captions.naming(part["caption"], target)
            for named, before in found.items():
                found[named] = _lowest(before, part.filter(pa.array(naming == named)), pairs, seed)
            bar.add(1)
    clean, targets = found[False], found[True]
    for table, what in ((targets, "names"), (clean, "does without")):
        if table is None or not table.num_rows:
            raise ValueError(
                f"{'no' if what == 'names' else 'every'} caption in {dataset.url} names the target {target!r} (as a "
                "whole word): a patch is learned from pairs that do and pairs that do not; choose another --target"
            )
    assert clean is not None and targets is not None
    return clean, targets


def _lowest(before: pa.Table | None, part: pa.Table, count: int, seed: int) -> pa.Table:
    whole = pa.concat_tables([before, part]) if before is not None else part
    _, first = np.unique(hash64(seed, "optimize", whole["row"].to_numpy()), return_index=True)
    return whole.take(pa.array(first[:count]))


def side(tables: Iterable[pa.Table], seen: int) -> int:
    """The side of the squares to work on: the short side that most images have, as their indexes say.

    At most twice what the surrogate sees (`seen` pixels): beyond, a patch is all the same to it. `seen` where no index
    says anything, as in a foreign dataset without sizes.
    """
    known: Counter[int] = Counter()
    for table in tables:
        sizes = zip(table["width"].to_pylist(), table["height"].to_pylist(), strict=True)
        known.update(min(size) for size in sizes if None not in size)
    if not known:
        return seen
    return min(max(known, key=lambda short: (known[short], -short)), 2 * seen)


def squares(dataset: Dataset, table: pa.Table, side: int, place: Path) -> np.ndarray:
    """The central square of each pair's image, brought to `side` (bicubic) where it differs.

    uint8 (n, side, side, 3), in the order of `table`; the array is the file `place`, read as needed.
    Raises ValueError for one that is no image.
    """
    found = np.memmap(place, np.uint8, "w+", shape=(table.num_rows, side, side, 3))
    homes = table["shard"].to_numpy()
    with log.progress("reading images", table.num_rows, "images") as bar:
        for shard in dataset.shards:
            mine = np.flatnonzero(homes == shard.id)
            if not len(mine):
                continue
            with tempfile.TemporaryDirectory() as scratch:
                path = dataset.fetch(shard, Path(scratch))
                with open(path, "rb") as file:
                    for number, row in zip(mine, table.take(pa.array(mine)).to_pylist(), strict=True):
                        sample = shards.read_sample(file, row)
                        try:
                            found[number] = _square(images.decode(sample.image), side)
                        except images.Unreadable as error:
                            said = f"shard {shard.id}, sample {sample.key}: {error}"
                            raise ValueError(f"{said}; {foreign.way_past(dataset.url)}") from error
            bar.add(len(mine))
    return found


def _square(image: np.ndarray, side: int) -> np.ndarray:
    middle = square(image.shape[0], image.shape[1]).of(image)
    if len(middle) == side:
        return middle
    return np.asarray(Image.fromarray(middle).resize((side, side), Image.Resampling.BICUBIC))
