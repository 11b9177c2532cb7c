"""Tables of pairs of numbers, attack success on a ground that is the warmer the higher it is, clean accuracy below it.

The matrix at the head of a report (attacks x defences), and the exposure of each run (runs x interfaces).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from eval.judging.roles import UNDEFENDED, Comparison, Result
from eval.judging.seeds import Group, Share, together
from eval.judging.verdict import Verdict
from eval.reporting.formatting import percent
from eval.store.records import AttackRecord
from eval.store.scores import Score

NEVER, ALONE = "never poisoned", "undefended"
ZERO_SHOT = "zero-shot"
INTERFACES = {"zeroshot": ZERO_SHOT, "linear_probe": "linear probe", "knn": "nearest neighbours"}
PAPERS = "-papers"  # what the name of a task ends in that follows the papers' recipe
RETRIEVAL = "retrieval"
SAID = {"CA": "clean accuracy", "recall": "recall of clean captions"}


@dataclass(frozen=True)
class Spot:
    """One cell. success, ends: in large letters and its interval or range; accuracy, around: the same of the clean
    number; each "" where it was not measured. heat: percent of the warmest colour; None: no success. said: all of it in
    words. best: credited by the verdict; costly: it lost more clean accuracy than a cure may."""

    success: str
    ends: str
    accuracy: str
    around: str
    heat: int | None
    said: str
    best: bool = False
    costly: bool = False
    word: str = "CA"


@dataclass(frozen=True)
class Line:
    """spots: one a column; None where nothing was measured. anchor: of the section with more of it, or ""."""

    name: str
    note: str
    anchor: str
    spots: Sequence[Spot | None]


@dataclass(frozen=True)
class Heat:
    """about: what it is, for a caption. head: of the first column. columns: of the others."""

    about: str
    head: str
    columns: Sequence[str]
    lines: Sequence[Line]

    @property
    def costly(self) -> bool:
        return any(spot and spot.costly for line in self.lines for spot in line.spots)


def matrices(judged: Sequence[tuple[Verdict, Comparison, str]]) -> list[Heat]:
    """A matrix for each test set on which several attacks and several methods were measured; else none.

    judged: with the anchor of each one's section. Of a method's settings the one is shown that the verdict would take.
    """
    found = []
    with_attack = [one for one in judged if one[0].attack]
    for testset, some in groupby(with_attack, key=lambda one: one[1].testset):
        rows = list(some)
        chosen = [_methods(verdict) for verdict, _, _ in rows]
        columns = list(dict.fromkeys(sorted((name for one in chosen for name in one), key=_place)))
        if len(rows) < 2 or len([name for name in columns if name != NEVER]) < 2:
            continue
        called = names([verdict.attack for verdict, _, _ in rows if verdict.attack])
        lines = []
        for (verdict, _, anchor), methods in zip(rows, chosen, strict=True):
            assert verdict.attack is not None
            spots = [_of_group(methods.get(name), verdict) for name in columns]
            lines.append(Line(called[verdict.attack.key], f"target {verdict.attack.target}", anchor, spots))
        shown = ("finetuned, no defence" if name.startswith(BASELINE) else name for name in columns)
        several = len([name for name in columns if name.startswith(BASELINE)]) > 1
        about = f"Attack success of every attack after every method, clean accuracy below it; test set {testset.name}"
        found.append(Heat(about, "Attack", columns if several else list(shown), lines))
    return found


BASELINE = "no defence: "


def names(attacks: Sequence[AttackRecord]) -> dict[str, str]:
    """By key: its plugin; of several of one plugin also its ledger's folder, and where that is not enough its key."""
    found = {}
    for attack in attacks:
        alike = [other for other in attacks if other.plugin == attack.plugin]
        folder = attack.place.rstrip("/").rsplit("/", 1)[-1]
        apart = len({other.place.rstrip("/").rsplit("/", 1)[-1] for other in alike}) == len(alike)
        more = folder if apart else attack.key.removeprefix(f"{attack.plugin}-")
        found[attack.key] = attack.plugin if len(alike) == 1 or folder == attack.plugin else f"{attack.plugin} {more}"
    return found


def _methods(verdict: Verdict) -> dict[str, Group]:
    """By column. Of several settings the lowest attack success among those that kept clean accuracy, if any did."""
    found: dict[str, Group] = {}
    if verdict.floor:
        found[NEVER] = verdict.floor
    if verdict.worst:
        found[ALONE] = verdict.worst
    for group in sorted(verdict.groups, key=lambda group: (group not in verdict.kept, group.success.value)):
        if group.kind not in ("floor", "poisoned"):
            found.setdefault(_method(group), group)
    if verdict.first:
        found[_method(verdict.first)] = verdict.first
    return found


def _method(group: Group) -> str:
    if group.kind == "baseline":
        return f"{BASELINE}{group.objective}"
    if group.kind != "defended":
        return group.name
    return f"{group.objective} on the poisoned pairs" if group.objective in UNDEFENDED else group.objective


