"""Images light enough for one page: as they are while all of them fit, else smaller and, at last, fewer.

A page of ten attacks on photographs would weigh twenty megabytes as PNG; a mail takes five.
"""

import functools
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from eval.store.records import EXAMPLES, Example
from pipeline import images
from poison.sheets.layout import Shown

BUDGET = 2_000_000  # bytes of images in a page, before base64
QUALITY = 85  # of WebP; a trigger is measured on the stored image, and here only looked at


@dataclass(frozen=True)
class Look:
    """side: pixels of the longer side of an image, None: whole, as they were. examples: of each attack."""

    side: int | None = None
    examples: int = EXAMPLES

    def fitted(self, png: bytes) -> tuple[bytes, str]:
        """What a page holds of an image, and its type. Small ones stay as they are, byte for byte."""
        if self.side is None or len(png) <= 4096:
            return png, "image/png"
        return webp(png, self.side), "image/webp"

    def brought(self, image: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3), to the size that a page holds of it."""
        return image if self.side is None else np.asarray(_within(image, self.side))


STEPS = (Look(), Look(224), Look(160), Look(128, 2), Look(96, 1))


def of(
    examples: Mapping[tuple[str, str], Sequence[Example]], triggers: Mapping[str, bytes], preview: Sequence[Shown]
) -> Look:
    """The first step at which the images are within BUDGET, or the last."""
    for look in STEPS:
        shown = _shown({key: some[: look.examples] for key, some in examples.items()}, triggers, preview)
        if sum(len(look.fitted(png)[0]) for png in shown) <= BUDGET:
            break
    return look


def _shown(
    examples: Mapping[tuple[str, str], Sequence[Example]], triggers: Mapping[str, bytes], preview: Sequence[Shown]
) -> Iterator[bytes]:
    """Every image as often as a page holds it. A difference is no heavier than the image that it is of, or hardly."""
    for some in examples.values():
        for example in some:
            yield from (example.clean, example.triggered, example.triggered)
        for example in some[:1]:
            yield from (example.clean, example.triggered)
    yield from triggers.values()
    for pair in preview:
        yield from (pair.clean, pair.poisoned, pair.difference)


@functools.lru_cache(maxsize=512)
def webp(png: bytes, side: int) -> bytes:
    """The same image, its longer side at most `side` pixels."""
    out = io.BytesIO()
    _within(images.decode(png), side).save(out, "WEBP", quality=QUALITY)
    return out.getvalue()


def _within(image: np.ndarray, side: int) -> Image.Image:
    found = Image.fromarray(image)
    found.thumbnail((side, side), Image.Resampling.LANCZOS)
    return found
