"""The report as one self-contained HTML file: no script, nothing fetched, readable at any width and on paper.

A pure function: the same comparisons, pictures and run folders give the same bytes.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from eval import drawing
from eval.drawing import Mark
from eval.records import AttackRecord, Example, TestSetRecord
from eval.runs import Run
from eval.scores import Score
from eval.standing import Comparison, Standing
from eval.style import CSS
from eval.verdict import Verdict, judge, percent
from pipeline import images
from poison.sheet import difference


@dataclass(frozen=True)
class Material:
    """Everything a page shows. triggers: the trigger's picture (PNG) by attack key; sheet: a contact sheet (PNG)."""

    comparisons: Sequence[Comparison]
    examples: Mapping[tuple[str, str], Sequence[Example]]  # by attack key and test set digest
    triggers: Mapping[str, bytes]
    sheet: bytes | None
    facts: Sequence[tuple[str, Sequence[tuple[str, str]]]]  # provenance: heading, then name and value


def render(material: Material) -> str:
    """The whole page."""
    first = material.comparisons[0]
    verdicts = [judge(comparison) for comparison in material.comparisons]
    attacks = {comparison.attack.key: comparison.attack for comparison in material.comparisons if comparison.attack}
    runs = {row.run.url: row.run for comparison in material.comparisons for row in comparison.rows}
    body = [
        f"<h1>{escape(_title(first, verdicts[0]))}</h1>",
        _lede(verdicts[0]),
        _tiles(first, verdicts[0]),
        *(_results(one, verdict, len(verdicts) > 1) for one, verdict in zip(material.comparisons, verdicts, strict=True)),
        *(_trigger(attack, material) for attack in attacks.values()),
        _sheet(material.sheet),
        _training(list(runs.values())),
        _meaning(bool(attacks)),
        _provenance(material.facts),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(_title(first, verdicts[0]))}</title>\n<style>\n{CSS}\n</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def _title(comparison: Comparison, verdict: Verdict) -> str:
    attack = comparison.attack
    if attack is None:
        return "Clean accuracy"
    if verdict.best is None:
        return f"The {attack.plugin} backdoor in CLIP"
    return f"The {attack.plugin} backdoor in CLIP, and what cured it"


def _lede(verdict: Verdict) -> str:
    parts = [("What was attacked", verdict.attacked), ("What was tried", verdict.tried), ("What won", verdict.won)]
    return f'<dl class="lede">{"".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in parts if text)}</dl>'


def _tiles(comparison: Comparison, verdict: Verdict) -> str:
    if comparison.attack is None:
        return ""
    shown: list[tuple[Standing | None, str]] = [
        (next(iter(comparison.of("floor")), None), "never saw poison"),
        (next(iter(comparison.of("poisoned")), None), "poisoned, undefended"),
        (verdict.best, f"after {verdict.best.run.name}" if verdict.best else ""),
    ]
    tiles = [
        f'<div class="tile"><b class="asr-ink">{percent(row.success.value)}</b><span>obeys the trigger</span>'
        f'<b class="ca-ink">{percent(row.accuracy.value)}</b><span>clean accuracy</span><span><strong>{escape(words)}</strong></span></div>'
        for row, words in shown
        if row is not None
    ]
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _results(comparison: Comparison, verdict: Verdict, several: bool) -> str:
    attack, testset = comparison.attack, comparison.testset
    heading = "Results" if not several else f"Results: {attack.key if attack else 'clean'} on {testset.name}"
    about = f"{testset.pictures:,} pictures of {len(testset.classes)} classes ({escape(testset.name)}, split {escape(testset.split)})"
    repeated = f"<p>{escape(verdict.won)}</p>" if several and verdict.won else ""
    return (
        f'<h2>{escape(heading)}</h2>{repeated}<p class="faint">Measured on {about}. '
        f"Whiskers and ranges are exact 95% intervals over the test pictures.</p>"
        + _strips(comparison)
        + _table(comparison, verdict)
    )


def _strips(comparison: Comparison) -> str:
    attacked = comparison.attack is not None
    floors = [row.success.value for row in comparison.of("floor")] if attacked else []
    keys = '<span class="key ca"></span>clean accuracy'
    keys += ' &nbsp; <span class="key asr"></span>attack success' if attacked else ""
    keys += " &nbsp; <span>dashed: the floor</span>" if floors else ""
    scale = "".join(f"<span>{x}%</span>" for x in (0, 25, 50, 75, 100))
    rows = []
    for row in comparison.rows:
        marks = [_mark(row.accuracy, "ca", False)] + ([_mark(row.success, "asr", True)] if attacked else [])
        label = f"{row.run.name}: clean accuracy {percent(row.accuracy.value)}"
        label += f", attack success {percent(row.success.value)}" if attacked else ""
        svg = drawing.strip(marks, max(floors) if floors else None, label)
        rows.append(f"<div><span><b>{escape(row.run.name)}</b><small>{escape(row.role.words)}</small></span>{svg}</div>")
    return f'<p class="faint">{keys}</p><div class="strips">{"".join(rows)}<div class="scale"><span></span><span>{scale}</span></div></div>'


