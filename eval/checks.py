"""What must hold before numbers mean anything: the attack belongs to the runs, and no cure learned from poisons."""

from collections.abc import Sequence

import pyarrow as pa

from eval import standing
from eval.records import AttackRecord
from eval.runs import Run
from pipeline.dataset import Dataset
from poison.ledger import Ledger


def lineage(runs: Sequence[Run], ledger: Ledger, attack: AttackRecord, known: Sequence[AttackRecord]) -> None:
    """Raises ValueError if no run learned from the poisons of this ledger: it belongs to another dataset."""
    if all(standing.role(run, attack, known).kind == "floor" for run in runs):
        datasets = "; ".join(f"{run.name}: {run.dataset} ({run.dataset_digest[:12]})" for run in runs)
        raise ValueError(
            f"the ledger {ledger.url} belongs to another dataset, of digest {ledger.dataset_digest[:12]}, "
            f"than any of the runs learned from: {datasets}"
        )


def disjointness(
    runs: Sequence[Run], ledger: Ledger, attack: AttackRecord, known: Sequence[AttackRecord], twins_allowed: int
) -> None:
    """Clean data for finetuning shares no pair with the ledger, by row id and by picture hash.

    Raises ValueError that says how many are shared, or that the data cannot be read. A run that was finetuned on the
    poisoned pairs themselves is meant to be so, and its role says it.
    """
    for run in runs:
        if not run.ancestors or standing.carries(run.dataset_digest, attack, known):
            continue
        unknown = f"whether {run.url} was finetuned on poisoned pairs cannot be checked"
        try:
            clean = Dataset.open(run.dataset)
        except ValueError as error:
            raise ValueError(f"{unknown}: {error}") from error
        if clean.digest != run.dataset_digest:
            raise ValueError(f"{unknown}: {clean.url} is not the dataset that it learned from (digests differ)")
        poisons, twins = shared(clean.index_of_samples(["row", "url", "image_sha256"]), ledger.rows)
        if poisons:
            raise ValueError(
                f"{run.url} was finetuned on {clean.url}, which shares {poisons:,} pairs with the ledger {ledger.url}: "
                "make a clean set with prepare --disjoint-from"
            )
        if twins > twins_allowed:
            raise ValueError(
                f"{run.url} was finetuned on {clean.url}, which holds {twins:,} pictures that the attack {ledger.url} "
                f"poisoned in other rows; if the source has them twice, accept that with --twins-allowed {twins}"
            )


def shared(clean: pa.Table, poisons: pa.Table) -> tuple[int, int]:
    """How many poisoned pairs a clean set holds, and of how many others it holds the picture, from before, elsewhere.

    clean: columns row, url, image_sha256. poisons: poison.ledger.ROWS. A row id counts the rows of one table, so it is
    the same pair only if the url agrees as well (foreign shards have none; there the row id is a hash of content).
    """
    urls = dict(zip(clean["row"].to_pylist(), clean["url"].to_pylist(), strict=True))
    pictures = set(clean["image_sha256"].to_pylist())
    same = twin = 0
    for pair in poisons.select(["row", "source", "original_image_sha256", "image_sha256"]).to_pylist():
        row, url = pair["row"], pair["source"]
        if (row in urls and (url is None or urls[row] in (None, url))) or pair["image_sha256"] in pictures:
            same += 1
        elif pair["original_image_sha256"] in pictures:
            twin += 1
    return same, twin
