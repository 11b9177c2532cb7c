"""What a folder of scores keeps of the attacks and test sets that it holds numbers of."""

from collections.abc import Sequence

from eval.store import records
from eval.store.records import AttackRecord, TestSetRecord
from eval.store.runs import Ancestor, Run
from infra import config
from pipeline.captioned import Captioned
from pipeline.testsets import TestSet
from poison.ledger import Ledger


def sizes(runs: Sequence[Run]) -> dict[str, int]:
    """By digest, how many pairs the datasets have that these runs and their ancestors learned from."""
    lineages: list[Run | Ancestor] = [*runs, *(ancestor for run in runs for ancestor in run.ancestors)]
    return {step.dataset_digest: step.dataset_samples for step in lineages}


def attack(ledger: Ledger, sizes: dict[str, int], out: str) -> AttackRecord:
    """sizes: by digest, pairs of datasets that are known."""
    return AttackRecord(
        key=records.attack_key(ledger.attack, ledger.dataset_digest),
        place=records.relative(ledger.url, out),
        attack=config.to_json(ledger.attack),
        target=ledger.attack.target,
        poisons=ledger.rows.num_rows,
        samples=sizes.get(ledger.dataset_digest),
        dataset_digest=ledger.dataset_digest,
        parent_digest=ledger.parent_digest,
        trigger=ledger.attack.trigger() is not None,
        shown=ledger.attack.shown,
    )


def tell(ledger: Ledger, record: AttackRecord, out: str) -> None:
    """Write an attack's trigger, if it has one, and then the record that says so."""
    if (trigger := ledger.attack.trigger()) is not None:
        records.write_trigger(out, record, trigger)
    records.write(out, record)


def testset(test: TestSet | Captioned, out: str) -> TestSetRecord:
    return TestSetRecord(
        place=records.relative(test.url, out),
        split=test.split,
        digest=test.digest,
        classes=test.classes if isinstance(test, TestSet) else (),
        templates=test.templates if isinstance(test, TestSet) else (),
        pictures=len(test.pictures),
    )
