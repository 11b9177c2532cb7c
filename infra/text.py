"""Text that people write, read in one way: UTF-8, a byte order mark in front or none, lines that end in a newline.

`str.splitlines` would also break at U+2028, U+0085 and form feeds, which stand inside captions of the web.
"""

import codecs
from collections.abc import Iterator

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decoded(data: bytes, place: str) -> str:
    """The whole text, without a byte order mark. Raises ValueError that names the file and the line."""
    return "\n".join(_each(data, place))


def lines(data: bytes, place: str) -> Iterator[str]:
    """Line by line, without their ends (`\\n` or `\\r\\n`). A blank one is a line too; after the last end is none.

    Raises ValueError that names the file and the line at the first bytes that are no UTF-8.
    """
    stripped = data.removeprefix(codecs.BOM_UTF8)
    ended = stripped.removesuffix(b"\n")
    return (line.removesuffix("\r") for line in _each(ended, place)) if stripped else iter(())


def _each(data: bytes, place: str) -> Iterator[str]:
    """A line at a time: the whole of a large table would take four bytes a letter for one emoji in it."""
    if data.startswith(_UTF16):
        raise ValueError(f"{place} is UTF-16 and not UTF-8: convert it with iconv -f UTF-16 -t UTF-8 FILE > NEW")
    for number, line in enumerate(data.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{place}, line {number}: not UTF-8 ({error.reason} at byte {error.start}); convert it with "
                "iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW, or from whatever it was written in"
            ) from error
