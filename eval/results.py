"""A comparison in HTML: a chart of both headline numbers, and the table with every number and its interval."""

from html import escape

from eval import drawing
from eval.drawing import Mark
from eval.runs import Run
from eval.scores import Score
from eval.standing import Comparison, Standing
from eval.verdict import Verdict, percent

COLUMNS = (
    ("accuracy", 1, "Clean accuracy"),
    ("accuracy", 5, "top 5"),
    ("attack_success", 1, "Attack success"),
    ("attack_success", 5, "top 5"),
    ("triggered_accuracy", 1, "True class despite trigger"),
    ("edited_prompt_accuracy", 1, "Clean accuracy, edited prompts"),
)


def tiles(comparison: Comparison, verdict: Verdict) -> str:
    """The headline numbers of three runs: never poisoned, poisoned, best cured."""
    if comparison.attack is None:
        return ""
    shown: list[tuple[Standing | None, str]] = [
        (next(iter(comparison.of("floor")), None), "Never saw poison"),
        (next(iter(comparison.of("poisoned")), None), "Poisoned, undefended"),
        (verdict.best, f"Defended: {verdict.best.run.name}" if verdict.best else ""),
    ]
    found = [
        f'<div class="tile"><h3>{escape(words)}</h3>'
        f'<p><b class="asr-ink">{percent(row.success.value)}</b> obeys the trigger</p>'
        f'<p><b class="ca-ink">{percent(row.accuracy.value)}</b> clean accuracy</p></div>'
        for row, words in shown
        if row is not None
    ]
    return f'<div class="tiles">{"".join(found)}</div>'


def section(comparison: Comparison, verdict: Verdict, heading: str) -> str:
    testset = comparison.testset
    return (
        f'<h2>{escape(heading)}</h2><p class="faint">Measured on {testset.pictures:,} pictures of '
        f"{len(testset.classes)} classes (test set {escape(testset.name)}, split {escape(testset.split)}). "
        "Whiskers and ranges are exact 95% intervals over test pictures.</p>"
        + _chart(comparison)
        + _table(comparison, verdict)
    )


def _chart(comparison: Comparison) -> str:
    attacked = comparison.attack is not None
    floors = [row.success.value for row in comparison.of("floor")] if attacked else []
    keys = ['<span><i class="key ca"></i>clean accuracy</span>']
    keys += ['<span><i class="key asr"></i>attack success</span>'] if attacked else []
    keys += ['<span><i class="key floor-key"></i>floor: attack success without poison</span>'] if floors else []
    rows = []
    for row in comparison.rows:
        marks = [_mark(row.accuracy, "ca", False)] + ([_mark(row.success, "asr", True)] if attacked else [])
        label = f"{row.run.name}: clean accuracy {percent(row.accuracy.value)}"
        label += f", attack success {percent(row.success.value)}" if attacked else ""
        svg = drawing.strip(marks, max(floors) if floors else None, label)
        words = f"<b>{escape(row.run.name)}</b><small>{escape(row.role.words)}</small>"
        rows.append(f"<div><span>{words}</span>{svg}</div>")
    axis = f"<div><span></span>{drawing.scale()}</div>"
    return f'<p class="keys">{"".join(keys)}</p><div class="strips">{"".join(rows)}{axis}</div>'


def _mark(score: Score, kind: str, square: bool) -> Mark:
    return Mark(score.value, *score.interval, kind, square)


def _table(comparison: Comparison, verdict: Verdict) -> str:
    columns = [column for column in COLUMNS if any(row.get(*column[:2]) for row in comparison.rows)]
    head = "".join(f'<th class="n" scope="col">{name}</th>' for _, _, name in columns)
    rows = []
    for row in comparison.rows:
        cells = "".join(_cell(row.get(metric, k), headline=k == 1) for metric, k, _ in columns)
        best = verdict.best is row
        small = ", ".join((*settings(row.run), *(["best"] if best else [])))
        name = f"<b>{escape(row.run.name)}</b><small>{escape(small)}</small>"
        rows.append(f'<tr{" class=best" if best else ""}><td class="run">{name}</td>{cells}</tr>')
    head = f'<tr><th scope="col">Run</th>{head}</tr>'
    body = f"<thead>{head}</thead><tbody>{''.join(rows)}</tbody>"
    return f'<table style="--columns: {len(columns)}">{body}</table>'


def settings(run: Run) -> list[str]:
    """What differs most often between runs that are compared."""
    recipe = run.config.get("recipe", {})
    known = [f"lr {recipe['lr']:g}"] if "lr" in recipe else []
    known += [f"{recipe['epochs']} epochs"] if "epochs" in recipe else []
    return [*known, f"seed {run.seed}"]


def _cell(score: Score | None, headline: bool) -> str:
    if score is None:
        return '<td class="n">&ndash;</td>'
    interval = ""
    if headline and score.low is not None and score.high is not None:
        interval = (
            f"<small>{100 * score.low:.1f}&ndash;{100 * score.high:.1f}</small><small>n&nbsp;=&nbsp;{score.n:,}</small>"
        )
    return f'<td class="n">{percent(score.value)}{interval}</td>'
