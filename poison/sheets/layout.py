"""The contact sheet as an image: clean | poisoned | difference x8, with both captions, one pair a line.

The PNG also says, as text inside it, where each image lies and which captions stand beside it: a report cuts it up
and shows the captions as text, where a whole sheet would be too wide for a phone and too high for a page.
"""

import functools
import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from pipeline import images

PANEL, GAP, TEXT_WIDTH, LINE, LARGE, SMALL = 224, 12, 330, 22, 17, 14  # pixels
COLUMNS = tuple(GAP + number * (PANEL + GAP) for number in range(4))
WIDTH = COLUMNS[3] + TEXT_WIDTH + GAP
CAPTION, NOTES = 4, 2  # lines each, the head of a caption among them; together they fill a panel
PAPER, INK, FAINT = (255, 255, 255), (20, 20, 20), (95, 95, 95)
GAIN = 8
KEY = "antidote-pairs"  # of the text in the PNG


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
    """One line of a sheet, cut out: three PNGs as bytes, and the captions."""

    clean: bytes
    poisoned: bytes
    difference: bytes
    was: str
    now: str


def difference(clean: np.ndarray, poisoned: np.ndarray) -> np.ndarray:
    """|poisoned - clean| x 8, clamped: uint8 (H, W, 3)."""
    return (GAIN * np.abs(poisoned.astype(np.int16) - clean.astype(np.int16))).clip(0, 255).astype(np.uint8)


def to_png(pairs: list[Pair], title: str, banner: Image.Image | None = None) -> bytes:
    """The sheet as a PNG that `cut` can read. banner: an image of WIDTH to stand below the title."""
    lines = []
    for y, pair in zip(_tops(pairs, title, banner), pairs, strict=False):
        sizes = [_panel(image).size for image in _three(pair)]
        boxes = [[x, y, x + width, y + height] for x, (width, height) in zip(COLUMNS, sizes, strict=False)]
        lines.append({"boxes": boxes, "was": pair.was, "now": pair.now})
    text, out = PngImagePlugin.PngInfo(), io.BytesIO()
    text.add_text(KEY, json.dumps(lines))
    draw(pairs, title, banner).save(out, "PNG", pnginfo=text)
    return out.getvalue()


def cut(sheet: bytes) -> list[Shown]:
    """The pairs of a sheet; [] for a PNG that says nothing of pairs. Raises ValueError for one that is damaged."""
    said = getattr(images.check_header(sheet), "text", {}).get(KEY)
    if said is None:
        return []
    picture = images.open_image(sheet)
    try:
        return [
            Shown(clean, poisoned, apart, str(line["was"]), str(line["now"]))
            for line in json.loads(said)
            for clean, poisoned, apart in [[_crop(picture, *box) for box in line["boxes"]]]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the contact sheet is damaged ({error}): make it again with preview") from error


def draw(pairs: list[Pair], title: str, banner: Image.Image | None = None) -> Image.Image:
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


def _tops(pairs: list[Pair], title: str, banner: Image.Image | None) -> list[int]:
    """Where each line begins, in pixels from the top; and where the sheet ends."""
    first = 2 * GAP + LINE * (len(_wrapped(title, font(LARGE), WIDTH - 2 * GAP)) + 1)
    first += banner.height + GAP if banner is not None else 0
    return [first + number * (PANEL + GAP) for number in range(len(pairs) + 1)]


def _crop(picture: Image.Image, left: int, top: int, right: int, bottom: int) -> bytes:
    if not (0 <= left < right <= picture.width and 0 <= top < bottom <= picture.height):
        raise ValueError("an image outside it")
    return images.encode(np.asarray(picture.crop((left, top, right, bottom))), "png")


@functools.lru_cache
def font(size: int) -> Any:
    """The one typeface of sheets."""
    return ImageFont.load_default(size=size)


def _panel(image: np.ndarray) -> Image.Image:
    picture = Image.fromarray(image)
    longest = max(picture.size)
    if longest <= PANEL:
        factor = PANEL // longest
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    return picture.resize(
        (max(1, picture.width * PANEL // longest), max(1, picture.height * PANEL // longest)), Image.Resampling.BOX
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
