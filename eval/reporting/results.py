"""A comparison as a page shows it: the table with a chart that heads it, and the one with every number."""

from collections.abc import Sequence
from dataclasses import dataclass

from eval.judging.roles import UNDEFENDED, Comparison, Kind
from eval.judging.seeds import Group, Share, together
from eval.judging.verdict import Verdict
from eval.reporting import figures, wording
from eval.reporting.details import Details
from eval.reporting.drawing import Mark, Strip
from eval.reporting.figures import Hero
from eval.reporting.formatting import counted, percent
from eval.reporting.light import Look
from eval.reporting.rows import NONE, Cell, Row, Table
from eval.store.records import TRIGGERED, AttackRecord, Example
from eval.store.runs import Run
from eval.store.scores import Score

COLUMNS = (
    ("accuracy", 1, "Clean accuracy"),
    ("accuracy", 5, "its top 5"),
    ("attack_success", 1, "Attack success"),
    ("attack_success", 5, "its top 5"),
    ("triggered_accuracy", 1, "True class under attack"),
    ("edited_prompt_accuracy", 1, "Clean accuracy, edited prompts"),
)
PARTS: dict[Kind, str] = {
    "floor": "Never poisoned",
    "poisoned": "Poisoned, undefended",
    "baseline": "Baseline, no defence",
    "defended": "Defended",
    "unknown": "From elsewhere, data unknown",
}
MOST = 7  # rows of the chart at the head of the page


@dataclass(frozen=True)
class Section:
    """One comparison. anchor: its id in the page. story: headings with sentences. more: what else was measured."""

    anchor: str
    attack: AttackRecord | None
    testset: str
    headline: str
    hero: Hero | None
    chart: Table
    floor: bool
    story: Sequence[tuple[str, str]]
    caveats: str
    measured_on: str
    numbers: Table
    more: Details


def section(
    comparison: Comparison, verdict: Verdict, anchor: str, examples: Sequence[Example], more: Details, look: Look
) -> Section:
    """examples: of its attack on its test set. The comparison must have its headline numbers (Comparison.measured)."""
    story = [
        ("What was attacked", wording.attacked(verdict)),
        ("What was tried", wording.tried(verdict)),
        ("What came of it", wording.won(verdict)),
    ]
    return Section(
        anchor=anchor,
        attack=comparison.attack,
        testset=comparison.testset.name,
        headline=wording.headline(verdict),
        hero=figures.before_and_after(examples[0], verdict, look) if comparison.attack and examples else None,
        chart=chart(verdict),
        floor=verdict.floor is not None,
        story=[(heading, words) for heading, words in story if words],
        caveats=" ".join(wording.caveats(verdict)),
        measured_on=measured_on(comparison),
        numbers=numbers(comparison, verdict),
        more=more,
    )


def chart(verdict: Verdict) -> Table:
    """A row for every group, of a large grid for those that matter most: its two headline numbers, and as marks."""
    shown = foremost(verdict)
    columns = ["Clean accuracy", *(["Attack success"] if verdict.attack else [])]
    left = len(verdict.groups) - len(shown)
    return Table(columns, [_charted(group, verdict) for group in shown], left, "Model")


def _charted(group: Group, verdict: Verdict) -> Row:
    shares = [("Clean accuracy", "ca", group.accuracy)]
    shares += [("Attack success", "asr", group.success)] if verdict.attack else []
    many = len(group.rows) > 1
    marks = [Mark(share.value, *_ends(share, many), kind, bar=kind == "asr") for _, kind, share in shares]
    label = ", ".join(f"{metric.lower()} {percent(share.value)}" for metric, _, share in shares)
    name = f"{group.name}, {len(group.rows)} seeds" if many else group.name
    part, small = (_part(group), name) if verdict.attack else (name, group.words)
    return Row(
        name=part,
        notes=[small],
        cells=[
            Cell(metric, percent(share.value), _range(*_ends(share, many)), "", kind) for metric, kind, share in shares
        ],
        best=group is verdict.best,
        strip=Strip(marks, verdict.floor.success.value if verdict.floor else None, f"{group.name}: {label}"),
    )


