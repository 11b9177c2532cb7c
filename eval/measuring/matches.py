"""Counts what a run's pairs were matched with, poisoned ones beside clean ones, for the folder of scores.

Of a run whose objective matches (RoCLIP) and that learned from the poisoned dataset itself, up to its checkpoint. A
match that names the target, or is poisoned, teaches the image what the attacker wanted; clean pairs are beside it
for comparison. What is looked at are stored captions: the run saw augmented ones.
"""

import numpy as np
import pyarrow.compute as pc

from eval.store import matches
from eval.store.matches import Partners
from eval.store.records import AttackRecord
from eval.store.runs import Run
from pipeline.dataset import Dataset
from poison.choosing import captions
from poison.ledger import Ledger
from train import matches as logged


def partners(rows: np.ndarray, found: np.ndarray, poisons: np.ndarray, naming: np.ndarray) -> dict[str, Partners]:
    """Of poisoned and of clean pairs. rows, found: int64 (n,), what was matched with what. poisons, naming: row ids."""
    counted = {}
    for kind, which in (("poisoned", np.isin(rows, poisons)), ("clean", ~np.isin(rows, poisons))):
        others = np.isin(found[which], poisons) & (found[which] != rows[which])
        counted[kind] = Partners(int(which.sum()), int(np.isin(found[which], naming).sum()), int(others.sum()))
    return counted


def count(folder: str, run: Run, ledger: Ledger, attack: AttackRecord) -> None:
    """Writes the counts of a run and an attack into the folder of scores, once.

    Raises ValueError if the dataset that the run learned from cannot be read.
    """
    if run.dataset_digest != ledger.dataset_digest or matches.exist(folder, run, attack.key):
        return
    table = logged.read(run.url)
    table = table.filter(pc.less_equal(table["step"], int(run.checkpoint.removeprefix("step-"))))
    if not table.num_rows:
        return
    dataset = Dataset.open(run.dataset)
    if dataset.digest != run.dataset_digest:
        raise ValueError(f"{dataset.url} is not the dataset that {run.url} learned from (digests differ)")
    pairs = dataset.index_of_samples(["row", "caption"])
    naming = pairs["row"].to_numpy()[captions.naming(pairs["caption"], ledger.attack.target)]
    poisons, found = ledger.rows["row"].to_numpy(), {}
    for what in pc.unique(table["what"]).sort().to_pylist():
        some = table.filter(pc.equal(table["what"], what))
        found[what] = partners(some["row"].to_numpy(), some["match"].to_numpy(), poisons, naming)
    matches.write(folder, run, attack.key, found)
