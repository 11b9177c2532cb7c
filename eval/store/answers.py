"""What models answered to single images, from the tables beside the scores (predictions.py)."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from eval.store import predictions, records, scores
from eval.store.runs import Run
from infra import storage

KINDS = {"zeroshot": "clean", "attack_success": "triggered"}  # of answers, by the task that gives them
NO_ANSWER = "no answer"


@dataclass(frozen=True)
class Asked:
    """A run on a test set, both as scores name them; attack: a key, or None for untouched images."""

    run: str
    checkpoint: str
    testset: str
    attack: str | None

    @classmethod
    def of(cls, run: Run, testset: str, attack: str | None) -> "Asked":
        return cls(run.key, run.version, testset, attack)


def read(folder: str, asked: Mapping[Asked, Collection[str]]) -> dict[Asked, dict[str, str]]:
    """asked: sha256 of images. Returns of each the class that came first, by image; what has no table is left out."""
    found: dict[Asked, dict[str, str]] = {}
    for cell, rows in scores.cells(folder).items():
        first = next(iter(rows), None)
        if first is None or first.testset is None or first.task not in KINDS:
            continue
        run = records.relative(records.resolve(first.run, folder), folder)
        key = Asked(run, first.checkpoint, first.testset, first.attack)
        url = predictions.place(folder, cell)
        if asked.get(key) and storage.exists(url):
            table, about = predictions.read(url)
            found[key] = _first(table, KINDS[first.task], asked[key], about["classes"])
    return found


def _first(table: pa.Table, kind: str, images: Collection[str], classes: list[str]) -> dict[str, str]:
    wanted = pc.and_(pc.equal(table["kind"], kind), pc.is_in(table["image"], pa.array(sorted(images))))
    rows = table.filter(wanted).select(["image", "top"]).to_pylist()
    return {row["image"]: classes[row["top"][0]] if row["top"][0] >= 0 else NO_ANSWER for row in rows}
