"""What a scan finds of each attack, by a run alone and with a witness, and what training anew without it gives.

Clean accuracy is held against two runs of the same seed on the same test images: one trained on what is left when as
many pairs are removed at random, and one that never saw a poison.
"""

from collections.abc import Iterable, Sequence

from eval.interval import clopper_pearson, difference
from eval.reporting import formatting
from eval.reporting.formatting import percent, points, within
from eval.studies.cells import ACCURACY, Cell
from eval.studies.study import FLOOR, UNDEFENDED, Row, Study

FILTERED, RANDOM = "filtered", "random"  # methods: without what the scan chose, and without as many at random
HEARD, WITNESSED = "heard", "witnessed"  # a second scan that asked a witness, and without what that one chose
SHARES = (1, 2, 5, 10)  # percent of all pairs, removed
FOUND = (
    *("attack", "poisons", "AUROC", "AUPRC", "FPR at 95% recall"),
    *(f"found at {share}% removed" for share in SHARES),
    *("poisons of what `auto` removes", "of all poisons", "seeds"),
)
BESIDE = (
    *("attack", "found at 5% removed, by the run", "with a witness", "poisons of what `auto` removes, by the run"),
    *("with a witness", "of all poisons", "seeds"),
)
LEFT = (
    *("attack", "removed", "undefended", "trained anew", "as many at random", "never poisoned"),
    *("accuracy, to as many at random", "to never poisoned", "seeds"),
)
EVADING = (
    *("attack", "how", "poisons", "undefended"),
    *(f"found at {share}% removed" for share in SHARES),
    *(
        "poisons of what `auto` removes",
        "with a witness: found at 5% removed",
        "poisons of what `auto` removes with it",
        "trained anew without these",
    ),
)
TRIED = """Attack success at clean accuracy of the run that learned from the poisons, what a scan through it finds, what
a second scan that asks a witness too, and what is left in a model trained anew on what that one leaves. One seed.
"""
SAID = """What the panel of a scan finds, through the run that learned from the scanned pairs. Means over seeds; what
`auto` removes is counted over all of them.
"""
SECOND = """By the run alone, and by a second scan of the same pairs that asks a witness too, a model that was trained
without any suspect of the first. The same seeds, the same runs.
"""
ANEW = """Attack success at clean accuracy: of the poisoned model, of one trained anew on what a filter left, of one
trained on what is left when as many pairs are removed at random, and of one that never saw a poison. Means over seeds,
those of which one was trained anew where there are any; after them what the removal cost in accuracy, in points, to
runs of the same seeds on the same images.
"""
NOTE = """In brackets: 95% intervals; of attack success from the lowest end to the highest over seeds, of a difference
Newcombe's, over test images and not over trainings: it takes the images of two runs for others, so it is rather too
wide. A dash is planned and not measured, or does not exist.
"""


def markdown(study: Study) -> str:
    heard = _heard(study)
    second = [SECOND, _table(BESIDE, heard)] if heard else []
    return "\n".join([SAID, _table(FOUND, _found(study)), *second, ANEW, _table(LEFT, _anew(study)), NOTE])


def evading(study: Study) -> str:
    """A line for each attacker who would evade a scan: whether the model learned the attack, and what was found."""
    lines: list[Sequence[str]] = []
    for attack in study.rows:
        row, second = study.chosen(attack, UNDEFENDED), next(iter(study.of(attack, HEARD)), None)
        if row is None or not row.measured:
            lines.append((attack, *["-"] * (len(EVADING) - 1)))
            continue
        found = [percent(_mean(row, "recall", share)) for share in SHARES]
        heard = (percent(_mean(second, "recall", 5)), _auto(second)[0]) if second and second.measured else ("-", "-")
        anew = next((_sure(one) for one in study.of(attack, WITNESSED) if one.measured), "-")
        known = row.measured[0]
        lines.append((attack, known.how, f"{known.poisons:,}", _brief(row, row), *found, _auto(row)[0], *heard, anew))
    return f"{TRIED}\n{_table(EVADING, lines)}"


def _found(study: Study) -> list[Sequence[str]]:
    lines: list[Sequence[str]] = []
    for attack in study.rows:
        row = study.chosen(attack, UNDEFENDED)
        if row is None or not row.measured:
            lines.append((attack, *["-"] * (len(FOUND) - 1)))
            continue
        known = row.measured[0]
        rate = f" ({percent(known.poisons / known.samples, 2)})" if known.samples else ""
        numbers = [f"{_mean(row, 'auroc'):.3f}", f"{_mean(row, 'average_precision'):.3f}"]
        numbers += [percent(_mean(row, "false_positive_rate", 95))]
        numbers += [percent(_mean(row, "recall", share)) for share in SHARES]
        lines.append((attack, f"{known.poisons:,}{rate}", *numbers, *_auto(row), _seeds(row)))
    return lines


