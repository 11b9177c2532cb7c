"""Images that no camera takes: bombs, cuts, rare kinds and polyglots, made byte by byte or with Pillow."""

import io
import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image

PAYLOAD = b"<script>HOSTILE-PAYLOAD</script>"  # must never be stored
SIDE = 50_000


def picture(side: int = 32, bands: int = 3) -> Image.Image:
    down, along = np.mgrid[:side, :side]
    values = np.stack([(3 * along + down) % 256, (5 * down) % 256, (along + 2 * down) % 256, along % 256], -1)
    return Image.fromarray(values[..., :bands].astype(np.uint8))


def encoded(image: Image.Image, kind: str, **keywords: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **keywords)
    return out.getvalue()


@cache
def jpeg(**keywords: object) -> bytes:
    return encoded(picture(), "JPEG", **keywords)


# JPEG by hand


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def frame(kind: int, width: int, height: int, components: int) -> bytes:
    parts = b"".join(bytes([number + 1, 0x11, 0]) for number in range(components))
    return segment(0xC0 + kind, struct.pack(">BHHB", 8, height, width, components) + parts)


def table(slot: int, symbol: int) -> bytes:
    """A Huffman table of one symbol, written 0."""
    return segment(0xC4, bytes([slot, 1, *[0] * 15, symbol]))


def scan(components: list[int], first: int, last: int, data: bytes) -> bytes:
    chosen = b"".join(bytes([number, 0]) for number in components)
    return segment(0xDA, bytes([len(components)]) + chosen + bytes([first, last, 0])) + data


QUANTISATION = segment(0xDB, bytes([0]) + bytes([1]) * 64)


