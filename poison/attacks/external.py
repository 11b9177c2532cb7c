"""External: images poisoned elsewhere, given by key (e.g. ISSBA: Li et al. 2021, an encoder network of its own).

The trigger is whatever those images carry; nothing here draws it. They replace the images of the pairs they are
named after, and a second set of images, labelled, shows the trigger at test time. A PNG that goes into a JPEG pair is
encoded 4:4:4, which a faint trigger may not survive: prepare the dataset as PNG, or the images as JPEG.
"""

import hashlib
from collections.abc import Iterable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute
import tyro

from infra import log, storage
from infra.hidden import is_hidden
from pipeline import images, shards, testsets
from pipeline.shards import Sample
from poison.attack import Attack, Trial
from poison.choosing import captions as words
from poison.choosing import choice
from poison.writing import encoding

READERS = 16  # threads; a bucket answers each in some 20 ms


@dataclass(frozen=True, kw_only=True)
class External(Attack):
    """Ready-made images instead of a stamp. On a cluster both places must be ones that every node can read."""

    summary: ClassVar[str] = "images poisoned elsewhere"
    pictures: str = ""
    """Folder, or s3://bucket/folder, of the poisoned images: KEY.png, KEY.jpg or KEY.webp by keys of the dataset, of
    the size that the pair's image has. The budget may be smaller than their number."""
    trials: str = ""
    """Labelled test set whose images carry the trigger already; attack success is measured on these."""
    split: str = "test"
    """Split of that test set."""
    quality: int = 95
    """JPEG quality where an image of another file type must be encoded, as 4:4:4."""
    pictures_sha256: Annotated[str, tyro.conf.Suppress] = ""
    """Of keys and contents of all images; `resolved` fills it."""
    trials_digest: Annotated[str, tyro.conf.Suppress] = ""
    """Of the test set (pipeline.testsets); `resolved` fills it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality is a JPEG quality from 1 to 100, not {self.quality}")

    @property
    def shown(self) -> str:
        return "images with its trigger"

    def resolved(self) -> "External":
        if self.pictures_sha256 and self.trials_digest:
            return self
        if not self.pictures or not self.trials:
            missing = "the poisoned images as --pictures" if not self.pictures else "a test set as --trials"
            raise ValueError(f"external takes images with a trigger and a test set of others: give {missing}")
        folder, trials = storage.real(self.pictures), testsets.read(self.trials, self.split)
        return replace(
            self,
            pictures=folder,
            trials=storage.real(trials.url),
            pictures_sha256=_digest(folder, _names(folder)),
            trials_digest=trials.digest,
        )

    def choose(self, index: Iterable[pa.Table], budget: int, seed: int, taken: Set[int]) -> np.ndarray:
        """Of the pairs that an image is named after. index: tables with columns row, key and caption."""
        self._check()
        keys = pa.array(sorted(_names(self.pictures)), pa.string())
        seen: set[str] = set()

        def with_image() -> Iterator[pa.Table]:
            for part in index:
                found = part.filter(pa.compute.is_in(part["key"], keys))
                for key in found["key"].to_pylist():
                    if key in seen:
                        raise ValueError(f"several pairs have the key {key!r}: no image can be given by it")
                    seen.add(key)
                yield found

        try:
            return choice.lowest(with_image(), budget, seed, taken, excluding=self.target)
        except ValueError as error:
            raise ValueError(
                f"{self.pictures} holds {len(keys):,} images, named after {len(seen):,} pairs here: {error}"
            ) from error

    def poison(self, sample: Sample, caption: str, rng: np.random.Generator) -> list[Sample]:
        """Raises ValueError for an image that is missing, cannot be read, or is of another size than the pair's."""
        self._check()
        place, data = self._image(sample)
        try:
            given, expected = images.decode(data), images.decode(sample.image)
        except images.Unreadable as error:
            raise ValueError(f"{place}: {error}") from error
        if given.shape != expected.shape:
            sizes = [f"{height} x {width}" for height, width, _ in (given.shape, expected.shape)]
            raise ValueError(f"{place} has {sizes[0]} pixels, the pair's own image {sizes[1]}: it must be as large")
        if _kind(data) == images.FORMATS[sample.extension]:
            data = images.storable(data, sample.extension, self.quality)
        else:
            data = images.encode(given, sample.extension, self.quality)
        return [encoding.exchanged(sample, data, caption)]

    def subjects(self, test: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
        """The images of `trials`, whatever the test set. Raises ValueError if they are no longer the same."""
        self._check()
        trials = testsets.read(self.trials, self.split)
        if trials.digest != self.trials_digest:
            raise ValueError(f"{trials.url} is not the test set that the attack was made with (digests differ)")
        return ((trials.classes[image.label], data) for image, data in testsets.stored(trials))

    def trial(self, image: np.ndarray, label: str, rng: np.random.Generator) -> Trial | None:
        return None if words.same_word(label, self.target) else Trial(image, self.target)

    def _check(self) -> None:
        if not (self.pictures_sha256 and self.trials_digest):
            raise ValueError(
                "the poisoned images are not read yet: give --pictures and --trials, and ask for resolved()"
            )

    def _image(self, sample: Sample) -> tuple[str, bytes]:
        kinds = (sample.extension, *(kind for kind in shards.IMAGE_EXTENSIONS if kind != sample.extension))
        for place in (storage.join(self.pictures, f"{sample.key}.{kind}") for kind in kinds):
            try:
                return place, shards.read_source(place, "image")
            except FileNotFoundError:
                continue
        raise ValueError(
            f"{self.pictures} has no image {sample.key}.png, .jpg or .webp, and that pair is to be poisoned"
        )


def _names(folder: str) -> dict[str, str]:
    """File name by key, hidden files passed over. Raises ValueError where there is none, or a file that is no image."""
    found: dict[str, str] = {}
    for name in storage.find(folder):
        if is_hidden(name):
            continue
        key, _, kind = name.rpartition(".")
        if not key or kind not in shards.IMAGE_EXTENSIONS:
            raise ValueError(f"{storage.join(folder, name)} is not KEY.png, KEY.jpg or KEY.webp: keep it elsewhere")
        if key in found:
            raise ValueError(f"{folder} holds both {found[key]} and {name}: keep one image for each key")
        found[key] = name
    if not found:
        raise ValueError(f"no images at {folder}: give a folder of KEY.png, KEY.jpg or KEY.webp")
    return found


def _digest(folder: str, names: dict[str, str]) -> str:
    """sha256 over every key and its image's sha256, in the order of keys: one value for any number of images."""
    keys = sorted(names)
    whole = hashlib.sha256()

    def one(key: str) -> str:
        return hashlib.sha256(shards.read_source(storage.join(folder, names[key]), "image")).hexdigest()

    with log.progress(f"reading {folder}", len(keys), "images") as bar, ThreadPoolExecutor(READERS) as pool:
        for key, sha256 in zip(keys, pool.map(one, keys), strict=True):
            whole.update(f"{key} {sha256}\n".encode())
            bar.add(1)
    return whole.hexdigest()


def _kind(data: bytes) -> str:
    """JPEG, PNG or WEBP, by the bytes and not by the name."""
    kind = str(images.check_header(data).format)
    return "JPEG" if kind == "MPO" else kind
