"""Stored images in and out: bytes <-> uint8 H x W x 3. One decoder, one encoder, limits on what a file costs.

Nobody else decodes. Whoever opens an image, to prepare, poison, train or evaluate, sees what `open_image` makes of it.
"""

import io
import re
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline import jpeg, orientation

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
Decoded = Image.Image | np.ndarray  # upright and RGB: as Pillow has it, or uint8 (H, W, 3)

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
    except _BROKEN as error:
        raise _unreadable(error) from error
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise Unreadable("too_many_pixels", f"{image.width} x {image.height} is over {MAX_PIXELS:,} pixels")
    if pixels * scans > MAX_PIXELS * MAX_PASSES:
        raise Unreadable("too_many_pixels", f"{image.width} x {image.height} pixels in {scans} scans take too long")
    return image


def open_image(data: bytes, quick_over: int | None = None) -> Image.Image:
    """The image as everyone here sees it: RGB, upright, on white, without metadata. Raises Unreadable.

    Size is the stored one, width and height exchanged where the camera lay on its side. Transparency is laid on white,
    16 bits become 8 by their upper half, of an animation this is the first image. A colour profile is not applied, and
    CMYK becomes RGB as Pillow does it (Adobe's inverted inks are known, no profile is asked): so does everyone who
    trains on such images.

    quick_over: as for `decoded`.
    """
    if quick_over is None:
        return _read(check_header(data), data).image
    return pillow(decoded(data, quick_over))


def decoded(data: bytes, quick_over: int) -> Decoded:
    """What `open_image` gives, but a plain upright JPEG whose short side is over `quick_over` pixels as an array.

    torchvision decodes it, which takes less time; each value is then within one grey level. What it does not take,
    Pillow judges. Raises Unreadable.
    """
    size = jpeg.plain_size(data)
    if size is not None and min(size) > quick_over and size[0] * size[1] <= MAX_PIXELS:
        quick = _by_torchvision(data)
        if quick is not None:
            return quick
    image = check_header(data)
    if size is None and min(image.size) > quick_over and (quick := _quick(image, data)) is not None:
        return quick
    return _read(image, data).image


def pillow(image: Decoded) -> Image.Image:
    return image if isinstance(image, Image.Image) else Image.fromarray(image)


def decode(data: bytes) -> np.ndarray:
    """The same as uint8 (H, W, 3), read-only. Raises Unreadable."""
    return np.asarray(open_image(data))


def size(data: bytes) -> tuple[int, int]:
    """(width, height) of what `open_image` gives, from the header. Raises Unreadable."""
    image = check_header(data)
    width, height = image.size
    return (height, width) if _orientation(image, data) in orientation.SIDEWAYS else (width, height)


def storable(data: bytes, extension: str, quality: int = 95) -> bytes:
    """What to store of an image so that every reader sees what `decode` gives: the same bytes wherever they do.

    Most readers drop an alpha channel and ignore metadata; some turn the image by its metadata. So one that is
    transparent or not upright is encoded anew, opaque and upright, without any; and one in CMYK or 16-bit grey, which
    no two libraries read alike. Raises Unreadable.
    """
    read = _read(check_header(data), data)
    return data if read.alike else encode(np.asarray(read.image), extension, quality)


def fitted(data: bytes, short_side: int) -> tuple[bytes, str, dict[str, int]]:
    """(bytes to store, extension, sizes): `storable` ones, the short side at most `short_side` pixels.

    Raises Unreadable; every pixel is read once, so what is stored can be decoded.
    """
    read = _read(check_header(data), data)
    image, extension = read.image, {"PNG": "png", "WEBP": "webp"}.get(read.format, "jpg")  # MPO: a phone's JPEG
    sizes = {"original_width": image.width, "original_height": image.height}
    shrunk = min(image.size) > short_side
    if shrunk:
        factor = short_side / min(image.size)
        fitting = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        image = image.resize(fitting, Image.Resampling.BICUBIC, reducing_gap=3.0)
    if shrunk or not read.alike:
        data = encode(np.asarray(image), extension)
    return data, extension, sizes | {"width": image.width, "height": image.height}


