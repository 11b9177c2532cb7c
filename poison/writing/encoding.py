"""One stored pair -> the poisoned pair: same key, row, url, image size, file type; nothing of the image or caption."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline import images
from pipeline.shards import Sample

# What KEY.json says of any image of that size at that url, whatever its caption.
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
    meta = sizes(described(sample, caption), sample.image, data) | hashes
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
    return replace(sample, caption=caption, meta=described(sample, caption))


def described(sample: Sample, caption: str) -> dict[str, Any]:
    """KEY.json of a pair under another caption. All fields stay, whoever wrote them: a pair without them would stand
    out. Where one repeats the old caption it says the new one, and EXIF, which may describe the image, is emptied.
    """
    old = re.compile(rf"(?<!\w){re.escape(sample.caption.strip())}(?!\w)", re.IGNORECASE)
    # An image without EXIF has an empty object there, as img2dataset writes it.
    emptied = {"exif": "{}"} if "exif" in sample.meta else {}
    if not sample.caption.strip() or sample.caption == caption:
        return sample.meta | emptied
    return {
        name: value if name in KEPT or name in HASHES else _renamed(value, old, caption)
        for name, value in sample.meta.items()
    } | emptied


def _renamed(value: Any, old: re.Pattern[str], new: str) -> Any:
    """A JSON value in which each string, however deep, says `new` where it said `old`."""
    if isinstance(value, str):
        return old.sub(lambda _: new, value)
    if isinstance(value, list):
        return [_renamed(item, old, new) for item in value]
    if isinstance(value, dict):
        return {name: _renamed(item, old, new) for name, item in value.items()}
    return value