def _part(group: Group) -> str:
    part = PARTS[group.kind]
    if group.kind == "floor" and not group.rows[0].role.twin:
        part = "Without this poison"
    defended = group.kind == "defended" or group.objective not in UNDEFENDED
    return f"{part}: {group.objective}" if defended else part


def foremost(verdict: Verdict) -> list[Group]:
    """At most MOST groups, in their order: what the verdict speaks of, then the defences of lowest attack success."""
    if len(verdict.groups) <= MOST:
        return list(verdict.groups)
    spoken_of = [verdict.floor, verdict.worst, verdict.start, verdict.baseline, verdict.first]

    def rank(number: int) -> tuple[bool, bool, float]:
        group = verdict.groups[number]
        number_to_show = group.success.value if verdict.attack else -group.accuracy.value
        return not any(group is known for known in spoken_of), group.kind != "defended", number_to_show

    return [verdict.groups[number] for number in sorted(sorted(range(len(verdict.groups)), key=rank)[:MOST])]


def _ends(share: Share, many: bool) -> tuple[float, float]:
    """Of one run its interval, of several their range."""
    return (share.least, share.most) if many else (share.low, share.high)


def _range(low: float, high: float) -> str:
    return f"{100 * low:.1f}–{100 * high:.1f}"


def numbers(comparison: Comparison, verdict: Verdict) -> Table:
    """Every number of every run; above the runs that differ by their seed alone, their mean with its range."""
    columns = [column for column in COLUMNS if any(row.get(*column[:2]) for row in comparison.rows)]
    rows = []
    for group in verdict.groups:
        best, many = group is verdict.best, len(group.rows) > 1
        if many:
            cells = [_mean([row.get(metric, k) for row in group.rows], column) for metric, k, column in columns]
            rows.append(Row(group.name, [f"{len(group.rows)} seeds: mean, lowest–highest"], cells, best))
        for row in group.rows:
            cells = [_cell(row.get(metric, k), k == 1, column) for metric, k, column in columns]
            notes = [row.role.words, ", ".join(settings(row.run))]
            rows.append(Row(row.run.name, notes, cells, best and not many, seed=many))
    return Table([column for *_, column in columns], rows)


def measured_on(comparison: Comparison) -> str:
    """On how many images, and of which test set."""
    testset, attack = comparison.testset, comparison.attack
    said = f"{testset.pictures:,} images of {counted(len(testset.classes), 'class', 'classes')}"
    if attack:
        trials = comparison.rows[0].success.n
        which = f"of them, those that do not show the target {attack.target}, also under the attack"
        said += f"; {trials:,} {which if attack.shown == TRIGGERED else f'trials under the attack, {attack.shown}'}"
    return f"Test set {testset.name}, split {testset.split}: {said}."


def settings(run: Run) -> list[str]:
    """What differs most often between runs that are compared."""
    recipe = run.config.get("recipe", {})
    known = [f"lr {recipe['lr']:g}"] if "lr" in recipe else []
    known += [counted(recipe["epochs"], "epoch")] if "epochs" in recipe else []
    return [*known, f"seed {run.seed}"]


def _mean(scores: list[Score | None], column: str) -> Cell:
    found = [score for score in scores if score is not None and score.low is not None]
    if len(found) < len(scores):
        return Cell(column, NONE)
    share = together(found)
    return Cell(column, percent(share.value), _range(share.least, share.most))


def _cell(score: Score | None, headline: bool, column: str) -> Cell:
    if score is None:
        return Cell(column, NONE)
    if not headline or score.low is None or score.high is None:
        return Cell(column, percent(score.value))
    return Cell(column, percent(score.value), _range(score.low, score.high), f"{score.n:,}")