def _place(column: str) -> tuple[int, str]:
    """Never poisoned, undefended, baselines, then the others by name."""
    first = (NEVER, ALONE)
    return (first.index(column) if column in first else 2 + (not column.startswith(BASELINE))), column


def _of_group(group: Group | None, verdict: Verdict) -> Spot | None:
    if group is None:
        return None
    costly = group.kind == "defended" and group not in verdict.kept
    return spot(group.success, group.accuracy, len(group.rows), group.name, group is verdict.best, costly)


def spot(
    success: Share | None,
    accuracy: Share | None,
    seeds: int,
    name: str,
    best: bool = False,
    costly: bool = False,
    word: str = "CA",
) -> Spot | None:
    """None where neither was measured."""
    if success is None and accuracy is None:
        return None
    said = [f"{what} {percent(one.value)} ({_range(one, seeds)})" for what, one in
            (("attack success", success), (SAID[word], accuracy)) if one]  # fmt: skip
    many = f", {seeds} seeds" if seeds > 1 else ""
    return Spot(
        percent(success.value) if success else "",
        _range(success, seeds) if success else "",
        percent(accuracy.value) if accuracy else "",
        _range(accuracy, seeds) if accuracy else "",
        round(100 * success.value) if success else None,
        f"{name}{many}: {', '.join(said)}{', more than a cure may cost' if costly else ''}",
        best,
        costly,
        word,
    )


def _range(share: Share, seeds: int) -> str:
    low, high = (share.least, share.most) if seeds > 1 else (share.low, share.high)
    return f"{100 * low:.1f}–{100 * high:.1f}"


# The exposure of each run, interface by interface.


@dataclass(frozen=True)
class Interface:
    """One column. clean, attacked: task and metric of its two numbers."""

    name: str
    clean: tuple[str, str]
    attacked: tuple[str, str]
    word: str = "CA"


def exposure(groups: Sequence[Group], comparison: Comparison, others: Sequence[Comparison]) -> Heat | None:
    """groups: of the comparison. others: of the same attack, on test sets with captions. None where nothing but
    zero-shot was measured."""
    here = {(row.run.key, row.run.version): row for row in comparison.rows}
    columns = [(interface, here) for interface in interfaces(comparison.rows, "")]
    for other in others:
        on = f" on {other.testset.name}" if len(others) > 1 else ""
        there = {(row.run.key, row.run.version): row for row in other.rows}
        columns += [(interface, there) for interface in interfaces(other.rows, on)]
    if all(interface.name == ZERO_SHOT for interface, _ in columns):
        return None
    lines = []
    for group in groups:
        spots = []
        for interface, rows in columns:
            found = [rows.get((row.run.key, row.run.version)) for row in group.rows]
            spots.append(_at(interface, found, group.name))
        seeds = f"{len(group.rows)} seeds" if len(group.rows) > 1 else ""
        lines.append(Line(group.name, seeds, "", spots))
    about = "Attack success at each interface, the clean number below it" if comparison.attack else "Each interface"
    return Heat(about, "Model", [interface.name for interface, _ in columns], lines)


def alone(comparison: Comparison) -> Heat | None:
    """Of a comparison without headline numbers: each run at what it was measured at; None where no column is known."""
    columns = interfaces(comparison.rows, "")
    lines = []
    for row in comparison.rows:
        lines.append(Line(row.run.name, row.role.words, "", [_at(one, [row], row.run.name) for one in columns]))
    return Heat("Each interface", "Model", [one.name for one in columns], lines) if columns else None


def interfaces(rows: Sequence[Result], on: str) -> list[Interface]:
    """Those that any of the rows was measured at, zero-shot first and retrieval last. on: the test set, in words."""
    tasks = list(dict.fromkeys(task for row in rows for task, *_ in row.found))
    kinds = [task for task in tasks if task.removesuffix(PAPERS) in INTERFACES]
    kinds.sort(key=lambda task: (list(INTERFACES).index(task.removesuffix(PAPERS)), task))
    found = []
    for task in kinds:
        papers = ", the papers' recipe" if task.endswith(PAPERS) else ""
        attacked = "attack_success" if task == "zeroshot" else task
        name = f"{INTERFACES[task.removesuffix(PAPERS)]}{papers}{on}"
        found.append(Interface(name, (task, "accuracy"), (attacked, "attack_success")))
    if RETRIEVAL in tasks:
        numbers = ((RETRIEVAL, "text_to_image_recall"), (RETRIEVAL, "attack_hit"))
        found.append(Interface(f"{RETRIEVAL}, first place{on}", *numbers, "recall"))
    return found


def _at(interface: Interface, rows: Sequence[Result | None], name: str) -> Spot | None:
    """rows: of a group's runs on the interface's test set."""
    success, clean = _share(rows, *interface.attacked), _share(rows, *interface.clean)
    return spot(success, clean, len(rows), f"{name}, {interface.name}", word=interface.word)


def _share(rows: Sequence[Result | None], task: str, metric: str) -> Share | None:
    found: list[Score] = [score for row in rows if row and (score := row.at(task, metric))]
    return together(found) if len(found) == len(rows) else None
