"""Curves over the checkpoints of a run: accuracy, attack success, and how near the pairs lie that it learns from."""

from collections.abc import Sequence

from eval.judging.roles import Comparison, Result
from eval.judging.seeds import Group
from eval.reporting import drawing
from eval.reporting.drawing import Chart
from eval.reporting.formatting import percent
from eval.reporting.rows import NONE, Cell, Row, Table
from eval.store.scores import Score

MOST = 12  # curves of one chart
SIMILARITY = ("pair_similarity", "similarity", None)
KINDS = ("clean", "poisoned")


def curves(groups: Sequence[Group], comparison: Comparison) -> list[Chart]:
    """Of runs that were measured at several checkpoints; those that nothing is known of are left out."""
    runs = _runs(groups, comparison)
    charts = []
    shares = [("Clean accuracy", "accuracy"), *([("Attack success", "attack_success")] if comparison.attack else [])]
    for title, metric in shares:
        series = [(row.run.name, [(step(one), 100 * score.value) for one in steps if (score := one.get(metric))])
                  for row, steps in runs]  # fmt: skip
        charts.append(_chart(series, f"{title} in percent against the number of steps"))
    series = [
        (
            f"{row.run.name}: {kind} pairs",
            [(step(one), score.value) for one in steps if (score := one.at(*SIMILARITY, kind))],
        )
        for row, steps in runs
        for kind in KINDS
    ]
    charts.append(_chart(series, "Mean cosine of image and caption in training pairs against the number of steps"))
    return [chart for chart in charts if chart.curves]


def checkpoints(groups: Sequence[Group], comparison: Comparison) -> Table | None:
    """The numbers of the curves: a row a checkpoint."""
    columns = ["Clean accuracy", *(["Attack success"] if comparison.attack else [])]
    pairs = [f"Cosine of {kind} pairs" for kind in KINDS]
    rows, similar = [], False
    for row, steps in _runs(groups, comparison):
        for one in steps:
            shares = [one.get("accuracy"), *([one.get("attack_success")] if comparison.attack else [])]
            cosines = [one.at(*SIMILARITY, kind) for kind in KINDS]
            similar = similar or any(cosines)
            cells = [Cell(column, *_percent(share)) for column, share in zip(columns, shares, strict=True)]
            cells += [Cell(column, *_cosine(score)) for column, score in zip(pairs, cosines, strict=True)]
            rows.append(Row(f"{row.run.name}, step {step(one):,.0f}", [], cells))
    if not similar:
        rows = [Row(row.name, row.notes, row.cells[: len(columns)]) for row in rows]
    return Table([*columns, *(pairs if similar else [])], rows, head="Checkpoint") if rows else None


def similarity(groups: Sequence[Group]) -> Table | None:
    """How near pairs lie at the end, of every run that it was measured of."""
    columns = [f"{kind.capitalize()} pairs" for kind in KINDS]
    rows = []
    for row in (row for group in groups for row in group.rows):
        scores = [row.at(*SIMILARITY, kind) for kind in KINDS]
        if any(scores):
            cells = [Cell(column, *_cosine(score)) for column, score in zip(columns, scores, strict=True)]
            rows.append(Row(row.run.name, [row.role.words], cells))
    return Table(columns, rows) if rows else None


def step(row: Result) -> float:
    """step-0001234 -> 1234"""
    return float(row.run.checkpoint.rpartition("-")[2])


def _runs(groups: Sequence[Group], comparison: Comparison) -> list[tuple[Result, list[Result]]]:
    """Each run with its checkpoints in the order of steps."""
    found = []
    for row in (row for group in groups for row in group.rows):
        before = [one for one in comparison.earlier if one.run.key == row.run.key]
        if before:
            found.append((row, [*before, row]))
    return found


def _chart(series: Sequence[tuple[str, Sequence[tuple[float, float]]]], title: str) -> Chart:
    return drawing.chart([(name, points) for name, points in series if len(points) > 1][:MOST], title)


def _percent(score: Score | None) -> tuple[str, str]:
    if score is None:
        return NONE, ""
    low, high = score.interval
    return percent(score.value), f"{100 * low:.1f}–{100 * high:.1f}"


def _cosine(score: Score | None) -> tuple[str, str]:
    if score is None:
        return NONE, ""
    low, high = score.interval
    return f"{score.value:.3f}", f"{low:.3f}–{high:.3f}"
