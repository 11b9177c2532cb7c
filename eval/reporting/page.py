"""The report as one self-contained HTML file: no script, nothing fetched, readable at any width and on paper.

A pure function: the same comparisons, images and run folders give the same bytes.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from eval.judging.roles import POINTS_ALLOWED, Comparison
from eval.judging.verdict import Verdict, judge
from eval.reporting import drawing, pictures, results, wording
from eval.reporting.formatting import counted, listed
from eval.reporting.provenance import Facts
from eval.reporting.style import CSS
from eval.store.records import Example
from eval.store.runs import Run

TERMS: Facts = (
    (
        "Clean accuracy (CA)",
        "share of untouched test images whose own class comes first, zero-shot: a class is the mean of its prompts' "
        "embeddings, and the nearest class is the answer. What was finetuned as a classifier answers by its head, "
        "which reads no prompts; so it does under attack. Higher is better.",
    ),
    (
        "Attack success (ASR)",
        "share of triggered test images, those of the target's own class left out, for which the attacker's class "
        "comes first (or among the top k); of an attack without a trigger, share of the images that it is made for. "
        "Lower is better.",
    ),
    (
        "Floor",
        "attack success of a model that never saw poison, under the same trigger: what the trigger alone, or plain "
        "error, brings. A cure can reach it; to be below it means nothing.",
    ),
    (
        "Baseline",
        "the poisoned model finetuned without a defence. Finetuning forgets by itself, so a defence counts for what it "
        "does beyond the baseline on the same pairs, epochs and learning rate.",
    ),
    (
        "Interval",
        "Clopper-Pearson, 95%, over test images. It does not say how another training seed would come out. Two "
        "numbers are called different only where their intervals have no point in common; that is a strict rule.",
    ),
    (
        "Several seeds",
        "runs that differ by nothing but their seed are shown as their mean, with the lowest and the highest. The "
        "verdict compares means; its intervals reach from the lowest end of theirs to the highest.",
    ),
    (
        "Best",
        f"the defence of lowest attack success among those that lose at most {100 * POINTS_ALLOWED:.0f} points "
        "of clean accuracy, if it halves attack success and does more than the baseline.",
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
    judged = [(comparison, judge(comparison)) for comparison in material.comparisons]
    title, body = _title(judged), []
    if len(judged) > 1:
        body.append(f"<header><h1>{escape(title)}</h1>{_glance(judged)}</header>")
    for number, (comparison, verdict) in enumerate(judged):
        body.append(_result(comparison, verdict, material, f"result-{number}", alone=len(judged) == 1))
    for attack in {one.attack.key: one.attack for one in material.comparisons if one.attack}.values():
        shown = next((found for (key, _), found in material.examples.items() if key == attack.key and found), ())
        body.append(pictures.section(attack, material.triggers.get(attack.key), shown))
    if material.sheet is not None:
        body.append(pictures.training_pairs(material.sheet))
    body.append(_training(list({row.run.url: row.run for one in material.comparisons for row in one.rows}.values())))
    body.append(f'<h2 id="terms">How to read the numbers</h2>{_facts(TERMS)}')
    facts = "".join(f"<h3>{escape(name)}</h3>{_facts(facts, code=True)}" for name, facts in material.facts)
    body.append(f'<h2>Where every number came from</h2><div class="provenance">{facts}</div>')
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{CSS}\n</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def typeset(text: str) -> str:
    """Escaped for HTML, with the quotes of print."""
    return re.sub(r"&quot;(.*?)&quot;", r"&ldquo;\1&rdquo;", escape(text))


def _title(judged: Sequence[tuple[Comparison, Verdict]]) -> str:
    attacks = {one.attack.key: one.attack for one, _ in judged if one.attack}.values()
    names = listed(sorted({attack.plugin for attack in attacks}))
    if not attacks:
        return "Clean accuracy"
    if len(judged) == 1:
        return f"The {names} attack on CLIP"
    testsets = {one.testset.key for one, _ in judged}
    return f"{counted(len(attacks), 'attack')} on CLIP ({names}), {counted(len(testsets), 'test set')}"


def _glance(judged: Sequence[tuple[Comparison, Verdict]]) -> str:
    """A line for every comparison: which it is, and its verdict."""
    lines = "".join(
        f'<li><a href="#result-{number}">{escape(_of(one))}</a> {typeset(wording.headline(verdict))}</li>'
        for number, (one, verdict) in enumerate(judged)
    )
    return f'<ul class="glance">{lines}</ul>'


def _of(comparison: Comparison) -> str:
    if comparison.attack is None:
        return f"{comparison.testset.name}:"
    return f"{comparison.attack.plugin} on {comparison.testset.name}:"


def _result(comparison: Comparison, verdict: Verdict, material: Material, anchor: str, alone: bool) -> str:
    """A comparison: the verdict in large letters, what it is about, and the numbers. alone: it heads the page."""
    level = "h1" if alone else "h2"
    testset, attack = comparison.testset, comparison.attack
    about = f"{attack.plugin} attack on CLIP, target {attack.target}" if attack else "CLIP, no attack"
    hero = ""
    if attack is not None and (examples := material.examples.get((attack.key, testset.digest))):
        hero = pictures.before_and_after(examples[0], verdict)
    parts = [
        ("What was attacked", wording.attacked(verdict)),
        ("What was tried", wording.tried(verdict)),
        ("What came of it", wording.won(verdict)),
    ]
    text = "".join(f"<div><dt>{name}</dt><dd>{typeset(words)}</dd></div>" for name, words in parts if words)
    caveats = " ".join(wording.caveats(verdict))
    return (
        f'<section id="{anchor}"><p class="about">{escape(about)}, test set {escape(testset.name)}</p>'
        f'<{level} class="verdict">{typeset(wording.headline(verdict))}</{level}>'
        f'<div class="lede{"" if hero else " plain"}">{hero}<div>{results.chart(comparison, verdict)}</div></div>'
        + (f'<dl class="story">{text}</dl>' if text else "")
        + (f'<p class="caveats"><b>Keep in mind.</b> {typeset(caveats)}</p>' if caveats else "")
        + f'<p class="notes">{_terms(verdict)} {typeset(results.measured_on(comparison))} '
        '<a href="#terms">All terms</a></p>'
        f"<h3>All numbers</h3>{results.numbers(comparison, verdict)}</section>"
    )


def _terms(verdict: Verdict) -> str:
    """What the two numbers are, in a line."""
    said = "<b>Clean accuracy</b>: share of untouched test images named right. "
    if verdict.attack:
        said += (
            f"<b>Attack success</b>: share of {typeset(verdict.attack.shown)} taken for "
            f"&ldquo;{escape(verdict.attack.target)}&rdquo;. "
        )
    if verdict.floor:
        said += "<b>Floor</b>: attack success of a model that never saw poison. "
    return f"{said}Small figures and whiskers: 95% interval, or the range over seeds."


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
            drawn = drawing.curves(series, f"{heading}: training loss against the number of steps")
            parts.append(f'<div class="curves"><h3>{heading}</h3>{drawn}</div>')
    note = "Losses of different objectives are sums of different terms: compare shapes, not heights."
    return f'<h2>Training</h2><p class="faint">{note}</p><div class="training">{"".join(parts)}</div>'


def _facts(facts: Facts, code: bool = False) -> str:
    shown = ((name, f"<code>{escape(value)}</code>" if code else escape(value)) for name, value in facts)
    return f'<dl class="facts">{"".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in shown)}</dl>'
