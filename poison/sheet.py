"""The contact sheet behind poison/preview.py: clean | poisoned | difference x8, with both captions, one pair a line."""

import io
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from infra import config, log, storage
from pipeline import images, shards
from pipeline.dataset import Dataset
from pipeline.shards import Sample
from poison.geometry import Box
from poison.ledger import Ledger

PANEL, GAP, TEXT_WIDTH, LINE = 224, 12, 420, 18  # pixels
PAPER, INK, FAINT = (255, 255, 255), (20, 20, 20), (110, 110, 110)
GAIN = 8


@dataclass(frozen=True)
class Pair:
    """One line of the sheet. clean, poisoned: uint8 (H, W, 3), as stored. notes: lines of text beside them."""

    clean: np.ndarray
    poisoned: np.ndarray
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """What to show."""

    ledger: str
    """Folder of the ledger."""
    dataset: str
    """Folder of the clean dataset that was poisoned."""
    poisoned: str
    """Folder of the poisoned dataset."""
    out: str
    """The picture to write, a .png file."""
    rows: int = 8
    """How many poisoned pairs to show, spread evenly over the ledger."""
    dry_run: bool = False
    """Print the resolved configuration; touch nothing."""

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"--rows is at least 1, not {self.rows}")
        if not self.out.endswith(".png"):
            raise ValueError(f"--out names a .png file, not {self.out!r}")

    def run(self) -> str:
        """Write the sheet. Returns the entry's last line."""
        ledger, clean, poisoned = Ledger.open(self.ledger), Dataset.open(self.dataset), Dataset.open(self.poisoned)
        ledger.belongs_to(poisoned)
        if clean.digest != ledger.parent_digest:
            raise ValueError(f"{clean.url} is not the dataset that {ledger.url} was made from (digests differ)")
        lines = _pick(ledger, self.rows)
        if self.dry_run:
            print(storage.dump_json({"configuration": config.to_json(self)}).decode(), end="")
            return f"would show {len(lines)} of {ledger.rows.num_rows:,} poisoned pairs; nothing was written"
        picture = draw(pairs(lines, clean, poisoned), json.dumps(config.to_json(ledger.attack)))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        storage.write(self.out, buffer.getvalue())
        return f"{len(lines)} of {ledger.rows.num_rows:,} poisoned pairs: {storage.absolute(self.out)}"


def pairs(lines: list[dict[str, Any]], clean: Dataset, poisoned: Dataset) -> list[Pair]:
    """The pictures of some ledger rows, from both datasets."""
    before, after = _samples(lines, clean), _samples(lines, poisoned)
    found = []
    for line in lines:
        place = (line["shard"], line["key"])
        top, left, height, width = (line[name] for name in Box._fields)
        notes = (
            f"row {line['row']}, shard {line['shard']}, key {line['key']}",
            "" if top is None else f"trigger of {height} x {width} pixels at ({top}, {left})",
            f"was: {line['original_caption']}",
            f"now: {line['caption']}",
        )
        found.append(Pair(images.decode(before[place].image), images.decode(after[place].image), notes))
    return found


def difference(clean: np.ndarray, poisoned: np.ndarray) -> np.ndarray:
    """|poisoned - clean| x 8, clamped: uint8 (H, W, 3)."""
    return (GAIN * np.abs(poisoned.astype(np.int16) - clean.astype(np.int16))).clip(0, 255).astype(np.uint8)


def draw(pairs: list[Pair], title: str) -> Image.Image:
    """The sheet as an RGB picture. Small pictures are enlarged by whole factors, so that their pixels can be seen."""
    font = ImageFont.load_default(size=14)
    width = 3 * (PANEL + GAP) + TEXT_WIDTH + GAP
    heading = _wrapped(title, font, width - 2 * GAP)
    top = GAP + LINE * (len(heading) + 2)
    sheet = Image.new("RGB", (width, top + len(pairs) * (PANEL + GAP)), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, text in enumerate(heading):
        pen.text((GAP, GAP + number * LINE), text, INK, font)
    for column, text in enumerate(("clean", "poisoned", f"difference x {GAIN}")):
        pen.text((GAP + column * (PANEL + GAP), top - LINE - 4), text, FAINT, font)
    for number, pair in enumerate(pairs):
        y = top + number * (PANEL + GAP)
        for column, image in enumerate((pair.clean, pair.poisoned, difference(pair.clean, pair.poisoned))):
            sheet.paste(_panel(image), (GAP + column * (PANEL + GAP), y))
        lines = [part for note in pair.notes if note for part in [*_wrapped(note, font, TEXT_WIDTH - GAP), ""]]
        for offset, text in enumerate(lines[: PANEL // LINE]):
            pen.text((GAP + 3 * (PANEL + GAP), y + offset * LINE), text, INK, font)
    return sheet


def _pick(ledger: Ledger, count: int) -> list[dict[str, Any]]:
    lines = [line for line in ledger.rows.to_pylist() if line["action"] == "replaced"]
    places = np.linspace(0, len(lines) - 1, min(count, len(lines))).round().astype(int)
    return [lines[place] for place in places]


def _samples(lines: list[dict[str, Any]], dataset: Dataset) -> dict[tuple[int, str], Sample]:
    by_id = {shard.id: shard for shard in dataset.shards}
    found: dict[tuple[int, str], Sample] = {}
    wanted = {(line["shard"], line["key"]) for line in lines}
    touched = sorted({shard_id for shard_id, _ in wanted})
    with log.progress("reading pictures", len(touched), "shards") as bar, tempfile.TemporaryDirectory() as scratch:
        for shard_id in touched:
            path = dataset.fetch(by_id[shard_id], Path(scratch))
            with open(path, "rb") as file:
                for row in shards.samples_of(dataset.index(by_id[shard_id])).to_pylist():
                    if (shard_id, row["key"]) in wanted:
                        found[shard_id, row["key"]] = shards.read_sample(file, row)
            if path.parent == Path(scratch):
                path.unlink()
            bar.add(1)
    return found


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
