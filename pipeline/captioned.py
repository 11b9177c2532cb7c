"""WebDataset test sets of images with captions, several an image, in the layout of CLIP_benchmark; local or S3.

dataset_type.txt                          says retrieval; without it the set is one of classes (pipeline.testsets)
test/0.tar, test/1.tar, ...               KEY.jpg|png|webp and KEY.txt, a caption a line
test/nshards.txt                          how many tars; written last, its presence means complete
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from infra import log, storage
from pipeline import shards, testsets
from pipeline.testsets import CAPTIONED, TYPE, Picture


@dataclass(frozen=True)
class Captioned:
    """A complete set, without its images: those are read by `testsets.stored`.

    captions: of each image, one or more, in the order of the pictures. digest: sha256 of captions and image hashes in
    order, whatever the tars are called.
    """

    url: str
    split: str
    pictures: tuple[Picture, ...]
    captions: tuple[tuple[str, ...], ...]
    digest: str

    @property
    def texts(self) -> tuple[str, ...]:
        """All captions, image after image."""
        return tuple(caption for some in self.captions for caption in some)

    @property
    def owners(self) -> np.ndarray:
        """int64 (number of texts,): which image each text belongs to, by its place among the pictures."""
        return np.repeat(np.arange(len(self.captions)), [len(some) for some in self.captions])


def read(url: str, split: str = "test") -> Captioned:
    """Read every caption and hash every image.

    Captions are lines as `str.splitlines` has them, blanks around them and blank ones kept: CLIP_benchmark reads them
    so, and the numbers shall be its numbers. Raises ValueError if there is no such set, a file is missing or damaged,
    or an image has no caption.
    """
    url = storage.absolute(url)
    if (kind := testsets.kind_of(url)) != CAPTIONED:
        said = f"says {kind!r}" if kind is not None else "is not there"
        raise ValueError(f"no test set with captions at {url}: {TYPE} {said}, and {CAPTIONED!r} is expected")
    pictures, captions = list[Picture](), list[tuple[str, ...]]()
    for picture, some in testsets.scan(url, split, "txt", "text", "an image with its captions in a .txt", _parsed):
        pictures.append(picture)
        captions.append(some)
    if not pictures:
        raise ValueError(f"{storage.join(url, split)} holds no images with captions")
    if blank := sum(not caption.strip() for some in captions for caption in some):
        log.warn(f"{storage.join(url, split)}: {blank:,} captions are blank lines; they count as captions")
    digest = hashlib.sha256(b"captions 1")
    for picture, some in zip(pictures, captions, strict=True):
        digest.update(f"\n{picture.sha256} {json.dumps(some)}".encode())
    return Captioned(url, split, tuple(pictures), tuple(captions), digest.hexdigest())


def _parsed(said: bytes) -> tuple[str, ...]:
    if len(said) > shards.MAX_BYTES["text"]:
        raise ValueError(f"has captions of more than {shards.MAX_BYTES['text']:,} bytes")
    try:
        found = tuple(said.decode().splitlines())
    except UnicodeDecodeError as error:
        raise ValueError(f"has captions that are not UTF-8 ({error.reason} at byte {error.start})") from error
    if not found:
        raise ValueError("has no caption")
    return found


def write(
    url: str,
    samples: Iterable[tuple[bytes, str, Sequence[str]]],
    split: str = "test",
    called: Callable[[int], str] = "image {}".format,
) -> int:
    """Write (encoded image, extension, captions) in the order given; returns how many. Same input, same bytes.

    Line breaks within a caption become blanks, for a line is a caption. Images are stored, and an interrupted call is
    repeated, as in `testsets.write`. Raises ValueError as it does, and where an image has no caption, or a blank one.
    """

    def said() -> Iterator[tuple[bytes, str, bytes]]:
        for number, (image, extension, captions) in enumerate(samples):
            lines = [" ".join(caption.splitlines()).strip() for caption in captions]
            if not lines or not all(lines):
                raise ValueError(f"{called(number)} has {'a blank caption' if lines else 'no caption'}")
            yield image, extension, "".join(f"{line}\n" for line in lines).encode()

    return testsets.write_tars(url, split, said(), "txt", {TYPE: f"{CAPTIONED}\n".encode()}, called)
