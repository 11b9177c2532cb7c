"""Images that an attack carries in its own fields, as `data:image/png;base64,...`: `attack.json` alone rebuilds it.

Always PNG, whatever the file was: the values the attack was planned with are the values it stamps. Only an image that
goes into the dataset as it is (`kept`, `stored`) keeps its bytes, and so its file type.
"""

import base64
import hashlib
import re
from functools import lru_cache

import numpy as np

from infra import storage
from pipeline import images

PREFIX = "data:image/png;base64,"
_TYPES = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}
_PREFIX = re.compile("data:image/(png|jpeg|webp);base64,")


def embedded(path_or_uri: str) -> str:
    """The image of a file (JPEG, PNG or WebP, on disk or S3) as a data URI; a data URI as it is.

    Raises ValueError that names the file where there is none, or no image in it.
    """
    if path_or_uri.startswith("data:"):
        if not path_or_uri.startswith(PREFIX):
            raise ValueError(f"the image {path_or_uri[:40]}... cannot be read: it must begin with {PREFIX}")
        pixels(path_or_uri)
        return path_or_uri
    try:
        if (path := storage.local(path_or_uri)) is not None and path.is_dir():
            raise FileNotFoundError(path_or_uri)
        image = images.decode(storage.read(path_or_uri))
    except FileNotFoundError as error:
        raise ValueError(f"no image at {path_or_uri}: give a JPEG, PNG or WebP file") from error
    except images.Unreadable as error:
        raise ValueError(f"{path_or_uri}: {error}") from error
    return uri(image)


def uri(image: np.ndarray) -> str:
    """uint8 (H, W, 3) -> its data URI."""
    return PREFIX + base64.b64encode(images.encode(image, "png")).decode("ascii")


def kept(data: bytes, extension: str) -> str:
    """A stored image (extension: jpg, jpeg, png or webp), its very bytes, as a data URI."""
    return f"data:image/{_TYPES[extension]};base64,{base64.b64encode(data).decode('ascii')}"


def stored(uri: str) -> tuple[bytes, str]:
    """(bytes, extension) of an image as a data URI: jpg, png or webp. Raises ValueError for what is none."""
    data, kind = _bytes(uri), uri.split(";")[0].removeprefix("data:image/")
    return data, {"jpeg": "jpg"}.get(kind, kind)


def is_uri(value: object) -> bool:
    """Whether this is an image as a data URI, and not yet the name of a file."""
    return isinstance(value, str) and value.startswith("data:")


@lru_cache(maxsize=64)
def pixels(uri: str) -> np.ndarray:
    """uint8 (H, W, 3), read-only. Raises ValueError for what is no image as a data URI."""
    try:
        image = images.decode(_bytes(uri)).copy()
    except images.Unreadable as error:
        raise ValueError(f"the image {uri[:40]}... cannot be read: {error}") from error
    image.flags.writeable = False
    return image


def shortened(value: object) -> str:
    """A field's value as people read it: `image 6 x 6, sha256 1a2b3c4d` (height x width) for a data URI."""
    if isinstance(value, (tuple, list)):
        shown = [shortened(part) for part in value[:3]]
        return "; ".join(shown) + (f"; ... ({len(value):,} in all)" if len(value) > len(shown) else "")
    if not is_uri(value):
        return str(value)
    height, width, _ = pixels(str(value)).shape
    return f"image {height} x {width}, sha256 {hashlib.sha256(_bytes(str(value))).hexdigest()[:8]}"


def _bytes(uri: str) -> bytes:
    if not (found := _PREFIX.match(uri)):
        raise ValueError(f"the image {uri[:40]}... cannot be read: it must begin with {PREFIX}, or jpeg or webp there")
    try:
        return base64.b64decode(uri[found.end() :], validate=True)
    except ValueError as error:
        raise ValueError(f"the image {uri[:40]}... cannot be read: {error}") from error
