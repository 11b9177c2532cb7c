"""A comparison in HTML: the table with a chart that heads the page, and the one with every number and its interval."""

from html import escape

from eval.judging.roles import UNDEFENDED, Comparison, Kind
from eval.judging.seeds import Group, Share, together
from eval.judging.verdict import Verdict
from eval.reporting import drawing
from eval.reporting.drawing import Mark
from eval.reporting.formatting import counted, percent
from eval.store.records import TRIGGERED
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
}
MOST = 7  # rows of the chart at the head of the page


def chart(comparison: Comparison, verdict: Verdict) -> str:
    """A row for every group, of a large grid for those that matter most: its two headline numbers, and as marks."""
    attacked = comparison.attack is not None
    shown = foremost(verdict)
    floor = verdict.floor.success.value if verdict.floor else None
    metrics = ["Clean accuracy", *(["Attack success"] if attacked else [])]
    head = '<th scope="col">Model</th>' + "".join(f'<th class="n" scope="col">{name}</th>' for name in metrics)
    head += f'<th class="plot" scope="col"><span class="unseen">As a chart</span>{drawing.scale()}</th>'
    body = "".join(_row(group, verdict, attacked, floor) for group in shown)
    left = len(verdict.groups) - len(shown)
    more = f'<p class="faint">{left} more in the table of all numbers below.</p>' if left else ""
    return f"{_keys(verdict)}<table class='chart'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _keys(verdict: Verdict) -> str:
    keys = ['<span><i class="key ca"></i>clean accuracy: higher is better</span>']
    if verdict.attack:
        keys.append('<span><i class="key asr"></i>attack success: lower is better</span>')
    if verdict.floor:
        keys.append('<span><i class="key floor-key"></i>floor</span>')
    return f'<p class="keys">{"".join(keys)}</p>'


def _row(group: Group, verdict: Verdict, attacked: bool, floor: float | None) -> str:
    shares = [("Clean accuracy", "ca", group.accuracy)]
    shares += [("Attack success", "asr", group.success)] if attacked else []
    many = len(group.rows) > 1
    marks = [Mark(share.value, *_ends(share, many), kind, bar=kind == "asr") for _, kind, share in shares]
    label = ", ".join(f"{metric.lower()} {percent(share.value)}" for metric, _, share in shares)
    svg = drawing.strip(marks, floor, f"{group.name}: {label}")
    best = group is verdict.best
    name = f"{group.name}, {len(group.rows)} seeds" if many else group.name
    part, small = (_part(group), name) if attacked else (name, group.words)
    badge = ' <em class="badge">best</em>' if best else ""
    cells = "".join(
        f'<td class="n" data-label="{metric}"><b class="{kind}-ink">{percent(share.value)}</b>'
        f"{_range(*_ends(share, many))}</td>"
        for metric, kind, share in shares
    )
    return (
        f'<tr{" class=best" if best else ""}><th scope="row">{escape(part)}{badge}<small>{escape(small)}</small></th>'
        f'{cells}<td class="plot">{svg}</td></tr>'
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
    return f"<small>{100 * low:.1f}&ndash;{100 * high:.1f}</small>"


def numbers(comparison: Comparison, verdict: Verdict) -> str:
    """Every number of every run; above the runs that differ by their seed alone, their mean with its range."""
    columns = [column for column in COLUMNS if any(row.get(*column[:2]) for row in comparison.rows)]
    head = '<th scope="col">Run</th>' + "".join(f'<th class="n" scope="col">{name}</th>' for _, _, name in columns)
    rows = []
    for group in verdict.groups:
        best = " class=best" if group is verdict.best else ""
        if len(group.rows) > 1:
            cells = "".join(_mean([row.get(*column[:2]) for row in group.rows], column[2]) for column in columns)
            name = f"<b>{escape(group.name)}</b><small>{len(group.rows)} seeds: mean, lowest&ndash;highest</small>"
            rows.append(f'<tr{best}><th scope="row">{name}</th>{cells}</tr>')
        for row in group.rows:
            cells = "".join(_cell(row.get(metric, k), k == 1, name) for metric, k, name in columns)
            small = f"<small>{escape(row.role.words)}</small><small>{escape(', '.join(settings(row.run)))}</small>"
            words = f"<b>{escape(row.run.name)}</b>{small}"
            seed = ' class="seed"' if len(group.rows) > 1 else best
            rows.append(f'<tr{seed}><th scope="row">{words}</th>{cells}</tr>')
    return f'<table class="numbers"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


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


def _mean(scores: list[Score | None], label: str) -> str:
    found = [score for score in scores if score is not None and score.low is not None]
    if len(found) < len(scores):
        return f'<td class="n" data-label="{label}">&ndash;</td>'
    share = together(found)
    return f'<td class="n" data-label="{label}">{percent(share.value)}{_range(share.least, share.most)}</td>'


def _cell(score: Score | None, headline: bool, label: str) -> str:
    if score is None:
        return f'<td class="n" data-label="{label}">&ndash;</td>'
    interval = ""
    if headline and score.low is not None and score.high is not None:
        interval = f"{_range(score.low, score.high)}<small>n&nbsp;=&nbsp;{score.n:,}</small>"
    return f'<td class="n" data-label="{label}">{percent(score.value)}{interval}</td>'
