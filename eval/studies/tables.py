"""The tables of a planned study in Markdown: one over all attacks at the chosen settings, then one for each attack.

What has not been measured is a dash with its name; a mean over fewer seeds than planned says over how many.
"""

from collections.abc import Sequence

from eval.judging.seeds import Share
from eval.reporting import formatting
from eval.reporting.formatting import percent, within
from eval.studies.cells import Cell
from eval.studies.study import FLOOR, ROLES, UNDEFENDED, Planned, Row, Study

NAMES = {FLOOR: "never poisoned", UNDEFENDED: "undefended"}
NOTE = """
In brackets: 95% intervals (Clopper-Pearson over test images) of one seed; of several, from the lowest end to the
highest. *Each seed* is its clean accuracy and its attack success, in percent. A dash is planned and not measured.
"""
STAR = """
A star: trained, victim included, on a processor without AVX-512, which rounds otherwise.
"""
HEAD = ("attack", "how", "poisons", "run", "clean accuracy", "attack success", "floor", "seeds")
RULE = ("---", "---", "---:", "---", "---:", "---:", "---:", "---")


def called(row: Row) -> str:
    """A row's method, and at which setting of the study's knob."""
    return NAMES.get(row.method, f"{row.method} {row.setting}".strip())


def frontier(study: Study, figure: str | None, at: str | None = None) -> str:
    """What each method leaves. figure: name of the file that shows the same. at: a method for the table at equal clean
    accuracy."""
    parts = [f"![Clean accuracy and attack success of each method]({figure})\n"] if figure else []
    parts.append(chosen(study))
    if at is not None:
        parts.append(_matched(study, at))
    parts += [_attack(study, attack) for attack in study.rows]
    starred = any(cell.result and cell.result.elsewhere for cell in study.cells)
    return "\n".join([*parts, NOTE.lstrip() + (STAR.lstrip() if starred else "")])


def chosen(study: Study) -> str:
    """A line for each attack: what each method leaves as it was chosen."""
    every = (*ROLES, *study.methods)
    columns = [method for method in every if any(study.chosen(attack, method) for attack in study.rows)]
    lines = []
    for attack in study.rows:
        lines.append((study.title(attack), *(_brief(study.chosen(attack, method)) for method in columns)))
    settings = [_settings(study, method) for method in columns]
    said = "Attack success at clean accuracy, each method as it was chosen.\n\n"
    return said + _table(("attack", *settings), lines)


def attacks(study: Study) -> str:
    """What each attack achieves on an undefended model, beside the floor: a line for each."""
    lines = [HEAD, RULE]
    for attack in study.rows:
        undefended, floor = study.chosen(attack, UNDEFENDED), study.chosen(attack, FLOOR)
        measured = [cell for row in (undefended, floor) if row for cell in row.cells if cell.result]
        counts = sorted({cell.result.poisons for cell in measured if cell.result})
        count = " to ".join(dict.fromkeys(f"{number:,}" for number in counts[:1] + counts[-1:]))
        known = study.known(attack)
        line = (known.how if known else "-", f"{count}{_rate(known)}" or "-", "undefended")
        numbers = (
            _range(undefended.accuracy if undefended else None, undefended),
            _range(undefended.success if undefended else None, undefended),
            _range(floor.success if floor else None, floor),
        )
        seeds = undefended.cells if undefended else ()
        lines.append((attack, *line, *numbers, ", ".join(str(cell.seed) for cell in seeds if cell.result) or "-"))
    return formatting.markdown(lines)


def _rate(known: Cell | None) -> str:
    return f" ({percent(known.poisons / known.samples, 2)})" if known and known.samples else ""


def _range(share: Share | None, row: Row | None) -> str:
    """The mean over seeds and their range; of one seed, its 95% interval."""
    if share is None or row is None:
        return "-"
    low, high = (share.low, share.high) if len(row.measured) == 1 else (share.least, share.most)
    return within(share.value, low, high)


def _settings(study: Study, method: str) -> str:
    """`cleanclip, lr 2e-3`"""
    rows = [row for attack in study.rows if (row := study.chosen(attack, method))]
    values = list(dict.fromkeys(row.setting for row in rows if row.setting))
    return f"{NAMES.get(method, method)}{f', {study.knob} ' if values else ''}{' or '.join(values)}"


def _brief(row: Row | None) -> str:
    if row is None or row.success is None or row.accuracy is None:
        return "-"
    missing = len(row.cells) - len(row.measured)
    of = f" ({len(row.measured)} of {len(row.cells)} seeds)" if missing else ""
    return f"{percent(row.success.value)} at {percent(row.accuracy.value)}{of}"


def _matched(study: Study, at: str) -> str:
    """Of each method the run whose clean accuracy is nearest to that of `at` as it was chosen, of the same seed."""
    others = [method for method in study.methods if method != at]
    lines = []
    for attack in study.rows:
        row = study.chosen(attack, at)
        anchor = next((cell for cell in row.cells if cell.result), None) if row else None
        if anchor is None or anchor.result is None:
            lines.append((study.title(attack), "-", *("-" for _ in others), "-"))
            continue
        nearest = [_nearest(study, attack, method, anchor.seed, anchor.result.accuracy.value) for method in others]
        lines.append((study.title(attack), _at(anchor), *nearest, str(anchor.seed)))
    said = (
        f"At matched clean accuracy: {at} as it was chosen, and the run of each other method that is nearest to it.\n\n"
    )
    return said + _table(("attack", at, *others, "seed"), lines)


def _nearest(study: Study, attack: str, method: str, seed: int, accuracy: float) -> str:
    def away(cell: Planned) -> float:
        assert cell.result is not None
        return abs(cell.result.accuracy.value - accuracy)

    cells = [cell for row in study.of(attack, method) for cell in row.cells if cell.result and cell.seed == seed]
    return f"{_at(best)} ({study.knob} {best.setting})" if (best := min(cells, key=away, default=None)) else "-"


def _at(cell: Planned) -> str:
    assert cell.result is not None
    return f"{percent(cell.result.success.value)} at {percent(cell.result.accuracy.value)}"


def _attack(study: Study, attack: str) -> str:
    known = study.known(attack)
    about = f"{known.how}; {known.poisons:,} poisons{_rate(known)}" if known else "Not measured yet."
    lines = []
    for row in study.rows[attack]:
        each = ", ".join(f"{cell.seed}: {_pair(cell.result)}" for cell in row.cells)
        name = f"{NAMES.get(row.method, row.method)}{' (chosen)' if row.chosen else ''}"
        lines.append((name, row.setting, _share(row.accuracy), _share(row.success), each))
    head = ("method", study.knob, "clean accuracy", "attack success", "each seed")
    return f"### {attack}\n\n{about}\n\n{_table(head, lines)}"


def _share(share: Share | None) -> str:
    return within(share.value, share.low, share.high) if share else "-"


def _pair(result: Cell | None) -> str:
    if result is None:
        return "-"
    numbers = f"{100 * result.accuracy.value:.1f} / {100 * result.success.value:.1f}"
    return numbers + ("*" if result.elsewhere else "")


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return formatting.markdown([head, ["---"] * len(head), *lines])
