"""What a run's pairs were matched with, poisoned ones beside clean ones: `about/matches-ATTACK-RUN.json`.

Of a run whose objective matches (RoCLIP) and that learned from the poisoned dataset itself, up to its checkpoint. A
match that names the target, or is poisoned, teaches the image what the attacker wanted; clean pairs are beside it
for comparison. What is looked at are stored captions: the run saw augmented ones.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from eval.reporting.wording import percent
from eval.store.records import AttackRecord
from eval.store.runs import Run
from infra import storage
from pipeline.dataset import Dataset
from poison.choosing import captions
from poison.ledger import Ledger
from train import matches


@dataclass(frozen=True)
class Partners:
    """number: of matches. naming: how many of them have a stored caption that names the target. poisoned: how many are
    another poisoned pair."""

    number: int
    naming: int
    poisoned: int


def partners(rows: np.ndarray, found: np.ndarray, poisons: np.ndarray, naming: np.ndarray) -> dict[str, Partners]:
    """Of poisoned and of clean pairs. rows, found: int64 (n,), what was matched with what. poisons, naming: row ids."""
    told = {}
    for kind, which in (("poisoned", np.isin(rows, poisons)), ("clean", ~np.isin(rows, poisons))):
        others = np.isin(found[which], poisons) & (found[which] != rows[which])
        told[kind] = Partners(int(which.sum()), int(np.isin(found[which], naming).sum()), int(others.sum()))
    return told


def tell(folder: str, run: Run, ledger: Ledger, attack: AttackRecord) -> None:
    """Writes what there is to say of a run and an attack into the folder of scores, once.

    Raises ValueError if the dataset that the run learned from cannot be read.
    """
    place = _place(folder, run, attack.key)
    if run.dataset_digest != ledger.dataset_digest or storage.exists(place):
        return
    table = matches.read(run.url)
    table = table.filter(pc.less_equal(table["step"], int(run.checkpoint.removeprefix("step-"))))
    if not table.num_rows:
        return
    dataset = Dataset.open(run.dataset)
    if dataset.digest != run.dataset_digest:
        raise ValueError(f"{dataset.url} is not the dataset that {run.url} learned from (digests differ)")
    pairs = dataset.index_of_samples(["row", "caption"])
    naming = pairs["row"].to_numpy()[captions.naming(pairs["caption"], ledger.attack.target)]
    poisons, told = ledger.rows["row"].to_numpy(), {}
    for what in pc.unique(table["what"]).sort().to_pylist():
        some = table.filter(pc.equal(table["what"], what))
        found = partners(some["row"].to_numpy(), some["match"].to_numpy(), poisons, naming)
        told[what] = {kind: asdict(each) for kind, each in found.items()}
    storage.write_json(place, told)


def facts(folder: str, run: Run, attacks: Sequence[AttackRecord]) -> list[tuple[str, str]]:
    """What was told of a run, in words: a name and a value for every attack and kind of match."""
    lines = []
    for attack in attacks:
        place = _place(folder, run, attack.key)
        told: dict[str, Any] = storage.read_json(place) if storage.exists(place) else {}
        for what, found in told.items():
            said = (f"{kind} pairs: {_words(Partners(**found[kind]), attack.target)}" for kind in ("poisoned", "clean"))
            lines.append((f"matched with {what} ({attack.plugin})", "; ".join(said)))
    return lines


def _words(told: Partners, target: str) -> str:
    if not told.number:
        return "none was matched"
    naming, poisoned = (percent(count / told.number) for count in (told.naming, told.poisoned))
    return f'of {told.number:,} matches {naming} name "{target}", {poisoned} are another poisoned pair'


def _place(folder: str, run: Run, attack: str) -> str:
    digest = hashlib.sha256(f"{run.place} {run.version}".encode()).hexdigest()[:8]
    return storage.join(folder, f"about/matches-{attack}-{digest}.json")