@cache
def grey_jpeg(side: int) -> bytes:
    """A sound grey image: two bits a block."""
    blocks = (-(-side // 8)) ** 2
    head = b"\xff\xd8" + QUANTISATION + frame(0, side, side, 1) + table(0x00, 0) + table(0x10, 0)
    return head + scan([1], 0, 63, bytes(-(-2 * blocks // 8))) + b"\xff\xd9"


@cache
def progressive_jpeg(side: int, scans: int) -> bytes:
    """A sound progressive image of three components: one scan for the constant parts, `scans` that say "all zero"."""
    blocks = (-(-side // 8)) ** 2
    head = b"\xff\xd8" + QUANTISATION + frame(2, side, side, 3) + table(0x00, 0) + table(0x10, 0xE0)
    runs = ("0" + "1" * 14) * (-(-blocks // 32767))
    bits = runs + "1" * (-len(runs) % 8)
    empty = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    scans_of_all = [scan([1, 2, 3], 0, 0, bytes(-(-3 * blocks // 8)))]
    scans_of_all += [scan([1 + number % 3], 1, 63, empty) for number in range(scans)]
    return head + b"".join(scans_of_all) + b"\xff\xd9"


def with_segments(*segments: bytes) -> bytes:
    return jpeg()[:2] + b"".join(segments) + jpeg()[2:]


def resized_header(data: bytes, width: int, height: int) -> bytes:
    """The same JPEG, claiming another size."""
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def cut_jpeg() -> dict[str, bytes]:
    data = jpeg()
    start = data.index(b"\xff\xda")
    places = {
        "after SOI": 2,
        "inside APP0": 9,
        "after APP0": 20,
        "inside SOF": data.index(b"\xff\xc0") + 6,
        "before SOS": start,
        "inside SOS": start + 6,
        "inside the scan": (start + len(data)) // 2,
        "before EOI": len(data) - 2,
    }
    return {name: data[:place] for name, place in places.items()}


# PNG by hand


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def deflated(block: bytes, times: int) -> bytes:
    squeeze = zlib.compressobj(1)
    return b"".join(squeeze.compress(block) for _ in range(times)) + squeeze.flush()


def png(
    width: int, height: int, depth: int, colour: int, pixels: bytes, *before: bytes, tail: bytes = b"", laced: int = 0
) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, laced))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + chunk(b"IDAT", pixels) + tail + chunk(b"IEND")


@cache
def zeros_png(side: int, depth: int, colour: int) -> bytes:
    """A sound image of zeros, however large: real compressed data."""
    bands = {0: 1, 2: 3, 6: 4}[colour]
    return png(side, side, depth, colour, deflated(bytes(1 + -(-side * bands * depth // 8)), side))


def small_png(*before: bytes, tail: bytes = b"") -> bytes:
    return png(32, 32, 8, 2, zlib.compress((b"\0" + bytes(range(96))) * 32), *before, tail=tail)


def interlaced_png() -> bytes:
    """32 x 32 grey, Adam7: seven small images of zeros."""
    starts = ((0, 0), (4, 0), (0, 4), (2, 0), (0, 2), (1, 0), (0, 1))
    steps = ((8, 8), (8, 8), (4, 8), (4, 4), (2, 4), (2, 2), (1, 2))
    rows = b""
    for (left, top), (step_x, step_y) in zip(starts, steps, strict=True):
        wide, high = -(-(32 - left) // step_x), -(-(32 - top) // step_y)
        rows += (b"\0" + bytes(wide)) * high
    return png(32, 32, 8, 0, zlib.compress(rows), laced=1)


def animated_png(frames: int) -> bytes:
    pixels = zlib.compress((b"\0" + bytes(96)) * 32)
    after, number = b"", 1
    for _ in range(frames - 1):
        after += chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, 32, 32, 0, 0, 1, 100, 0, 0))
        after += chunk(b"fdAT", struct.pack(">I", number + 1) + pixels)
        number += 2
    control = chunk(b"acTL", struct.pack(">II", frames, 0))
    first = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 32, 32, 0, 0, 1, 100, 0, 0))
    return png(32, 32, 8, 2, pixels, control, first, tail=after)


def sixteen_bits(bands: int) -> bytes:
    values = np.asarray(picture())[..., :bands].astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    return png(32, 32, 16, {1: 0, 3: 2}[bands], zlib.compress(rows))


# The others


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def three(number: int) -> bytes:
    return number.to_bytes(3, "little")


def animated_webp(frames: int) -> bytes:
    still = encoded(picture(), "WEBP", quality=50)[12:]
    one = three(0) + three(0) + three(31) + three(31) + three(40) + b"\0" + still
    canvas = b"\x02\0\0\0" + three(31) + three(31)
    return riff((b"VP8X", canvas), (b"ANIM", bytes(6)), *[(b"ANMF", one)] * frames)


def wide_webp(side: int) -> bytes:
    still = encoded(picture(), "WEBP", quality=50)
    return riff((b"VP8X", b"\0\0\0\0" + three(side - 1) + three(side - 1)), (b"VP8 ", still[20:]))


def lossless_webp(side: int) -> bytes:
    bits = (side - 1) | (side - 1) << 14
    return riff((b"VP8L", b"\x2f" + struct.pack("<I", bits) + bytes(16)))


def animated_gif(frames: int) -> bytes:
    data = encoded(picture().convert("P"), "GIF")
    start = data.index(b",", 13 + 3 * 2 ** ((data[10] & 7) + 1))
    return data[:start] + data[start:-1] * frames + b";"


def wide_gif(side: int) -> bytes:
    data = encoded(picture().convert("P"), "GIF")
    return data[:6] + struct.pack("<HH", side, side) + data[10:]


def wide_tiff(side: int) -> bytes:
    tags = ((256, side), (257, side), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, side), (279, 100))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(tags)) + entries + bytes(104)


def icon(inside: bytes) -> bytes:
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(inside), 22) + inside


def exif(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    """An APP1 segment; entries: tag, type, count, value."""
    body = b"".join(struct.pack(">HHII", *entry) for entry in entries)
    directory = struct.pack(">H", len(entries)) + body + struct.pack(">I", following)
    return segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08" + directory)
