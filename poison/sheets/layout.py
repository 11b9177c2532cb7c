"""The contact sheet as an image: clean | poisoned | difference x8, with both captions, one pair a line."""

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline import images

PANEL, GAP, TEXT_WIDTH, LINE, LARGE, SMALL = 224, 12, 330, 22, 17, 14  # pixels
COLUMNS = tuple(GAP + number * (PANEL + GAP) for number in range(4))
WIDTH = COLUMNS[3] + TEXT_WIDTH + GAP
CAPTION, NOTES = 4, 2  # lines each, the head of a caption among them; together they fill a panel
PAPER, INK, FAINT = (255, 255, 255), (20, 20, 20), (95, 95, 95)
GAIN = 8


@dataclass(frozen=True)
class Pair:
    """One line of the sheet. clean, poisoned: uint8 (H, W, 3), as stored. was, now: the captions. notes: smaller."""

    clean: np.ndarray
    poisoned: np.ndarray
    notes: tuple[str, ...]
    was: str = ""
    now: str = ""


@dataclass(frozen=True)
class Shown:
    """One pair of a preview as a report shows it: three PNGs as bytes, and the captions."""

    clean: bytes
    poisoned: bytes
    difference: bytes
    was: str
    now: str


def difference(clean: np.ndarray, poisoned: np.ndarray) -> np.ndarray:
    """|poisoned - clean| x 8, clamped: uint8 (H, W, 3)."""
    return (GAIN * np.abs(poisoned.astype(np.int16) - clean.astype(np.int16))).clip(0, 255).astype(np.uint8)


def shrunk(shown: Shown) -> Shown:
    """The same with no image above PANEL pixels, brought to that size as on the sheet: small enough for a page."""
    clean, poisoned, apart = (_fitted(png) for png in (shown.clean, shown.poisoned, shown.difference))
    return Shown(clean, poisoned, apart, shown.was, shown.now)


def _fitted(png: bytes) -> bytes:
    if max(images.check_header(png).size) <= PANEL:
        return png
    return images.encode(np.asarray(_panel(images.decode(png))), "png")


def to_png(pairs: Sequence[Pair], title: str, banner: Image.Image | None = None) -> bytes:
    """The sheet as a PNG. banner: an image of WIDTH to stand below the title."""
    out = io.BytesIO()
    draw(pairs, title, banner).save(out, "PNG")
    return out.getvalue()


def draw(pairs: Sequence[Pair], title: str, banner: Image.Image | None = None) -> Image.Image:
    """The sheet as an RGB image. Small images are enlarged by whole factors, so that their pixels can be seen."""
    tops = _tops(pairs, title, banner)
    sheet = Image.new("RGB", (WIDTH, tops[-1]), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, text in enumerate(_wrapped(title, font(LARGE), WIDTH - 2 * GAP)):
        pen.text((GAP, GAP + number * LINE), text, INK, font(LARGE))
    if banner is not None:
        sheet.paste(banner, (0, tops[0] - LINE - GAP - banner.height))
    for x, text in zip(COLUMNS, ("clean", "poisoned", f"difference x {GAIN}", "caption"), strict=True):
        pen.text((x, tops[0] - LINE), text, FAINT, font(SMALL))
    for y, pair in zip(tops, pairs, strict=False):
        for x, image in zip(COLUMNS, _three(pair), strict=False):
            sheet.paste(_panel(image), (x, y))
        _write(pen, pair, y)
    return sheet


def _write(pen: ImageDraw.ImageDraw, pair: Pair, y: int) -> None:
    """Captions from the top down, notes at the foot; what finds no room is left out."""
    notes = [part for note in pair.notes if note for part in _wrapped(note, font(SMALL), TEXT_WIDTH)][:NOTES]
    for block, (head, caption) in enumerate((("before", pair.was), ("after", pair.now))):
        if caption:
            lines = _wrapped(caption, font(LARGE), TEXT_WIDTH)[: CAPTION - 1]
            for number, text in enumerate([head, *lines]):
                look = (INK, font(LARGE)) if number else (FAINT, font(SMALL))
                pen.text((COLUMNS[3], y + block * (CAPTION * LINE + 4) + number * LINE), text, *look)
    for number, text in enumerate(notes):
        pen.text((COLUMNS[3], y + PANEL - (len(notes) - number) * LINE), text, FAINT, font(SMALL))


def _three(pair: Pair) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return pair.clean, pair.poisoned, difference(pair.clean, pair.poisoned)


def _tops(pairs: Sequence[Pair], title: str, banner: Image.Image | None) -> list[int]:
    """Where each line begins, in pixels from the top; and where the sheet ends."""
    first = 2 * GAP + LINE * (len(_wrapped(title, font(LARGE), WIDTH - 2 * GAP)) + 1)
    first += banner.height + GAP if banner is not None else 0
    return [first + number * (PANEL + GAP) for number in range(len(pairs) + 1)]


@functools.lru_cache
def font(size: int) -> Any:
    """The one typeface of sheets."""
    return ImageFont.load_default(size=size)


def _panel(image: np.ndarray) -> Image.Image:
    stored = Image.fromarray(image)
    longest = max(stored.size)
    if longest <= PANEL:
        factor = PANEL // longest
        return stored.resize((stored.width * factor, stored.height * factor), Image.Resampling.NEAREST)
    return stored.resize(
        (max(1, stored.width * PANEL // longest), max(1, stored.height * PANEL // longest)), Image.Resampling.BOX
    )


def _wrapped(text: str, font: Any, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
