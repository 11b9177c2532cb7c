"""Comparisons as plain text, as Markdown, and every score as CSV."""

import csv
import io
from collections.abc import Sequence

from eval.judging.roles import Comparison, Result
from eval.judging.seeds import Group, together
from eval.reporting import details, formatting, page, wording
from eval.reporting import heat as interfaces
from eval.reporting.details import Details
from eval.reporting.formatting import percent, within
from eval.reporting.heat import Heat
from eval.reporting.rows import Table
from eval.store.runs import ADOPTED
from eval.store.scores import Score

METRICS = ("accuracy", "attack_success", "triggered_accuracy")
RULE = ("---", "---", "---:", "---:", "---:", "---:")
HEAD = ("run", "what it is", "clean accuracy", "attack success", "n", "true class under attack")


def plain(comparisons: Sequence[Comparison]) -> str:
    """For a terminal: one aligned table a comparison, and one of the interfaces where others than zero-shot are."""
    parts = []
    for one in comparisons:
        tables = [[HEAD, *map(_cells, (*one.earlier, *one.rows))]] if one.zero_shot else []
        if (heat := interfaces.alone(one)) and heat.columns != [interfaces.ZERO_SHOT]:
            tables.append([(heat.head, *heat.columns), *_heated(heat)])
        parts += [f"{_heading(one)}\n" + "\n\n".join(map(_aligned, tables))] if tables else []
    return "\n\n".join(parts)


def verdicts(comparisons: Sequence[Comparison]) -> list[str]:
    """For a terminal, of each comparison: what the attack did, what came of defences, and what the best one cost."""
    lines = []
    for one in page.judged_of(comparisons):
        lines += [_heading(one.comparison)] if len(comparisons) > 1 else []
        lines += [said for said in (wording.headline(one.verdict), wording.won(one.verdict)) if said]
    return lines


def markdown(comparisons: Sequence[Comparison]) -> str:
    """The verdicts and the tables; a mean stands above runs that differ by their seed alone."""
    parts = ["# Clean accuracy and attack success\n"]
    judged = page.judged_of(comparisons) if all(one.measured() for one in comparisons if one.zero_shot) else []
    for heat in interfaces.matrices([(one.verdict, one.comparison, one.anchor) for one in judged]):
        parts.append(f"\n{heat.about}.\n\n{_heat(heat)}")
    told = {id(one.comparison): one for one in judged}
    for comparison in comparisons:
        if not comparison.zero_shot:
            continue
        parts.append(f"\n## {_heading(comparison)}\n\n")
        lines, known = [_cells(row) for row in comparison.rows], told.get(id(comparison))
        if known:
            verdict = known.verdict
            said = (wording.headline(verdict), wording.attacked(verdict), wording.tried(verdict), wording.won(verdict))
            parts += [f"{text}\n\n" for text in (*said, " ".join(wording.caveats(verdict))) if text]
            lines = [line for group in verdict.groups for line in _grouped(group)]
        parts.append(formatting.markdown((HEAD, RULE, *lines)))
        if known:
            parts += _more(details.details(comparison, known.verdict, known.captioned))
    for heading, heat in page.elsewhere(comparisons, judged):
        parts.append(f"\n## {heading}\n\n{_heat(heat)}")
    parts.append(
        "\nIn brackets: exact 95% intervals (Clopper-Pearson) over test images; of a mean over seeds, the lowest and "
        "the highest. Attack success leaves out images of the target's own class (n is what is left); the floor is "
        "the same number on a run without poison, the baseline is finetuned without a defence.\n"
    )
    return "".join(parts)


def _more(found: Details) -> list[str]:
    """Everything else that was measured, each table under its heading."""
    tables = [("Through training", found.checkpoints), ("Mean cosine of training pairs", found.similarity)]
    tables += [(f"Class by class: {one.name}", one.table) for one in found.classes]
    tables += [("Beside what each started from", found.parents)]
    exposure = [f"\n### At every interface\n\n{_heat(found.exposure)}"] if found.exposure else []
    return [*exposure, *(f"\n### {heading}\n\n{_table(table)}" for heading, table in tables if table)]


def _heat(heat: Heat) -> str:
    head = (heat.head, *heat.columns)
    return formatting.markdown((head, ["---", *["---:"] * len(heat.columns)], *_heated(heat)))


def _heated(heat: Heat) -> list[tuple[str, ...]]:
    """`98.0% [96.0–100.0], CA 95.0%`"""
    lines = []
    for line in heat.lines:
        cells = []
        for spot in line.spots:
            success = [f"{spot.success} [{_ends(spot.ends)}]"] if spot and spot.success else []
            clean = [f"{spot.word} {spot.accuracy}"] if spot and spot.accuracy else []
            cells.append(", ".join([*success, *clean]) or "-")
        lines.append((line.name, *cells))
    return lines


def _table(table: Table) -> str:
    rows = [
        (row.name, *(f"{cell.number}{f' [{_ends(cell.ends)}]' if cell.ends else ''}" for cell in row.cells))
        for row in table.rows
    ]
    more = f"\n{table.left} more in scores.csv.\n" if table.left else ""
    return formatting.markdown(((table.head, *table.columns), ["---", *["---:"] * len(table.columns)], *rows)) + more


def _ends(shown: str) -> str:
    """1.0–2.0 -> 1.0, 2.0"""
    return shown.replace("–", ", ")


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
        found = about.get((score.run, score.attack))  # none of pairs alone, of a run that no test set was for
        writer.writerow(
            [
                *(_described(found) if found else ("", "", "")),
                *("" if (v := getattr(score, n)) is None else v for n in names),
            ]
        )
    return out.getvalue()


def _described(row: Result) -> tuple[str, str, str]:
    """Weights from elsewhere have no seed that is known."""
    return row.role.kind, row.run.objective, "" if row.run.objective == ADOPTED else str(row.run.seed)


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
