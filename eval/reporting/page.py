"""The report as one self-contained HTML file: no script, nothing fetched, readable at any width and on paper.

A pure function: the same comparisons, images and run folders give the same bytes. Here and in results.py, figures.py
and drawing.py the values are prepared; the markup is in templates/.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa

from eval.judging.roles import POINTS_ALLOWED, Comparison, Result
from eval.judging.verdict import Verdict, judge
from eval.reporting import details, drawing, figures, heat, light, maps, rendering, results
from eval.reporting.drawing import Chart
from eval.reporting.figures import Answer
from eval.reporting.formatting import counted, listed
from eval.reporting.heat import Heat
from eval.reporting.maps import Map
from eval.reporting.provenance import Facts
from eval.store.answers import Asked
from eval.store.records import Example
from eval.store.runs import Run
from poison.sheets.layout import Shown

MANY = 20  # rows of a table; longer ones are folded, and open on paper
OPEN = 3  # sections whose parts all stand open; of more of them each part is folded


@dataclass(frozen=True)
class Material:
    """Everything a page shows.

    examples: by attack key and test set digest. triggers: PNG of the trigger alone, by attack key. preview: poisoned
    pairs, before and after. facts: provenance, a heading with names and values. answers: the class that a run named
    first, by the sha256 of an example. maps: of embeddings, with the number of the target's class.
    """

    comparisons: Sequence[Comparison]
    examples: Mapping[tuple[str, str], Sequence[Example]]
    triggers: Mapping[str, bytes]
    preview: Sequence[Shown]
    facts: Sequence[tuple[str, Facts]]
    answers: Mapping[Asked, Mapping[str, str]] = field(default_factory=dict)
    maps: Mapping[Asked, tuple[pa.Table, int | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """anchor: of its section. captioned: comparisons of the same attack on test sets without classes."""

    comparison: Comparison
    verdict: Verdict
    anchor: str
    captioned: Sequence[Comparison]


def render(material: Material) -> str:
    """The whole page. Every comparison must have its headline numbers (Comparison.measured), or none at all."""
    judged = judged_of(material.comparisons)
    look = light.of(material.examples, material.triggers, material.preview)
    examples = {key: some[: look.examples] for key, some in material.examples.items() if some}
    sections = []
    for one in judged:
        shown = examples.get(_key(one.comparison), ())
        map_of = partial(_map, material, one.comparison)
        more = details.details(one.comparison, one.verdict, one.captioned, map_of)
        sections.append(results.section(one.comparison, one.verdict, one.anchor, shown, more, look))
    attacks = []
    for attack in {one.attack.key: one.attack for one in material.comparisons if one.attack}.values():
        on = next((one for one in judged if one.comparison.attack == attack and _key(one.comparison) in examples), None)
        shown = examples[_key(on.comparison)] if on else ()
        trigger = material.triggers.get(attack.key)
        attacks.append(figures.attack_section(attack, trigger, shown, partial(_answers, material, on), look))
    return rendering.text(
        "report.html",
        title=_title(material.comparisons),
        matrices=heat.matrices([(one.verdict, one.comparison, one.anchor) for one in judged]),
        sections=sections,
        elsewhere=elsewhere(material.comparisons, judged),
        attacks=attacks,
        pairs=figures.training_pairs(material.preview, look),
        training=_training(list({row.run.url: row.run for one in material.comparisons for row in one.rows}.values())),
        points_allowed=f"{100 * POINTS_ALLOWED:.0f}",
        provenance=material.facts,
        many=MANY,
        sections_open=OPEN,
    )


def _key(comparison: Comparison) -> tuple[str, str]:
    """Of its examples."""
    return (comparison.attack.key if comparison.attack else "", comparison.testset.digest)


def judged_of(comparisons: Sequence[Comparison]) -> list[Judged]:
    """The comparisons that have headline numbers, each with its verdict."""
    captioned = [one for one in comparisons if not one.zero_shot]
    return [
        Judged(one, judge(one), f"result-{number}", [other for other in captioned if other.attack == one.attack])
        for number, one in enumerate(one for one in comparisons if one.zero_shot)
    ]


def answering(judged: Judged) -> list[Result]:
    """The runs whose answers to single images are shown: of those at the head of the section, one of each seed."""
    return [group.rows[0] for group in results.foremost(judged.verdict)]


def _answers(material: Material, judged: Judged | None, example: Example) -> Sequence[Answer]:
    if judged is None:
        return ()
    attack, testset = judged.comparison.attack, judged.comparison.testset
    found = []
    for row in answering(judged):
        clean, attacked = (
            material.answers.get(Asked.of(row.run, testset.key, key), {}).get(example.sha256 or "", "")
            for key in (None, attack.key if attack else None)
        )
        if attack and (clean or attacked):
            found.append(Answer(row.run.name, clean, attacked, attacked == attack.target))
    return found


def _map(material: Material, comparison: Comparison, row: Result) -> Map | None:
    attack = comparison.attack
    found = material.maps.get(Asked.of(row.run, comparison.testset.key, attack.key)) if attack else None
    if attack is None or found is None:
        return None
    table, number = found
    return maps.drawn(table, attack.target, number, row.run.name, row.role.words)


def elsewhere(comparisons: Sequence[Comparison], judged: Sequence[Judged]) -> list[tuple[str, Heat]]:
    """What was measured where no headline number was, and is in no section's table: with a heading."""
    told = {id(other) for one in judged for other in one.captioned}
    found = []
    for one in comparisons:
        if not one.zero_shot and id(one) not in told and (table := heat.alone(one)):
            attack = f"{one.attack.plugin} on " if one.attack else ""
            found.append((f"{attack}{one.testset.name}", table))
    return found


def _title(comparisons: Sequence[Comparison]) -> str:
    attacks = {one.attack.key: one.attack for one in comparisons if one.attack}.values()
    names = listed(sorted({attack.plugin for attack in attacks}))
    if not attacks:
        return "Clean accuracy" if all(one.zero_shot for one in comparisons) else "CLIP, no attack"
    if len(comparisons) == 1:
        return f"The {names} attack on CLIP"
    testsets = {one.testset.key for one in comparisons}
    return f"{counted(len(attacks), 'attack')} on CLIP ({names}), {counted(len(testsets), 'test set')}"


def _training(runs: Sequence[Run]) -> list[tuple[str, Chart]]:
    """Losses of what was pretrained and of what was finetuned, where there are such runs; weights from elsewhere have
    none."""
    found = []
    for heading, some in (
        ("Pretraining", [run for run in runs if not run.ancestors and run.known]),
        ("Finetuning", [run for run in runs if run.ancestors]),
    ):
        if some:
            series = [
                (run.name if run.name == run.objective else f"{run.name} ({run.objective})", run.losses) for run in some
            ]
            found.append((heading, drawing.chart(series, f"{heading}: training loss against the number of steps")))
    return found
