"""The report as one self-contained HTML file: no script, nothing fetched, readable at any width and on paper.

A pure function: the same comparisons, images and run folders give the same bytes. Here and in results.py, figures.py
and drawing.py the values are prepared; the markup is in templates/.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eval.judging.roles import POINTS_ALLOWED, Comparison
from eval.reporting import drawing, figures, rendering, results
from eval.reporting import scans as tables
from eval.reporting.drawing import Chart
from eval.reporting.formatting import counted, listed
from eval.reporting.provenance import Facts
from eval.store.records import Example
from eval.store.runs import Run
from eval.store.scans import ScanRecord
from poison.sheets.layout import Shown


@dataclass(frozen=True)
class Material:
    """Everything a page shows.

    examples: by attack key and test set digest. triggers: PNG of the trigger alone, by attack key. preview: poisoned
    pairs, before and after. facts: provenance, a heading with names and values. scans: what they were worth.
    """

    comparisons: Sequence[Comparison]
    examples: Mapping[tuple[str, str], Sequence[Example]]
    triggers: Mapping[str, bytes]
    preview: Sequence[Shown]
    facts: Sequence[tuple[str, Facts]]
    scans: Sequence[ScanRecord] = ()


def render(material: Material) -> str:
    """The whole page. Every comparison must have its headline numbers (Comparison.measured)."""
    sections = []
    for number, one in enumerate(material.comparisons):
        shown = material.examples.get((one.attack.key, one.testset.digest), ()) if one.attack else ()
        sections.append(results.section(one, f"result-{number}", shown))
    attacks = []
    for attack in {one.attack.key: one.attack for one in material.comparisons if one.attack}.values():
        shown = next((found for (key, _), found in material.examples.items() if key == attack.key and found), ())
        attacks.append(figures.attack_section(attack, material.triggers.get(attack.key), shown))
    return rendering.text(
        "report.html",
        title=_title(material.comparisons),
        sections=sections,
        attacks=attacks,
        pairs=figures.training_pairs(material.preview),
        scans=tables.tables(material.scans),
        scans_explained=tables.EXPLAINED,
        training=_training(list({row.run.url: row.run for one in material.comparisons for row in one.rows}.values())),
        points_allowed=f"{100 * POINTS_ALLOWED:.0f}",
        provenance=material.facts,
    )


def _title(comparisons: Sequence[Comparison]) -> str:
    attacks = {one.attack.key: one.attack for one in comparisons if one.attack}.values()
    names = listed(sorted({attack.plugin for attack in attacks}))
    if not attacks:
        return "Clean accuracy"
    if len(comparisons) == 1:
        return f"The {names} attack on CLIP"
    testsets = {one.testset.key for one in comparisons}
    return f"{counted(len(attacks), 'attack')} on CLIP ({names}), {counted(len(testsets), 'test set')}"


def _training(runs: Sequence[Run]) -> list[tuple[str, Chart]]:
    """Losses of what was pretrained and of what was finetuned, where there are such runs."""
    found = []
    for heading, some in (
        ("Pretraining", [run for run in runs if not run.ancestors]),
        ("Finetuning", [run for run in runs if run.ancestors]),
    ):
        if some:
            series = [
                (run.name if run.name == run.objective else f"{run.name} ({run.objective})", run.losses) for run in some
            ]
            found.append((heading, drawing.chart(series, f"{heading}: training loss against the number of steps")))
    return found
