"""Each finetuned run beside the run that it started from: what finetuning changed, defence or none."""

from collections.abc import Sequence

from eval.judging.roles import Comparison
from eval.judging.seeds import Group, Share, together
from eval.reporting.formatting import percent, points
from eval.reporting.rows import Cell, Row, Table

COLUMNS = ("Started from", "Clean accuracy", "Attack success")


def parents(groups: Sequence[Group], comparison: Comparison) -> Table | None:
    """A row for each group of runs whose parents were all measured; None where there is none."""
    rows = []
    for group in groups:
        starts = [comparison.parent(row) for row in group.rows]
        found = [start for start in starts if start is not None and not comparison.missing(start)]
        if len(found) < len(group.rows):
            continue
        cells = [Cell(COLUMNS[0], found[0].run.name if len(found) == 1 else f"{len(found)} runs, each its own")]
        before, after = together([one.accuracy for one in found]), group.accuracy
        each = [row.accuracy.value - one.accuracy.value for row, one in zip(group.rows, found, strict=True)]
        cells.append(_change(COLUMNS[1], before, after, each, "ca"))
        if comparison.attack:
            before, after = together([one.success for one in found]), group.success
            each = [row.success.value - one.success.value for row, one in zip(group.rows, found, strict=True)]
            cells.append(_change(COLUMNS[2], before, after, each, "asr"))
        rows.append(Row(group.name, [group.words], cells))
    columns = COLUMNS if comparison.attack else COLUMNS[:2]
    return Table(columns, rows) if rows else None


def _change(column: str, before: Share, after: Share, each: Sequence[float], kind: str) -> Cell:
    """each: of every run against its own parent."""
    change = f"{points(after.value - before.value)} points"
    if len(each) > 1:
        change += f" ({points(min(each))} to {points(max(each))})"
    unsure = "" if after.apart(before) else ", no clear difference"
    return Cell(column, f"{percent(before.value)} → {percent(after.value)}", f"{change}{unsure}", "", kind)
