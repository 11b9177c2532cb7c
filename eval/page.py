"""The report as one self-contained HTML file: no script, nothing fetched, readable at any width and on paper.

A pure function: the same comparisons, pictures and run folders give the same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from eval import drawing, pictures, results
from eval.records import Example
from eval.runs import Run
from eval.standing import Comparison
from eval.style import CSS
from eval.verdict import Verdict, judge

Facts = Sequence[tuple[str, str]]

TERMS: Facts = (
    (
        "Clean accuracy (CA)",
        "share of untouched test pictures whose own class comes first, zero-shot; a class is the mean of its prompts' "
        "embeddings",
    ),
    (
        "Attack success (ASR)",
        "share of triggered test pictures, those of the target's own class left out, for which the attacker's class "
        "comes first (or among the top k)",
    ),
    (
        "Floor",
        "attack success of a run that never saw poison, under the same trigger: what the trigger alone, or plain "
        "error, brings",
    ),
    (
        "Interval",
        "Clopper-Pearson, 95%, over test pictures; it does not say how another training seed would come out",
    ),
)


@dataclass(frozen=True)
class Material:
    """Everything a page shows.

    examples: by attack key and test set digest. triggers: PNG of the trigger alone, by attack key. sheet: PNG of a
    contact sheet. facts: provenance, a heading with names and values.
    """

    comparisons: Sequence[Comparison]
    examples: Mapping[tuple[str, str], Sequence[Example]]
    triggers: Mapping[str, bytes]
    sheet: bytes | None
    facts: Sequence[tuple[str, Facts]]


def render(material: Material) -> str:
    """The whole page. Every comparison must have its headline numbers (Comparison.measured)."""
    verdicts = [judge(comparison) for comparison in material.comparisons]
    first, verdict = material.comparisons[0], verdicts[0]
    title = _title(first, verdict)
    body = [f"<h1>{escape(title)}</h1>", _lede(first, verdict, material), results.tiles(first, verdict)]
    for comparison, judged in zip(material.comparisons, verdicts, strict=True):
        body.append(_results(comparison, judged, several=len(verdicts) > 1))
    for attack in {one.attack.key: one.attack for one in material.comparisons if one.attack}.values():
        shown = next((found for (key, _), found in material.examples.items() if key == attack.key), ())
        body.append(pictures.section(attack, material.triggers.get(attack.key), shown))
    if material.sheet is not None:
        sheet = pictures.image(material.sheet, "contact sheet of poisoned training pairs", "sheet")
        body.append(f"<h2>Poisoned training pairs</h2>{sheet}")
    body.append(_training(list({row.run.url: row.run for one in material.comparisons for row in one.rows}.values())))
    body.append(f"<h2>How to read the numbers</h2>{_facts(TERMS)}")
    body.append("<h2>Where every number came from</h2>")
    body += [f"<h3>{escape(heading)}</h3>{_facts(facts, code=True)}" for heading, facts in material.facts]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{CSS}\n</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def _title(comparison: Comparison, verdict: Verdict) -> str:
    if comparison.attack is None:
        return "Clean accuracy"
    cured = ", and what cured it" if verdict.best else ""
    return f"The {comparison.attack.plugin} backdoor in CLIP{cured}"


def _lede(comparison: Comparison, verdict: Verdict, material: Material) -> str:
    parts = [("What was attacked", verdict.attacked), ("What was tried", verdict.tried), ("What won", verdict.won)]
    text = "".join(f"<dt>{name}</dt><dd>{escape(words)}</dd>" for name, words in parts if words)
    hero = ""
    if comparison.attack is not None:
        examples = material.examples.get((comparison.attack.key, comparison.testset.digest))
        hero = pictures.before_and_after(examples[0], comparison.attack.target) if examples else ""
    return f'<div class="lede"><dl>{text}</dl>{hero}</div>'


def _results(comparison: Comparison, verdict: Verdict, several: bool) -> str:
    if not several:
        return results.section(comparison, verdict, "Results")
    under = f" under {comparison.attack.key}" if comparison.attack else ""
    return results.section(comparison, verdict, f"Results on {comparison.testset.name}{under}") + (
        f"<p>{escape(verdict.won)}</p>" if verdict.won else ""
    )


def _training(runs: Sequence[Run]) -> str:
    parts = []
    for heading, some in (
        ("Pretraining", [run for run in runs if not run.ancestors]),
        ("Finetuning", [run for run in runs if run.ancestors]),
    ):
        if some:
            series = [
                (run.name if run.name == run.objective else f"{run.name} ({run.objective})", run.losses) for run in some
            ]
            parts.append(f"<h3>{heading}</h3>{drawing.curves(series, 'Training loss against the number of steps')}")
    return f"<h2>Training</h2>{''.join(parts)}"


def _facts(facts: Facts, code: bool = False) -> str:
    shown = ((name, f"<code>{escape(value)}</code>" if code else escape(value)) for name, value in facts)
    return f'<dl class="facts">{"".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in shown)}</dl>'
