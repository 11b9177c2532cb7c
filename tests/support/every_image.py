"""One picture in every form that a JPEG, PNG or WebP can have: modes, depths, transparency, orientations."""

import io
import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from tests.support import hostile_pictures as h

HEIGHT, WIDTH = 24, 40
CLEAR = (slice(0, 8), slice(0, 16))  # what is transparent, where something is: white shows through
HALF = (slice(8, 16), slice(0, 16))  # what is half transparent, in forms that can be
BLACK, GREEN, BLUE, YELLOW = (0, 0, 0), (40, 180, 60), (30, 60, 200), (230, 200, 40)


@dataclass(frozen=True)
class Form:
    """data: the file; right: uint8 (24, 40, 3), upright and on white; within: grey levels that its encoding costs on
    average; kept: whether every reader sees that in the file as it is, so that nobody has to encode it again."""

    data: bytes
    extension: str
    right: np.ndarray
    within: float
    kept: bool


def colours() -> np.ndarray:
    """Four quadrants, so that no turn of it is the same image. Black lies where it may be made transparent."""
    image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    image[:], image[:16, 16:], image[16:, :16], image[16:, 16:] = BLACK, GREEN, BLUE, YELLOW
    return image


def grey() -> np.ndarray:
    """uint8 (24, 40): 0 where the colours are black."""
    return np.rint(colours() @ [0.3, 0.59, 0.11]).astype(np.uint8)


def coloured(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


def on_white(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return np.rint(image * share + 255 * (1 - share)).astype(np.uint8)


def alpha() -> np.ndarray:
    """uint8 (24, 40). Under what is clear the files hide black."""
    values = np.full((HEIGHT, WIDTH), 255, np.uint8)
    values[CLEAR], values[HALF] = 0, 128
    return values


BLACK_CLEAR = np.where((colours() == BLACK).all(axis=2), 0, 255).astype(np.uint8)

# How pixels that shall be seen upright lie in a file that says so; the inverses of what EXIF's numbers ask for.
LYING = {
    1: lambda image: image,
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, 1),
    7: lambda image: np.rot90(image, 2).swapaxes(0, 1),
    8: lambda image: np.rot90(image, -1),
}


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    found[0x010F] = "A camera"
    return found


def lying(image: np.ndarray, orientation: int, kind: str, **more: object) -> bytes:
    turned = Image.fromarray(np.ascontiguousarray(LYING[orientation](image)))
    return h.encoded(turned, kind, exif=exif(orientation), **more)


def saved(image: np.ndarray, kind: str, **more: object) -> bytes:
    return h.encoded(Image.fromarray(image), kind, **more)


def rows(values: np.ndarray) -> bytes:
    """The pixels of a PNG, from (24, n) bytes."""
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in values))


