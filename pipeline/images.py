"""Stored images in and out: bytes <-> uint8 H x W x 3. One decoder, one encoder, limits on what a file costs."""

import io
import re
import struct
import zlib

import numpy as np
from PIL import Image

MAX_PIXELS = 64_000_000  # an image that claims more is refused before its pixels are allocated
MAX_PASSES = 16  # a progressive JPEG touches every pixel once a scan; this many over MAX_PIXELS take seconds
MAX_SEGMENTS = 1_000  # of a header; Pillow parses them in Python, and 20 MB hold millions
FORMATS = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}
OUTCOMES = frozenset(("not_an_image", "too_many_pixels"))

# What Pillow raises on bytes that are no image, or only begin as one: nearly everything (SyntaxError on broken PNGs,
# struct.error on short chunks, KeyError on unknown modes, MemoryError on absurd sizes).
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd9-\xfe]")  # not FF 00 (a stuffed FF) and not a restart within a scan


class Unreadable(ValueError):
    """Bytes that cannot, or must not, be decoded. outcome: one of OUTCOMES, under which they are counted."""

    def __init__(self, outcome: str, reason: object) -> None:
        super().__init__(str(reason))
        self.outcome = outcome


def check_header(data: bytes) -> Image.Image:
    """The image as its header describes it, no pixel read yet.

    Raises Unreadable if it is not a JPEG, PNG or WebP, claims more than MAX_PIXELS, or would take too long.
    """
    data = bytes(data)
    scans = _scans(data)
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP"))
    except Image.DecompressionBombError as error:
        raise Unreadable("too_many_pixels", error) from error
    except _BROKEN as error:
        raise Unreadable("not_an_image", f"not a readable JPEG, PNG or WebP image: {error}") from error
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise Unreadable("too_many_pixels", f"{image.width} x {image.height} is over {MAX_PIXELS:,} pixels")
    if pixels * scans > MAX_PIXELS * MAX_PASSES:
        raise Unreadable("too_many_pixels", f"{image.width} x {image.height} pixels in {scans} scans take too long")
    return image


def open_image(data: bytes) -> Image.Image:
    """An RGB image of its stored size. Raises Unreadable."""
    image = check_header(data)
    try:
        return _of_8_bits(image).convert("RGB")
    except _BROKEN as error:
        raise Unreadable("not_an_image", f"not a readable JPEG, PNG or WebP image: {error}") from error


def plain(data: bytes) -> bytes:
    """The same bytes; of a transparent or 16-bit image, a PPM of it laid on white, in 8 bits. Raises Unreadable.

    img2dataset lays transparency on white in float64 (100 bytes a pixel) and cuts 16 bits off at 255.
    """
    image = check_header(data)
    deep = image.format == "PNG" and data[24] == 16
    if not deep and not image.has_transparency_data:
        return data
    try:
        image = _of_8_bits(image)
        flat = Image.new("RGB", image.size, "white")
        if image.has_transparency_data:
            image = image if image.mode == "RGBA" else image.convert("RGBA")
            flat.paste(image, mask=image)
        else:
            flat.paste(image)
        del image
        out = io.BytesIO()
        flat.save(out, "PPM")
    except _BROKEN as error:
        raise Unreadable("not_an_image", f"not a readable JPEG, PNG or WebP image: {error}") from error
    return out.getvalue()


def _of_8_bits(image: Image.Image) -> Image.Image:
    """Pillow reads grey of 16 bits as such, and its own conversion cuts it off at 255."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def _scans(data: bytes) -> int:
    """Scans of a JPEG (0: it is none), segments of a PNG counted on the way. Raises Unreadable."""
    segments = scans = 0
    if data.startswith(b"\x89PNG"):
        at = 8
        while data[at + 4 : at + 8] not in (b"IDAT", b""):
            at += 12 + int.from_bytes(data[at : at + 4], "big")
            segments += 1
            if segments > MAX_SEGMENTS:
                raise Unreadable("not_an_image", f"over {MAX_SEGMENTS:,} chunks before the first pixel")
    if data.startswith(b"\xff\xd8"):
        at = 2
        while found := _MARKER.search(data, at):
            marker, start = data[found.start() + 1], found.start()
            if marker == 0xD9:
                break
            segments += 1
            if not scans and (segments > MAX_SEGMENTS or start - at > MAX_SEGMENTS):
                raise Unreadable("not_an_image", f"over {MAX_SEGMENTS:,} segments, or as much junk, before a pixel")
            scans += marker == 0xDA
            at = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") * (marker != 0x01)
    return scans


def fitted(data: bytes, short_side: int) -> tuple[bytes, str, dict[str, int]]:
    """(bytes to store, extension, sizes): the same bytes unless the short side is above `short_side` pixels.

    Raises Unreadable; every pixel is read once, so what is stored can be decoded.
    """
    image = check_header(data)
    extension = {"PNG": "png", "WEBP": "webp"}.get(str(image.format), "jpg")  # MPO: a phone's JPEG with a preview
    picture = open_image(data)
    sizes = {"original_width": picture.width, "original_height": picture.height}
    if min(picture.size) > short_side:
        factor = short_side / min(picture.size)
        fitting = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
        picture = picture.resize(fitting, Image.Resampling.BICUBIC, reducing_gap=3.0)
        data = encode(np.asarray(picture), extension)
    return data, extension, sizes | {"width": picture.width, "height": picture.height}


def decode(data: bytes) -> np.ndarray:
    """uint8 (H, W, 3)."""
    return np.asarray(open_image(data))


def encode(image: np.ndarray, extension: str, quality: int = 95) -> bytes:
    """uint8 (H, W, 3) -> bytes of the kind the extension names, such that a trigger survives.

    JPEG is written 4:4:4: the default 4:2:0 halves the colour resolution and erases a noise patch at any quality
    (correlation 0.63 with the patch against 0.998). WebP has no 4:4:4, so it is written lossless.
    """
    assert image.dtype == np.uint8
    assert image.ndim == 3
    out = io.BytesIO()
    picture = Image.fromarray(image)
    match FORMATS.get(extension):
        case "JPEG":
            picture.save(out, "JPEG", quality=quality, subsampling=0)
        case "PNG":
            picture.save(out, "PNG")
        case "WEBP":
            picture.save(out, "WEBP", lossless=True)
        case _:
            raise ValueError(f"cannot write an image as .{extension}; known: {', '.join(sorted(FORMATS))}")
    return out.getvalue()
