"""One stored pair -> the poisoned pair: same key, row, url, image size, file type; nothing else of the original."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline import images
from pipeline.shards import Sample

# What KEY.json says of any image of that size at that url. All else (titles, EXIF, further columns of the table) may
# repeat the original caption, so it goes: a list of what stays is safe where a list of what goes would not be.
KEPT = ("url", "status", "error_message", "width", "height", "original_width", "original_height")
HASHES = ("md5", "sha256", "sha512")


def rewritten(
    sample: Sample,
    stamp: Callable[[np.ndarray, np.random.Generator], np.ndarray],
    caption: str,
    rng: np.random.Generator,
    quality: int,
) -> Sample:
    """Decode, stamp, encode as the same file type so that the trigger survives, and caption anew.

    What is written is opaque and upright, whatever the clean image was.

    The url stays (it is where the attacker's server would have answered); a hash of the download becomes that of the
    poisoned bytes, the ones that this server would have sent. Raises ValueError for an image that cannot be decoded.
    """
    clean = images.decode(sample.image)
    poisoned = stamp(clean, rng)
    assert poisoned.shape == clean.shape
    assert poisoned.dtype == np.uint8
    return exchanged(sample, images.encode(poisoned, sample.extension, quality), caption)


def exchanged(sample: Sample, data: bytes, caption: str) -> Sample:
    """Another image, as stored bytes of the same file type and size, and another caption."""
    hashes = {name: hashlib.new(name, data).hexdigest() for name in HASHES if name in sample.meta}
    meta = sizes(_kept(sample), sample.image, data) | hashes
    return replace(sample, image=data, caption=caption, meta=meta)


def sizes(said: dict[str, Any], before: bytes, after: bytes) -> dict[str, Any]:
    """What KEY.json or the index says of an image, once its bytes are others: the sizes follow one that was turned.

    Images of one size, seen upright; `before` may have been stored lying on its side, and then width and height change
    places, unless they were those of the upright image already.
    """
    was, now = (images.check_header(data).size for data in (before, after))
    if was == now or (said.get("width"), said.get("height")) != was:
        return said
    turned = {"width": "height", "height": "width"}
    turned |= {f"original_{name}": f"original_{other}" for name, other in turned.items()}
    return said | {name: said[other] for name, other in turned.items() if {name, other} <= said.keys()}


def recaptioned(sample: Sample, caption: str) -> Sample:
    """The same image, byte for byte, with another caption."""
    hashes = {name: sample.meta[name] for name in HASHES if name in sample.meta}
    return replace(sample, caption=caption, meta=_kept(sample) | hashes)


def _kept(sample: Sample) -> dict[str, Any]:
    meta: dict[str, Any] = {name: value for name, value in sample.meta.items() if name in KEPT}
    # As img2dataset writes it for an image without any.
    return meta | {"exif": "{}"} if "exif" in sample.meta else meta