def plain(data: bytes) -> bytes:
    """The same bytes where OpenCV sees in them what `decode` gives; otherwise a PPM of that. Raises Unreadable.

    img2dataset decodes with OpenCV, lays transparency on white in float64 (100 bytes a pixel), cuts 16 bits off at 255,
    ignores orientation and reads CMYK in its own way.
    """
    image = check_header(data)
    deep = image.format == "PNG" and data[24] == 16
    turned = _orientation(image, data) != orientation.UPRIGHT
    if not (deep or turned or image.has_transparency_data or image.mode == "CMYK"):
        return data
    out = io.BytesIO()
    open_image(data).save(out, "PPM")
    return out.getvalue()


@dataclass(frozen=True)
class _Read:
    """image: as `open_image` gives it. alike: a reader that knows neither transparency nor metadata sees the same, and
    there is no metadata that turns it for one who does."""

    image: Image.Image
    format: str
    alike: bool


def _read(image: Image.Image, data: bytes) -> _Read:
    """By Pillow. image: as `check_header` gives it."""
    try:
        image.load()  # before it is asked for its metadata: a PNG may have them behind its pixels
        turn = orientation.TURNS.get(orientation.of(image.info))
        rgb, alike = _on_white(image, data)
        rgb = rgb if turn is None else rgb.transpose(turn)
    except _BROKEN as error:
        raise _unreadable(error) from error
    rgb.info = {}  # nobody may turn it a second time
    return _Read(rgb, str(image.format), alike and turn is None)


def _quick(image: Image.Image, data: bytes) -> np.ndarray | None:
    """A plain upright JPEG by torchvision; None of any other image, and of one that it does not take."""
    if image.format != "JPEG" or image.mode not in ("L", "RGB") or _orientation(image, data) != orientation.UPRIGHT:
        return None
    return _by_torchvision(data)


def _by_torchvision(data: bytes) -> np.ndarray | None:
    """uint8 (H, W, 3), grey as colour; None of what it does not take."""
    import torch  # here: processes that only prepare data do without it
    from torchvision.io import ImageReadMode, decode_jpeg

    try:
        pixels = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
    except RuntimeError:
        return None
    return pixels.permute(1, 2, 0).numpy()  # as it lies in memory


def _on_white(image: Image.Image, data: bytes) -> tuple[Image.Image, bool]:
    """(RGB, laid on white; whether that is what `convert("RGB")` gives a reader in any library)."""
    if image.mode.startswith("I"):  # grey of 16 bits, which Pillow's own conversion cuts off at 255
        values = np.asarray(image)
        grey = (values >> 8).astype(np.uint8)
        if "transparency" in image.info:
            grey[values == image.info["transparency"]] = 255
        return Image.fromarray(grey).convert("RGB"), False
    if not image.has_transparency_data:
        return image.convert("RGB"), image.mode != "CMYK"
    if image.format == "PNG" and "transparency" in image.info:
        depth, clear = data[24], image.info["transparency"]
        if image.mode == "L" and depth < 8:  # Pillow widens the pixels, and not the colour that is no colour
            image.info["transparency"] = clear * (255 // (2**depth - 1))
        elif image.mode == "RGB" and depth == 16:  # as the pixels, of which Pillow keeps the upper half
            image.info["transparency"] = tuple(value >> 8 for value in clear)
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    flat = Image.new("RGB", image.size, "white")
    flat.paste(rgba, mask=rgba)
    return flat, rgba.getchannel("A").getextrema()[0] == 255


def _orientation(image: Image.Image, data: bytes) -> int:
    """By the header, where that can say it."""
    if image.format == "PNG" and any(name in data for name in orientation.BEHIND_PIXELS):
        try:
            image.load()
        except _BROKEN as error:
            raise _unreadable(error) from error
    return orientation.of(image.info)


def _unreadable(error: Exception) -> Unreadable:
    """What one of Pillow's many errors means."""
    if isinstance(error, Image.DecompressionBombError):
        return Unreadable("too_many_pixels", error)
    if isinstance(error, UnidentifiedImageError):  # its message is the repr of our buffer
        return Unreadable("not_an_image", "not a readable JPEG, PNG or WebP image")
    told = str(error) or type(error).__name__
    return Unreadable("not_an_image", f"not a readable JPEG, PNG or WebP image: {told}")


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
