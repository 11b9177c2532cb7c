"""Many grids in one table: what a report shows in depth for a few runs, here a line for each attack and run.

Lines of different folders are taken together where the ledger folder's name, attack and training are the same, and only
seeds differ (that of the book too: every seed may have pairs and test images of its own).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from eval.judging.roles import ORDER, ZERO_SHOT, Result, compare
from eval.judging.seeds import APART, together
from eval.reporting import formatting
from eval.reporting.formatting import percent, within
from eval.store import current, records
from eval.store.records import AttackRecord, TestSetRecord
from eval.store.scores import Score
from infra import config, storage
from poison.attack import Attack

HEAD = ("attack", "how", "poisons", "run", "clean accuracy", "attack success", "floor", "seeds")
WORD = re.compile(r"[\w ]{1,30}")
RULE = ("---", "---", "---:", "---", "---:", "---:", "---:", "---")


@dataclass(frozen=True)
class Line:
    """One run under one attack. floor: attack success of the unpoisoned run beside it, if one was measured.

    testset: what its test set is called where the folder of scores has several, else "".
    """

    attack: AttackRecord
    row: Result
    floor: Score | None
    testset: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """What seeds share: the attack, and what was done against it."""
        run, kind = self.row.run, self.row.role.kind
        kept = {name: value for name, value in run.config.items() if name not in APART}
        return (
            self.name,
            self.how,
            str(ORDER.index(kind)),
            run.objective,
            "" if kind == "poisoned" else run.name,
            self.testset,
            storage.dump_json(kept).decode(),
        )

    @property
    def name(self) -> str:
        return ledger_name(self.attack)

    @property
    def how(self) -> str:
        """The plugin, and its fields that are not the default; not its seed."""
        return shown(self.attack.attack)


@dataclass(frozen=True, kw_only=True)
class Tabulation:
    """What to put into one table, and where it goes."""

    scores: tuple[str, ...]
    """Folders of scores, from `evaluate`; the runs they name must still be where they were."""
    out: str
    """The Markdown file to write."""
    dry_run: bool = False
    """Print the table; touch nothing."""

    def __post_init__(self) -> None:
        if not self.scores:
            raise ValueError("--scores needs at least one folder of scores")
        if (twice := storage.twice(self.scores)) is not None:
            raise ValueError(f"--scores names {twice} twice")
        if not self.out.endswith(".md"):
            raise ValueError(f"--out names a Markdown file (.md), not {self.out!r}")

    def run(self) -> str:
        """Returns the entry's last line."""
        lines = [line for folder in self.scores for line in _lines(storage.absolute(folder))]
        if not lines:
            raise ValueError("no attack was measured in these folders of scores: run evaluate with --ledger")
        text = markdown(lines)
        if self.dry_run:
            print(text, end="")
            return f"dry run: would write a table of {len(lines)} runs to {storage.absolute(self.out)}"
        if storage.exists(self.out) and storage.read(self.out) == text.encode():
            return f"nothing to do: table of {len(lines)} runs at {storage.absolute(self.out)}"
        storage.write(self.out, text.encode())
        return f"table of {len(lines)} runs at {storage.absolute(self.out)}"


def markdown(lines: Sequence[Line]) -> str:
    """The table. In the order of the attacks' names; what has not been measured is a dash.

    Raises ValueError for two lines of one experiment and one seed.
    """
    groups: dict[tuple[str, ...], list[Line]] = {}
    for line in sorted(lines, key=lambda line: (line.key, line.row.run.seed)):
        groups.setdefault(line.key, []).append(line)
    for group in groups.values():
        for one, other in pairwise(group):
            if one.row.run.seed == other.row.run.seed:
                raise ValueError(_measured_twice(one, other))
    rows = [HEAD, RULE, *(_cells(group) for group in groups.values())]
    return formatting.markdown(rows)