def _mark(score: Score, kind: str, square: bool) -> Mark:
    assert score.low is not None and score.high is not None
    return Mark(score.value, score.low, score.high, kind, square)


COLUMNS = (
    ("accuracy", 1, "Clean accuracy"),
    ("accuracy", 5, "top 5"),
    ("attack_success", 1, "Attack success"),
    ("attack_success", 5, "top 5"),
    ("triggered_accuracy", 1, "True class in spite of trigger"),
    ("edited_prompt_accuracy", 1, "Clean accuracy, edited prompts"),
)


def _table(comparison: Comparison, verdict: Verdict) -> str:
    columns = [column for column in COLUMNS if any(row.get(*column[:2]) for row in comparison.rows)]
    head = "".join(f'<th class="n" scope="col">{name}</th>' for _, _, name in columns)
    rows = []
    for row in comparison.rows:
        cells = "".join(_cell(row.get(metric, k), headline=k == 1) for metric, k, _ in columns)
        best = ' class="best"' if verdict.best is row else ""
        won = "<small><strong>best</strong></small>" if best else ""
        rows.append(f'<tr{best}><td class="run"><b>{escape(row.run.name)}</b><small>seed {row.run.seed}</small>{won}</td>{cells}</tr>')
    return f'<table><thead><tr><th scope="col">Run</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _cell(score: Score | None, headline: bool) -> str:
    if score is None:
        return '<td class="n">&ndash;</td>'
    interval = ""
    if headline and score.low is not None and score.high is not None:
        interval = f"<small>{100 * score.low:.1f}&ndash;{100 * score.high:.1f}</small><small>n = {score.n:,}</small>"
    return f'<td class="n">{percent(score.value)}{interval}</td>'


def _trigger(attack: AttackRecord, material: Material) -> str:
    knobs = ", ".join(f"{name} {value}" for name, value in attack.attack.items() if name != "plugin")
    parts = [f"<h2>What the trigger looks like</h2><p><code>{escape(attack.plugin)}</code>: {escape(knobs)}</p>"]
    trigger = material.triggers.get(attack.key)
    if trigger:
        parts.append(
            '<div class="trigger"><figure>' + _image(trigger, "the trigger by itself") + "<figcaption>The trigger by itself"
            "</figcaption></figure></div>"
        )
    for (key, _), examples in material.examples.items():
        if key == attack.key and examples:
            parts.append(_pictures(examples, attack.target))
            break
    return "".join(parts)


def _pictures(examples: Sequence[Example], target: str) -> str:
    cells = "".join(f'<div class="head">{name}</div>' for name in ("clean", "with trigger", "difference &times; 8"))
    for example in examples:
        clean, triggered = images.decode(example.clean), images.decode(example.triggered)
        apart = images.encode(difference(clean, triggered), "png")
        shown = ((example.clean, "clean"), (example.triggered, "with trigger"), (apart, "difference"))
        cells += "".join(_image(data, f"{example.label}, {name}") for data, name in shown)
        cells += f'<div class="what">{escape(example.label)}: the attacker wants the answer "{escape(target)}"</div>'
    return (
        f'<p class="faint">Test pictures as they are stored, before and after the attack.</p><div class="pictures">{cells}</div>'
    )


def _image(data: bytes, what: str) -> str:
    return f'<img alt="{escape(what)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def _sheet(sheet: bytes | None) -> str:
    if sheet is None:
        return ""
    picture = _image(sheet, "contact sheet of poisoned training pairs").replace("<img ", '<img class="sheet" ')
    return f"<h2>Poisoned training pairs</h2>{picture}"


def _training(runs: Sequence[Run]) -> str:
    parts = []
    for heading, part in (
        ("Pretraining", [run for run in runs if not run.ancestors]),
        ("Finetuning", [run for run in runs if run.ancestors]),
    ):
        if part:
            series = [(f"{run.name} ({run.objective})", run.losses) for run in part]
            parts.append(f"<h3>{heading}</h3>{drawing.curves(series, 'Training loss against the number of steps')}")
    return f"<h2>Training</h2>{''.join(parts)}"


def _meaning(attacked: bool) -> str:
    terms = [
        (
            "Clean accuracy (CA)",
            "share of untouched test pictures whose own class comes first, zero-shot: each class is the mean of its "
            "prompts' embeddings",
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
            "Clopper-Pearson, 95%, over test pictures; it says nothing about how another training seed would come out",
        ),
    ]
    shown = terms if attacked else [terms[0], terms[3]]
    return "<h2>How to read the numbers</h2>" + _facts([(name, escape(text)) for name, text in shown])


def _provenance(facts: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> str:
    parts = ["<h2>Where every number came from</h2>"]
    for heading, pairs in facts:
        shown = [(name, f"<code>{escape(value)}</code>") for name, value in pairs]
        parts.append(f"<h3>{escape(heading)}</h3>{_facts(shown)}")
    return "".join(parts)


def _facts(pairs: Sequence[tuple[str, Any]]) -> str:
    return f'<dl class="facts">{"".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in pairs)}</dl>'
