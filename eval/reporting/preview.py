"""The contact sheet of `preview`, as a report shows it. Nothing else of the report knows how a sheet is kept."""

from collections.abc import Sequence
from dataclasses import dataclass

from infra import storage
from poison.sheets import layout
from poison.sheets.layout import Shown


@dataclass(frozen=True)
class Preview:
    """pairs: what it shows, pair by pair. whole: the sheet as a PNG, for one of which no pairs are known."""

    pairs: Sequence[Shown]
    whole: bytes


def read(url: str) -> Preview:
    """Raises ValueError where there is no sheet, or one that is damaged."""
    if not storage.exists(url):
        raise ValueError(f"no contact sheet at {url}: make it with preview, or leave --preview out")
    data = storage.read(url)
    if not data.startswith(b"\x89PNG\r\n"):
        raise ValueError(f"{url} is not a PNG image")
    return cut(data)


def cut(sheet: bytes) -> Preview:
    """sheet: PNG."""
    return Preview(layout.cut(sheet), sheet)