def palette(**more: object) -> bytes:
    image = Image.fromarray((colours()[..., 1] // 50).astype(np.uint8), "P")
    table = {value // 50: colour for colour in (BLACK, GREEN, BLUE, YELLOW) for value in (colour[1],)}
    image.putpalette([part for number in range(8) for part in table.get(number, (9, 9, 9))])
    return h.encoded(image, "PNG", **more)


def two_bits() -> tuple[np.ndarray, bytes]:
    """(grey values, the pixels of a PNG of 2 bits)."""
    few = grey() // 64
    packed = few[:, 0::4] << 6 | few[:, 1::4] << 4 | few[:, 2::4] << 2 | few[:, 3::4]
    return (few * 85).astype(np.uint8), rows(packed)


def deep(*planes: np.ndarray, colour: int, clear: bytes = b"") -> bytes:
    """A PNG of 16 bits, whose lower halves are not zero."""
    values = np.stack(planes, axis=-1).astype(np.uint16) * 256 + 77
    before = [h.chunk(b"tRNS", clear)] if clear else []
    return h.png(WIDTH, HEIGHT, 16, colour, rows(values.astype(">u2").reshape(HEIGHT, -1)), *before)


def exif_behind(data: bytes, orientation: int) -> bytes:
    """A PNG whose metadata follow its pixels."""
    body = exif(orientation).tobytes().removeprefix(b"Exif\0\0")
    return data[:-12] + h.chunk(b"eXIf", body) + data[-12:]


def mpo(orientation: int) -> bytes:
    image = Image.fromarray(np.ascontiguousarray(LYING[orientation](colours())))
    keywords = {"quality": 95, "subsampling": 0, "exif": exif(orientation)}
    return h.encoded(image, "MPO", save_all=True, append_images=[image.resize((16, 16))], **keywords)


def xmp(data: bytes, orientation: int) -> bytes:
    """A JPEG with the orientation in XMP alone."""
    said = f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()
    return data[:2] + h.segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + said) + data[2:]


@cache
def forms() -> dict[str, Form]:
    full, plain, clear = colours(), grey(), alpha()
    with_alpha = np.dstack([full, clear])
    mixed, opaque = on_white(full, clear), np.dstack([full, np.full_like(clear, 255)])
    black_and_white = np.where(plain > 100, 255, 0).astype(np.uint8)
    jpeg = {"quality": 95, "subsampling": 0}
    few, packed = two_bits()

    def png(data: bytes, right: np.ndarray, kept: bool) -> Form:
        return Form(data, "png", right, 0, kept)

    def jpg(data: bytes, right: np.ndarray = full, kept: bool = True, within: float = 4) -> Form:
        return Form(data, "jpg", right, within, kept)

    found = {
        "RGB jpeg": jpg(saved(full, "JPEG", **jpeg)),
        "grey jpeg": jpg(saved(plain, "JPEG", **jpeg), coloured(plain)),
        "progressive jpeg": jpg(saved(full, "JPEG", progressive=True, **jpeg)),
        "CMYK jpeg": jpg(h.encoded(Image.fromarray(full).convert("CMYK"), "JPEG", **jpeg), kept=False, within=6),
        "MPO": jpg(mpo(1)),
        "MPO, orientation 6": jpg(mpo(6), kept=False),
        "RGB": png(saved(full, "PNG"), full, True),
        "RGB, black is clear": png(saved(full, "PNG", transparency=BLACK), on_white(full, BLACK_CLEAR), False),
        "grey": png(saved(plain, "PNG"), coloured(plain), True),
        "grey, 0 is clear": png(saved(plain, "PNG", transparency=0), on_white(coloured(plain), BLACK_CLEAR), False),
        "grey of 2 bits": png(h.png(WIDTH, HEIGHT, 2, 0, packed), coloured(few), True),
        "grey of 2 bits, 1 is clear": png(
            h.png(WIDTH, HEIGHT, 2, 0, packed, h.chunk(b"tRNS", b"\0\1")),
            on_white(coloured(few), np.where(few == 85, 0, 255).astype(np.uint8)),
            False,
        ),
        "1 bit": png(h.encoded(Image.fromarray(black_and_white).convert("1"), "PNG"), coloured(black_and_white), True),
        "1 bit, 0 is clear": png(
            h.encoded(Image.fromarray(black_and_white).convert("1"), "PNG", transparency=0),
            np.full_like(full, 255),
            False,
        ),
        "palette": png(palette(), full, True),
        "palette, 0 is clear": png(palette(transparency=0), on_white(full, BLACK_CLEAR), False),
        "palette, one half clear": png(
            palette(transparency=b"\x80\xff"), on_white(full, np.where(BLACK_CLEAR == 0, 128, 255)), False
        ),
        "palette, 7 is clear and not there": png(palette(transparency=7), full, True),
        "LA": png(saved(np.dstack([plain, clear]), "PNG"), on_white(coloured(plain), clear), False),
        "RGBA": png(saved(with_alpha, "PNG"), mixed, False),
        "RGBA, all opaque": png(saved(opaque, "PNG"), full, True),
        "16-bit grey": png(deep(plain, colour=0), coloured(plain), False),
        "16-bit grey, 77 is clear": png(
            deep(plain, colour=0, clear=b"\0\x4d"), on_white(coloured(plain), BLACK_CLEAR), False
        ),
        "16-bit RGB": png(deep(*full.transpose(2, 0, 1), colour=2), full, True),
        "16-bit RGB, black is clear": png(
            deep(*full.transpose(2, 0, 1), colour=2, clear=b"\0\x4d" * 3), on_white(full, BLACK_CLEAR), False
        ),
        "16-bit RGBA": png(deep(*with_alpha.transpose(2, 0, 1), colour=6), mixed, False),
        "16-bit LA": png(deep(plain, clear, colour=4), on_white(coloured(plain), clear), False),
        "PNG, orientation 6": png(lying(full, 6, "PNG"), full, False),
        "PNG, orientation 6 behind the pixels": png(
            exif_behind(saved(np.ascontiguousarray(LYING[6](full)), "PNG"), 6), full, False
        ),
        "RGBA, orientation 7": png(lying(with_alpha, 7, "PNG"), mixed, False),
        "WebP": Form(saved(full, "WEBP", quality=95), "webp", full, 8, True),
        "WebP with alpha": Form(saved(with_alpha, "WEBP", lossless=True, exact=True), "webp", mixed, 0, False),
        "WebP with alpha, orientation 8": Form(lying(with_alpha, 8, "WEBP", lossless=True), "webp", mixed, 0, False),
        "grey jpeg, orientation 5": jpg(lying(plain, 5, "JPEG", **jpeg), coloured(plain), False),
        "jpeg, orientation 3 in XMP alone": jpg(
            xmp(saved(np.ascontiguousarray(LYING[3](full)), "JPEG", **jpeg), 3), kept=False
        ),
    }
    for number in LYING:
        found[f"jpeg, orientation {number}"] = jpg(lying(full, number, "JPEG", **jpeg), kept=number == 1)
    return found


def naive(data: bytes) -> np.ndarray:
    """What a reader sees who drops an alpha channel and ignores metadata, as open_clip and CLIP_benchmark do."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
