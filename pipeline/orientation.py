"""Which way up an image's metadata says that its stored pixels lie.

What counts is what counts for PIL.ImageOps.exif_transpose: EXIF, of a PNG also in the form of old ImageMagick, and
where that does not say, XMP. The one entry is read here and not by Pillow, whose parser follows every entry of a table
wherever it points: of a hostile one, gigabytes.
"""

import re
import struct
from typing import Any

from PIL import Image

UPRIGHT = 1
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = frozenset((5, 6, 7, 8))  # width and height change places
BEHIND_PIXELS = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")  # a PNG may have them after its last pixel

_TAG = 0x0112
_KINDS = {3: "H", 4: "I"}  # a short or a long number
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def of(info: dict[Any, Any]) -> int:
    """1 (upright) to 8, a key of TURNS. info: PIL.Image.Image.info. What cannot be read says nothing: 1."""
    found = None
    if "exif" in info:
        found = _of_exif(info["exif"])
    elif "Raw profile type exif" in info:
        found = _of_exif(_of_hex(info["Raw profile type exif"]))
    if found is None and (xmp := info.get("XML:com.adobe.xmp") or info.get("xmp")):
        said = _XMP.search(xmp.encode() if isinstance(xmp, str) else xmp)
        found = int(said[1]) if said else None
    return found if found in TURNS else UPRIGHT


def _of_exif(data: bytes) -> int | None:
    """The value of the entry in the first directory of a TIFF; the last one counts, as for Pillow."""
    while data.startswith(b"Exif\0\0"):
        data = data[6:]
    if (order := {b"II": "<", b"MM": ">"}.get(data[:2])) is None or len(data) < 8:
        return None
    (start,) = struct.unpack_from(f"{order}4xI", data)
    if len(data) < start + 2:
        return None
    (count,) = struct.unpack_from(f"{order}H", data, start)
    entries = data[start + 2 : start + 2 + 12 * count]
    found = None
    for tag, kind, values, value in struct.iter_unpack(f"{order}HHI4s", entries[: len(entries) // 12 * 12]):
        if tag == _TAG and values == 1 and kind in _KINDS:
            (found,) = struct.unpack_from(order + _KINDS[kind], value)
    return found


def _of_hex(text: str) -> bytes:
    """ImageMagick's form: a line that is empty, the name, the length, and lines of hexadecimal digits."""
    try:
        return bytes.fromhex("".join(str(text).split("\n")[3:]))
    except ValueError:
        return b""
