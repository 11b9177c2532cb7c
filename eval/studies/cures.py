"""Two short tables of cures: one question along one axis, and which attacks every finetuning leaves."""

from eval.reporting import formatting
from eval.reporting.formatting import percent, within
from eval.studies.study import FLOOR, UNDEFENDED, Row, Study
from eval.studies.tables import NAMES, called

ALLOWED, POINT = 0.01, 0.01  # success that is as good as none; clean accuracy that a cure may cost
SAID = """The least attack success of each method among its runs within one point of the undefended model's clean
accuracy, and at which {knob}. Bold: at most 1%, or at most that of the model that was never poisoned. *None*: no run is
so accurate; then its most accurate one.
"""


def series(study: Study) -> str:
    """Every run under every attack, in the plan's order and words."""
    lines: list[tuple[str, ...]] = [("attack", "run", "clean accuracy", "attack success"), ("---",) * 4]
    for attack, rows in study.rows.items():
        for row in rows:
            shares = (within(one.value, one.low, one.high) if one else "-" for one in (row.accuracy, row.success))
            lines.append((study.title(attack), row.says or called(row), *shares))
    return formatting.markdown(lines)


def left(study: Study) -> str:
    """A line for each attack, and which of them no method takes away."""
    head = ("attack", NAMES[FLOOR], NAMES[UNDEFENDED], *study.methods)
    lines, resisting, unknown = [head, ("---",) * len(head)], [], []
    for attack in study.rows:
        floor, undefended = study.chosen(attack, FLOOR), study.chosen(attack, UNDEFENDED)
        if not (floor and undefended and floor.success and undefended.success and undefended.accuracy):
            lines.append((study.title(attack), *("-" for _ in head[1:])))
            unknown.append(attack)
            continue
        allowed, least = max(ALLOWED, floor.success.value), undefended.accuracy.value - POINT
        best = [_best(study.of(attack, method), least) for method in study.methods]
        cured = [row is not None and row.success is not None and row.success.value <= allowed for row in best]
        resisting += [] if any(cured) else [attack]
        found = [
            _shown(row, done) if row else _nearest(study.of(attack, method))
            for row, done, method in zip(best, cured, study.methods, strict=True)
        ]
        lines.append((study.title(attack), percent(floor.success.value), _brief(undefended), *found))
    said = f"Left by every method: {', '.join(resisting) or 'none'}."
    if unknown:
        said += f" Not measured: {', '.join(unknown)}."
    return f"{SAID.format(knob=study.knob)}\n{formatting.markdown(lines)}\n{said}\n"


def _best(rows: list[Row], least: float) -> Row | None:
    """Of the measured rows that are at least so accurate the one with the least success."""
    there = [
        (row.success.value, place)
        for place, row in enumerate(rows)
        if row.success and row.accuracy and row.accuracy.value >= least
    ]
    return rows[min(there)[1]] if there else None


def _nearest(rows: list[Row]) -> str:
    there = [(row.accuracy.value, place) for place, row in enumerate(rows) if row.accuracy]
    return f"none; {_brief(rows[max(there)[1]])}" if there else "-"


def _shown(row: Row, done: bool) -> str:
    assert row.success is not None and row.accuracy is not None
    success = percent(row.success.value)
    return f"{f'**{success}**' if done else success} at {percent(row.accuracy.value)} ({row.setting})"


def _brief(row: Row) -> str:
    assert row.success is not None and row.accuracy is not None
    return f"{percent(row.success.value)} at {percent(row.accuracy.value)}"
