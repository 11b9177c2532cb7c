"""Comparisons as plain text, as Markdown, and every score as CSV."""

import csv
import io
from collections.abc import Sequence

from eval.judging.roles import Comparison, Result
from eval.judging.seeds import Group, together
from eval.judging.verdict import judge
from eval.reporting import formatting, wording
from eval.reporting.formatting import percent, within
from eval.store.runs import ADOPTED
from eval.store.scores import Score

METRICS = ("accuracy", "attack_success", "triggered_accuracy")
RULE = ("---", "---", "---:", "---:", "---:", "---:")
HEAD = ("run", "what it is", "clean accuracy", "attack success", "n", "true class under attack")


def plain(comparisons: Sequence[Comparison]) -> str:
    """For a terminal: one aligned table a comparison."""
    return "\n\n".join(f"{_heading(one)}\n{_aligned([HEAD, *map(_cells, one.rows)])}" for one in comparisons)


def markdown(comparisons: Sequence[Comparison]) -> str:
    """The verdicts and the tables; a mean stands above runs that differ by their seed alone."""
    parts = ["# Clean accuracy and attack success\n"]
    for comparison in comparisons:
        parts.append(f"\n## {_heading(comparison)}\n\n")
        lines = [_cells(row) for row in comparison.rows]
        if comparison.measured():
            verdict = judge(comparison)
            said = (wording.headline(verdict), wording.attacked(verdict), wording.tried(verdict), wording.won(verdict))
            parts += [f"{text}\n\n" for text in (*said, " ".join(wording.caveats(verdict))) if text]
            lines = [line for group in verdict.groups for line in _grouped(group)]
        parts.append(formatting.markdown((HEAD, RULE, *lines)))
    parts.append(
        "\nIn brackets: exact 95% intervals (Clopper-Pearson) over test images; of a mean over seeds, the lowest and "
        "the highest. Attack success leaves out images of the target's own class (n is what is left); the floor is "
        "the same number on a run without poison, the baseline is finetuned without a defence.\n"
    )
    return "".join(parts)


def _grouped(group: Group) -> list[tuple[str, ...]]:
    lines = [_cells(row) for row in group.rows]
    if len(lines) == 1:
        return lines
    shares = [_mean([row.get(metric) for row in group.rows]) for metric in METRICS]
    return [(f"{group.name}, mean", f"{len(lines)} seeds", *shares[:2], lines[0][4], shares[2]), *lines]


def _mean(scores: Sequence[Score | None]) -> str:
    found = [score for score in scores if score is not None and score.low is not None]
    if len(found) < len(scores):
        return "-"
    share = together(found)
    return within(share.value, share.least, share.most)


def as_csv(scores: Sequence[Score], comparisons: Sequence[Comparison]) -> str:
    """Every score, one a line, with the run's role, objective and seed in front."""
    about: dict[tuple[str, str | None], Result] = {}
    for comparison in comparisons:
        for row in comparison.rows:
            about[row.run.key, comparison.attack.key if comparison.attack else None] = row
            about.setdefault((row.run.key, None), row)
    out = io.StringIO()
    names = list(Score.__dataclass_fields__)
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["role", "objective", "run_seed", *names])
    for score in scores:
        row = about[score.run, score.attack]
        writer.writerow(
            [
                row.role.kind,
                row.run.objective,
                "" if row.run.objective == ADOPTED else row.run.seed,
                *("" if (v := getattr(score, n)) is None else v for n in names),
            ]
        )
    return out.getvalue()


def _heading(comparison: Comparison) -> str:
    attack = comparison.attack
    of = f'{attack.plugin}, target "{attack.target}", on ' if attack else ""
    return f"{of}{comparison.testset.name}"


def _cells(row: Result) -> tuple[str, ...]:
    success = row.get("attack_success")
    return (
        row.run.name,
        row.role.words,
        _share(row.get("accuracy")),
        _share(success),
        f"{success.n:,}" if success else "-",
        _share(row.get("triggered_accuracy")),
    )


def _share(score: Score | None) -> str:
    if score is None:
        return "-"
    if score.low is None or score.high is None:
        return percent(score.value)
    return within(score.value, score.low, score.high)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
