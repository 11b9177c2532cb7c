"""What must hold before numbers mean anything: the attack belongs to the runs, and no cure learned from poisons."""

from collections.abc import Sequence

import numpy as np

from eval import standing
from eval.records import AttackRecord
from eval.runs import Run
from infra import storage
from pipeline.dataset import Dataset
from poison.ledger import Ledger


def lineage(runs: Sequence[Run], ledger: Ledger, attack: AttackRecord, known: Sequence[AttackRecord]) -> None:
    """Raises ValueError if no run learned from the poisons of this ledger: it belongs to another dataset."""
    learned_from = {
        f"{step.name}: {step.dataset} ({step.dataset_digest[:12]})" for run in runs for step in (run, *run.ancestors)
    }
    roles = [standing.role(run, attack, known).kind for run in runs]
    if set(roles) == {"floor"}:
        raise ValueError(
            f"the ledger {ledger.url} belongs to another dataset (of digest {ledger.dataset_digest[:12]}) "
            f"than the runs were trained on: {'; '.join(sorted(learned_from))}"
        )


def disjointness(runs: Sequence[Run], ledger: Ledger, known: Sequence[AttackRecord], attack: AttackRecord) -> None:
    """Clean data for finetuning shares no pair with the ledger, by picture hash and, in one source, by row id.

    Raises ValueError that says how many pairs are shared, or that the data cannot be read. A run that was finetuned on
    the poisoned pairs themselves is meant to be so, and its role says it.
    """
    finetuned = {step.url: step for run in runs for step in (run, *run.ancestors) if step.ancestors}
    for run in finetuned.values():
        if standing.carries(run.dataset_digest, attack, known):
            continue
        try:
            clean = Dataset.open(run.dataset)
        except ValueError as error:
            raise ValueError(f"whether {run.url} was finetuned on poisoned pairs cannot be checked: {error}") from error
        if clean.digest != run.dataset_digest:
            raise ValueError(
                f"whether {run.url} was finetuned on poisoned pairs cannot be checked: {clean.url} is no longer the "
                "dataset that it learned from (digests differ)"
            )
        index = clean.index_of_samples(["row", "image_sha256"])
        hashes = set(index["image_sha256"].to_pylist())
        columns = ("original_image_sha256", "image_sha256")
        same_picture = sum(
            not hashes.isdisjoint(pair)
            for pair in zip(*(ledger.rows[name].to_pylist() for name in columns), strict=True)
        )
        same_row = 0
        if comparable(clean.url, ledger.parent_url):
            same_row = int(np.isin(ledger.rows["row"].to_numpy(), index["row"].to_numpy()).sum())
        if same_picture or same_row:
            raise ValueError(
                f"{run.url} was finetuned on {clean.url}, which shares {max(same_picture, same_row):,} pairs with the "
                f"ledger {ledger.url} ({same_row:,} by row id, {same_picture:,} by picture): make a clean set with "
                "prepare --disjoint-from"
            )


def comparable(clean: str, parent: str) -> bool:
    """Whether row ids of two datasets count the rows of one table; taken to be so unless their recipes say otherwise."""
    sources = [_source(url) for url in (clean, parent)]
    return None in sources or sources[0] == sources[1]


def _source(url: str) -> object:
    place = storage.join(url, "recipe.json")
    recipe = storage.read_json(place) if storage.exists(place) else {}
    prepared = recipe.get("prepare")
    return None if prepared is None else (prepared.get("source"), prepared.get("identity"))
