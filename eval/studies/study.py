"""A planned study: every run that it is to have, and what has been measured of it by now.

The plan is a table with tabs between its columns, a line for each run under each attack:

    attack   method      lr    seed  mark    scores                     run
    badnet   floor       -     0     tried   s0/defended-scores/badnet  s0/runs/clean
    badnet   undefended  -     0     tried   s0/defended-scores/badnet  s0/runs/badnet
    badnet   cleanclip   1e-3  0     tried   s0/defended-scores/badnet  s0/defended/badnet/cleanclip-1e-3
    badnet   cleanclip   2e-3  0     chosen  s0/defended-scores/badnet  s0/defended/badnet/cleanclip-2e-3

attack: the folder of its ledger. The column between method and seed names the knob by which a method is made stronger;
scores and run are folders, seen from the plan's own; `chosen` marks the value that the study settled on.
"""

import csv
from dataclasses import dataclass, replace

from eval.judging.roles import Kind, Result, compare
from eval.judging.seeds import Share, together
from eval.store import current, records
from eval.store.records import AttackRecord
from eval.studies.tabulation import ledger_name
from infra import log, storage, text

FLOOR, UNDEFENDED = "floor", "undefended"
ROLES: dict[str, Kind] = {FLOOR: "floor", UNDEFENDED: "poisoned"}
MARKS = ("tried", "chosen")
COLUMNS = ("attack", "method", None, "seed", "mark", "scores", "run")  # None: the knob


@dataclass(frozen=True)
class Cell:
    """One planned run under one attack. attack: its ledger's folder; result, record: None until it is measured."""

    attack: str
    method: str
    setting: str
    seed: int
    chosen: bool
    scores: str
    run: str
    result: Result | None = None
    record: AttackRecord | None = None


@dataclass(frozen=True)
class Row:
    """One method at one setting against one attack: a cell for each seed, in their order."""

    cells: tuple[Cell, ...]

    @property
    def method(self) -> str:
        return self.cells[0].method

    @property
    def setting(self) -> str:
        """Empty where there is none."""
        return "" if self.cells[0].setting == "-" else self.cells[0].setting

    @property
    def chosen(self) -> bool:
        return self.cells[0].chosen

    @property
    def measured(self) -> tuple[Result, ...]:
        return tuple(cell.result for cell in self.cells if cell.result)

    @property
    def accuracy(self) -> Share | None:
        """Over the seeds that were measured."""
        return together([row.accuracy for row in self.measured]) if self.measured else None

    @property
    def success(self) -> Share | None:
        return together([row.success for row in self.measured]) if self.measured else None


@dataclass(frozen=True)
class Study:
    """knob: its name. rows: by attack, in the plan's order; floor and undefended first."""

    knob: str
    rows: dict[str, tuple[Row, ...]]

    @property
    def methods(self) -> list[str]:
        """All methods, without the floor and the undefended model."""
        return list(dict.fromkeys(row.method for rows in self.rows.values() for row in rows if row.method not in ROLES))

    @property
    def cells(self) -> list[Cell]:
        return [cell for rows in self.rows.values() for row in rows for cell in row.cells]

    def record(self, attack: str) -> AttackRecord | None:
        """What is known of an attack once something was measured under it, of its first seed there."""
        return next((cell.record for cell in self.cells if cell.attack == attack and cell.record), None)

    def title(self, attack: str) -> str:
        """Its name, and what it is where the name does not say it."""
        record = self.record(attack)
        return attack if record is None or record.plugin in attack else f"{attack} ({record.plugin})"

    def of(self, attack: str, method: str) -> list[Row]:
        return [row for row in self.rows[attack] if row.method == method]

    def chosen(self, attack: str, method: str) -> Row | None:
        """A method's row at the value that was chosen; floor and undefended have one row."""
        return next((row for row in self.of(attack, method) if row.chosen or method in ROLES), None)


