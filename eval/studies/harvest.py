"""From a folder of scores, as `evaluate` and `assess` left it, to the cell of one row."""

from dataclasses import asdict, fields, replace

from eval.interval import clopper_pearson
from eval.judging.detection import RECALL, SHARES
from eval.store import records, runs, scans, scores
from eval.store.scans import ScanRecord
from eval.studies import cells
from eval.studies.cells import Cell, Number
from eval.studies.steps import Row
from eval.studies.tabulation import ledger_name, shown
from infra import rundir, storage

KEPT = [field.name for field in fields(Number)]


def cell(row: Row, seconds: float) -> Cell:
    """What was measured of a row's run at its checkpoint, of the weights that it has now.

    Raises ValueError for what is not there.
    """
    attacks = [found for found in records.read_attacks(row.scores) if ledger_name(found) == row.attack]
    if len(attacks) != 1:
        raise ValueError(
            f"{row.scores} has {len(attacks) or 'no'} attacks whose ledger is called {row.attack}, not one"
        )
    numbers = _numbers(row, attacks[0].key) | _found(row, attacks[0].key)
    wanted = [cells.metric(text) for text in row.metrics]
    if missing := [text for text, key in zip(row.metrics, wanted, strict=True) if key not in numbers]:
        raise ValueError(f"{row.scores} has no {', '.join(missing)} of {row.run} under {row.attack}")
    return Cell(
        attack=row.attack,
        method=row.method,
        value=row.value,
        seed=row.seed,
        definition=row.digest,
        how=shown(attacks[0].attack),
        poisons=attacks[0].poisons,
        samples=attacks[0].samples,
        numbers=tuple(numbers[key] for key in wanted),
        machine=cells.machine(),
        code_version=rundir.code_version(),
        seconds=round(seconds, 1),
    )


def _numbers(row: Row, attack: str) -> dict[tuple[str, str, int | None], Number]:
    """By task, metric and k."""
    run = runs.read(row.run, row.scores, row.checkpoint)
    found: dict[tuple[str, str, int | None], Number] = {}
    told: dict[tuple[str, str, int | None, str | None], Number] = {}
    for score in scores.read_all(row.scores):
        mine = storage.real(records.resolve(score.run, row.scores)) == storage.real(row.run)
        if not mine or score.checkpoint != run.version or score.attack not in (None, attack):
            continue
        told_by = asdict(score)
        number = Number(**{name: told_by[name] for name in KEPT if name in told_by})
        if told.setdefault((*number.key, number.of), number).value != number.value:
            raise ValueError(
                f"{row.scores} has two values of {score.metric} of {row.run}: keep one test set a task there"
            )
        of_kind = replace(number, metric=f"{number.metric}:{number.of}") if number.of else number
        found[of_kind.key] = of_kind
        if number.key not in found or number.value > found[number.key].value:
            found[number.key] = number
    return found


def _found(row: Row, attack: str) -> dict[tuple[str, str, int | None], Number]:
    """What the panel of a scan through the row's run found of the attack; {} where no such scan was assessed."""
    mine = [
        record
        for record in scans.read(row.scores)
        if record.attack == attack and storage.real(records.resolve(record.run, row.scores)) == storage.real(row.run)
    ]
    if len(mine) > 1:
        raise ValueError(f"{row.scores} has {len(mine)} scans through {row.run}: keep one there")
    return {number.key: number for record in mine if record.worth for number in worth(record)}


def worth(record: ScanRecord) -> list[Number]:
    """A scan as numbers of the task `scan`. k: percent, of pairs removed or of poisons found; n: poisons, or pairs."""
    panel, poisons = record.worth["panel"], record.poisons
    low, high = clopper_pearson(record.hits, poisons)
    found = [
        _of_scan("auroc", panel.auroc, poisons),
        _of_scan("average_precision", panel.average_precision, poisons),
        _of_scan("false_positive_rate", panel.false_positive_rate, record.pairs - poisons, round(100 * RECALL)),
        Number(task="scan", metric="auto_removed", k=None, value=record.proposed, n=record.pairs),
        Number(task="scan", metric="auto_recall", k=None, value=record.hits / poisons, n=poisons, low=low, high=high),
    ]
    return found + [_of_scan("recall", panel.recall[f"{share:g}"], poisons, round(100 * share)) for share in SHARES]


def _of_scan(metric: str, value: float, n: int, k: int | None = None) -> Number:
    return Number(task="scan", metric=metric, k=k, value=value, n=n)
