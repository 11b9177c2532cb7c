"""Class by class: how often each is named right, and how often the attack turns it into its target."""

from collections.abc import Sequence
from dataclasses import dataclass

from eval.judging.roles import Result
from eval.reporting.drawing import Mark, Strip
from eval.reporting.formatting import percent
from eval.reporting.rows import NONE, Cell, Row, Table
from eval.store.scores import Score

MOST = 20  # classes that are shown
CLEAN, TAKEN = ("per_class", "class_accuracy"), ("per_class", "taken_for_target")


@dataclass(frozen=True)
class Bars:
    """One run. table: a row a class."""

    name: str
    table: Table


def bars(rows: Sequence[Result]) -> list[Bars]:
    """Of each run that was measured class by class, the same classes in the same order: those that the first run takes
    most for the target, else those that it names least."""
    measured = [row for row in rows if any(task == CLEAN[0] for task, *_ in row.found)]
    if not measured:
        return []
    names = list(dict.fromkeys(of for row in measured for task, _, _, of in row.found if task == CLEAN[0] and of))
    first = measured[0]
    names.sort(key=lambda name: _urgency(first, name))
    return [Bars(row.run.name, _table(row, names)) for row in measured]


def _urgency(row: Result, name: str) -> tuple[float, float, str]:
    taken, right = row.at(*TAKEN, of=name), row.at(*CLEAN, of=name)
    return -(taken.value if taken else -1.0), right.value if right else 2.0, name


def _table(row: Result, names: Sequence[str]) -> Table:
    shown = [(name, row.at(*CLEAN, of=name), row.at(*TAKEN, of=name)) for name in names[:MOST]]
    attacked = any(metric == TAKEN[1] for _, metric, *_ in row.found)
    columns = ["Named right", *(["Taken for the target"] if attacked else [])]
    lines = []
    for name, right, taken in shown:
        pair = [(right, "ca"), *([(taken, "asr")] if attacked else [])]
        cells = [_cell(column, score, kind) for column, (score, kind) in zip(columns, pair, strict=True)]
        marks = [Mark(s.value, *s.interval, kind, bar=kind == "asr") for s, kind in pair if s]
        label = ", ".join(f"{cell.column.lower()} {cell.number}" for cell in cells)
        lines.append(Row(name, [], cells, strip=Strip(marks, None, f"{name}: {label}")))
    return Table(columns, lines, len(names) - len(shown), "Class")


def _cell(column: str, score: Score | None, kind: str) -> Cell:
    if score is None:
        return Cell(column, NONE)
    low, high = score.interval
    return Cell(column, percent(score.value), f"{100 * low:.1f}–{100 * high:.1f}", "", kind)