def read(url: str) -> Study:
    """The plan at `url`, filled with what was measured. Raises ValueError for a plan that cannot be read or that does
    not agree with what was measured."""
    knob, cells = _plan(url)
    found: dict[tuple[str, str, str], tuple[Result, AttackRecord]] = {}
    for folder in dict.fromkeys(cell.scores for cell in cells):
        if storage.names(folder):
            found |= _measured(folder)
    filled = [_filled(cell, found.pop((cell.scores, cell.attack, storage.real(cell.run)), None)) for cell in cells]
    if found:
        log.warn(f"{len(found)} measured results are of no planned run; they are left out")
    by_row: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in sorted(filled, key=lambda cell: list(ROLES).index(cell.method) if cell.method in ROLES else len(ROLES)):
        by_row.setdefault((cell.attack, cell.method, cell.setting), []).append(cell)
    rows = [Row(tuple(sorted(some, key=lambda cell: cell.seed))) for some in by_row.values()]
    attacks = dict.fromkeys(cell.attack for cell in cells)
    return Study(knob, {attack: tuple(row for row in rows if row.cells[0].attack == attack) for attack in attacks})


def _plan(url: str) -> tuple[str, list[Cell]]:
    if not storage.exists(url):
        raise ValueError(f"no plan at {url}: it is a table with tabs, a line for each run under each attack")
    head, *lines = csv.reader(text.lines(storage.read(url), url), delimiter="\t")
    if len(head) != len(COLUMNS) or any(want not in (None, name) for want, name in zip(COLUMNS, head, strict=True)):
        wanted = ", ".join(name or "that of the setting" for name in COLUMNS)
        raise ValueError(f"{url} is no plan: its columns are {wanted}, with tabs between them, not {', '.join(head)}")
    home, cells = url.rpartition("/")[0], {}
    for line in lines:
        if len(line) != len(head) or not line[3].isdecimal() or line[4] not in MARKS:
            raise ValueError(f"{url}: a line needs a seed and one of {', '.join(MARKS)}, not {' '.join(line)!r}")
        attack, method, setting, seed, mark, scores, run = line
        if (attack, method, setting, seed) in cells:
            raise ValueError(f"{url} plans {method} {setting} against {attack} with seed {seed} twice")
        folders = storage.join(home, scores), storage.join(home, run)
        cells[attack, method, setting, seed] = Cell(attack, method, setting, int(seed), mark == "chosen", *folders)
    if not cells:
        raise ValueError(f"{url} plans nothing")
    return head[2], list(cells.values())


def _measured(folder: str) -> dict[tuple[str, str, str], tuple[Result, AttackRecord]]:
    """By (folder, attack, run): the runs that have both headline numbers."""
    kept, runs = current.read(folder)
    found: dict[tuple[str, str, str], tuple[Result, AttackRecord]] = {}
    for comparison in compare(kept, runs, records.read_testsets(folder), records.read_attacks(folder)):
        if comparison.attack is None:
            continue
        for row in comparison.rows:
            key = (folder, ledger_name(comparison.attack), storage.real(row.run.url))
            if row.get("accuracy") is None or row.get("attack_success") is None:
                continue
            if key in found:
                raise ValueError(f"{key[2]} was measured twice under {key[1]} in {folder}: keep one test set a folder")
            found[key] = row, comparison.attack
    return found


def _filled(cell: Cell, found: tuple[Result, AttackRecord] | None) -> Cell:
    """Raises ValueError if the run is not the one that was planned."""
    if found is None:
        return cell
    result, record = found
    wanted = ROLES.get(cell.method)
    if wanted and result.role.kind != wanted:
        raise ValueError(f"{cell.run} is planned as {cell.method} of {cell.attack}, but it is {result.role.words}")
    if result.run.seed != cell.seed:
        raise ValueError(f"{cell.run} is planned with seed {cell.seed}, but it has {result.run.seed}")
    return replace(cell, result=result, record=record)