def _heard(study: Study) -> list[Sequence[str]]:
    """A line for each attack of which a witness was asked."""
    lines: list[Sequence[str]] = []
    for attack in study.rows:
        alone = study.chosen(attack, UNDEFENDED)
        for row in study.of(attack, HEARD):
            if alone is not None and row.measured:
                first = _of_seeds(alone, row)
                found = [percent(_mean(one, "recall", 5)) for one in (first, row)]
                lines.append((attack, *found, _auto(first)[0], *_auto(row), _seeds(row)))
    return lines


def _of_seeds(row: Row, other: Row) -> Row:
    """A row over the seeds of which another is measured."""
    wanted = {cell.seed for cell in other.measured}
    return Row(tuple(cell for cell in row.cells if cell.seed in wanted))


def _mean(row: Row, metric: str, k: int | None = None) -> float:
    found = row.mean("scan", metric, k)
    assert found is not None, f"a cell of {row.method} has no scan.{metric}"
    return found.value


def _auto(row: Row) -> tuple[str, str]:
    """What `auto` removes: how much of it is poison, and how much of the poison is in it."""
    removed = hits = poisons = 0
    for cell in row.measured:
        share = cell.get("scan", "auto_recall", None)
        count = cell.get("scan", "auto_removed", None)
        assert share is not None and count is not None
        removed, hits, poisons = removed + int(count.value), hits + round(share.value * share.n), poisons + share.n
    of_removed = f"{hits:,} of {removed:,}" + (f", {percent(hits / removed)}" if removed else "")
    return of_removed, within(hits / poisons, *clopper_pearson(hits, poisons))


def _anew(study: Study) -> list[Sequence[str]]:
    """A line for each attack and share removed, the chosen first; by a witness where that was measured."""
    lines: list[Sequence[str]] = []
    for attack in study.rows:
        undefended, floor = study.chosen(attack, UNDEFENDED), study.chosen(attack, FLOOR)
        second = [row for row in study.of(attack, WITNESSED) if row.measured]
        for row in (*sorted(study.of(attack, FILTERED), key=lambda row: not row.chosen), *second):
            other = next((one for one in study.of(attack, RANDOM) if one.setting == row.setting), None)
            numbers = (_brief(undefended, row), _sure(row), _brief(other, row), _brief(floor, row))
            lines.append((attack, _removed(row), *numbers, _cost(row, other), _cost(row, floor), _seeds(row)))
    return lines


def _removed(row: Row) -> str:
    """`auto`, or a share as percent."""
    if row.method == WITNESSED:
        return "auto, by a witness"
    return row.setting if row.setting == "auto" else f"{100 * float(row.setting):g}%"


def _brief(row: Row | None, beside: Row) -> str:
    """Over the seeds of the row that it stands beside, or over all where that has none yet; said where it has fewer."""
    wanted = {cell.seed for cell in beside.measured}
    if row is not None and wanted:
        row = _of_seeds(row, beside)
    if row is None or row.success is None or row.accuracy is None:
        return "-"
    fewer = f" (seed {_seeds(row)})" if len(row.measured) < len(wanted) else ""
    return f"{percent(row.success.value)} at {percent(row.accuracy.value)}{fewer}"


def _sure(row: Row) -> str:
    if row.success is None or row.accuracy is None:
        return "-"
    return f"{within(row.success.value, row.success.low, row.success.high)} at {percent(row.accuracy.value)}"


def _cost(row: Row, other: Row | None) -> str:
    """The difference in clean accuracy over the seeds that both have: `−0.4 [−1.0, +0.3]`."""
    if other is None:
        return "-"
    theirs = {cell.seed: cell for cell in other.measured}
    pairs = [(cell, theirs[cell.seed]) for cell in row.measured if cell.seed in theirs]
    if not pairs:
        return "-"
    value, low, high = difference(_hits(one for one, _ in pairs), _hits(one for _, one in pairs))
    return f"{points(value)} [{points(low)}, {points(high)}]"


def _hits(cells: Iterable[Cell]) -> tuple[int, int]:
    """Images that are classified rightly, and all, over these cells."""
    found = [number for cell in cells if (number := cell.get(*ACCURACY)) is not None]
    return sum(round(one.value * one.n) for one in found), sum(one.n for one in found)


def _seeds(row: Row) -> str:
    return ", ".join(str(cell.seed) for cell in row.cells if cell.result) or "-"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return formatting.markdown([head, ["---"] * len(head), *lines])