def _measured_twice(one: Line, other: Line) -> str:
    """Names both lines of one experiment and one seed, and says what to do."""
    said = f"the attack {one.name} was measured more than once with seed {one.row.run.seed}"
    runs = one.row.run, other.row.run
    if runs[0].url == runs[1].url:
        return f"{said}: {runs[0].url} is in two folders of scores, or under two ledgers of that name; keep one"
    names = " and ".join(run.url for run in runs)
    if runs[0].weights_sha256 == runs[1].weights_sha256:
        return f"{said}: {names} are one training under two names; keep the scores of one"
    return f"{said}, in {names}: ledgers of different experiments need different names, and trainings different seeds"


def ledger_name(attack: AttackRecord) -> str:
    """The ledger's folder: what the experimenter calls the attack."""
    return attack.place.rstrip("/").rsplit("/", 1)[-1]


def shown(attack: dict[str, Any]) -> str:
    """`badnet: size 42, cell 7`: an attack's JSON as people read it. Left out are seeds, and whatever names a folder or
    carries content: of each seed these are others."""
    usual = config.to_json(type(config.from_json(Attack, attack))())
    knobs = [
        f"{name} {value}"
        for name, value in attack.items()
        if value != usual[name] and name != "target" and not name.endswith("seed")
        if isinstance(value, (int, float)) or (isinstance(value, str) and WORD.fullmatch(value))
    ]
    return f"{attack['plugin']}{': ' if knobs else ''}{', '.join(knobs)}"


def _lines(folder: str) -> list[Line]:
    found, runs = current.read(folder)
    testsets, attacks = records.read_testsets(folder), records.read_attacks(folder)
    lines = []
    names = _told_apart(
        [record for record in testsets if record.key in {s.testset for s in found if s.task in ZERO_SHOT}]
    )
    for comparison in compare(found, runs, testsets, attacks):
        if comparison.attack is None or not comparison.zero_shot:
            continue
        floors = [row for row in comparison.of("floor") if row.get("attack_success")]
        twins = [row for row in floors if row.role.twin] or floors
        floor = max((row.success for row in twins), key=lambda score: score.value, default=None)
        on = names[comparison.testset.key]
        lines += [Line(comparison.attack, row, floor, on) for row in comparison.rows if row.role.kind != "floor"]
    return lines


def _told_apart(testsets: Sequence[TestSetRecord]) -> dict[str, str]:
    """What each is called, by key: "" for the only one; its name; where names are equal its folder, or its content."""
    if len(testsets) == 1:
        return {testsets[0].key: ""}
    for called in (lambda one: one.name, lambda one: one.place, lambda one: one.key):
        names = {one.key: str(called(one)) for one in testsets}
        if len(set(names.values())) == len(names):
            break
    return names


def _cells(group: Sequence[Line]) -> tuple[str, ...]:
    first = group[0]
    shares = [line.attack.poisons / line.attack.samples for line in group if line.attack.samples]
    counts = sorted({line.attack.poisons for line in group})
    count = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    rate = f" ({percent(sum(shares) / len(shares), 2)})" if len(shares) == len(group) else ""
    return (
        first.name,
        first.how,
        f"{count}{rate}",
        (first.row.role.words if first.row.role.kind != "poisoned" else "undefended")
        + (f", on {first.testset}" if first.testset else ""),
        _mean([line.row.get("accuracy") for line in group]),
        _mean([line.row.get("attack_success") for line in group]),
        _mean([line.floor for line in group]),
        ", ".join(str(line.row.run.seed) for line in group),
    )


def _mean(found: Sequence[Score | None]) -> str:
    """The mean over seeds and their range; of one seed, its 95% interval."""
    measured = [score for score in found if score is not None and score.low is not None]
    if len(measured) < len(found):
        return "-"
    share = together(measured)
    low, high = (share.low, share.high) if len(measured) == 1 else (share.least, share.most)
    return within(share.value, low, high)
