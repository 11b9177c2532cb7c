"""Behind poison/preview.py: some poisoned pairs, before and after, as a folder of images with a contact sheet."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from infra import config, log, storage
from pipeline import images, shards
from pipeline.dataset import Dataset
from pipeline.shards import Sample
from poison import carried
from poison.geometry import Box
from poison.ledger import Ledger
from poison.sheets import previews
from poison.sheets.layout import Pair


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
    """Folder for the contact sheet, sheet.png, its single images, and preview.json, which report reads."""
    rows: int = 8
    """How many poisoned pairs to show, spread evenly over the ledger."""
    dry_run: bool = False
    """Print the resolved configuration; touch nothing."""

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"--rows is at least 1, not {self.rows}")
        previews.refuse_image("--out", self.out)
        for name in ("dataset", "poisoned"):
            if storage.within(self.out, getattr(self, name)):
                raise ValueError(f"--out names poisoned pairs and must not lie in --{name}, {getattr(self, name)}")

    def run(self) -> str:
        """Write the preview. Returns the entry's last line."""
        ledger, clean, poisoned = Ledger.open(self.ledger), Dataset.open(self.dataset), Dataset.open(self.poisoned)
        ledger.belongs_to(poisoned)
        if clean.digest != ledger.parent_digest:
            raise ValueError(f"{clean.url} is not the dataset that {ledger.url} was made from (digests differ)")
        lines = _pick(ledger, self.rows)
        out = storage.absolute(self.out)
        previews.check(out)
        if self.dry_run:
            print(storage.dump_json({"configuration": config.to_json(self)}).decode(), end="")
            return f"would show {len(lines)} of {ledger.rows.num_rows:,} poisoned pairs; nothing was written"
        of = f"{len(lines)} of {ledger.rows.num_rows:,} poisoned pairs"
        written = previews.save(out, f"{_title(ledger)}. {of}.", pairs(lines, clean, poisoned))
        return f"{'' if written else 'nothing to do: '}{of}: {storage.join(out, previews.SHEET)}"


def pairs(lines: list[dict[str, Any]], clean: Dataset, poisoned: Dataset) -> list[Pair]:
    """The images of some ledger rows, from both datasets."""
    replaced = [line for line in lines if line["action"] == "replaced"]
    before, after = _samples(replaced, clean), _samples(lines, poisoned)
    found = []
    for line in lines:
        place = (line["shard"], line["key"])
        top, left, height, width = (line[name] for name in Box._fields)
        added = "" if line["action"] == "replaced" else f"{line['action']}: "
        notes = (
            f"{added}row {line['row']}, shard {line['shard']}, key {line['key']}",
            "" if top is None else f"trigger: {height} x {width} pixels at row {top}, column {left}",
        )
        # A pair that was added has no original: it shows no difference, whatever it is an image of.
        clean_image, poisoned_image = (
            images.decode(samples[place].image) for samples in (before if place in before else after, after)
        )
        found.append(Pair(clean_image, poisoned_image, notes, line["original_caption"] or "", line["caption"]))
    return found


def _title(ledger: Ledger) -> str:
    fields = config.to_json(ledger.attack)
    name, target = fields.pop("plugin"), fields.pop("target")
    given = {name: value for name, value in sorted(fields.items()) if value not in ("", None, [])}
    knobs = ", ".join(f"{name} {carried.shortened(value)}" for name, value in given.items())
    return f'The {name} attack, target "{target}" ({knobs})'


def _pick(ledger: Ledger, count: int) -> list[dict[str, Any]]:
    lines = ledger.rows.to_pylist()
    places = np.linspace(0, len(lines) - 1, min(count, len(lines))).round().astype(int)
    return [lines[place] for place in places]


def _samples(lines: list[dict[str, Any]], dataset: Dataset) -> dict[tuple[int, str], Sample]:
    by_id = {shard.id: shard for shard in dataset.shards}
    found: dict[tuple[int, str], Sample] = {}
    wanted = {(line["shard"], line["key"]) for line in lines}
    touched = sorted({shard_id for shard_id, _ in wanted})
    with log.progress("reading images", len(touched), "shards") as bar, tempfile.TemporaryDirectory() as scratch:
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
