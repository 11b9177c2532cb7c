"""A study as its tables and figures see it: every planned run, and what has been measured of it by now."""

from collections.abc import Mapping
from dataclasses import dataclass

from eval.judging.seeds import Share
from eval.studies import steps
from eval.studies.cells import ACCURACY, SUCCESS, Cell, mean
from eval.studies.plan import Plan

FLOOR, UNDEFENDED = "floor", "undefended"
ROLES = (FLOOR, UNDEFENDED)


@dataclass(frozen=True)
class Planned:
    """One planned run under one attack. result: None until it is measured. says: the plan's words for it, if any."""

    attack: str
    method: str
    setting: str
    seed: int
    chosen: bool
    result: Cell | None = None
    says: str | None = None


@dataclass(frozen=True)
class Row:
    """One method at one setting against one attack: a cell for each seed, in their order."""

    cells: tuple[Planned, ...]

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
    def says(self) -> str | None:
        return self.cells[0].says

    @property
    def measured(self) -> tuple[Cell, ...]:
        return tuple(cell.result for cell in self.cells if cell.result)

    @property
    def accuracy(self) -> Share | None:
        """Over the seeds that were measured."""
        return self.mean(*ACCURACY)

    @property
    def success(self) -> Share | None:
        return self.mean(*SUCCESS)

    def mean(self, task: str, metric: str, k: int | None = 1) -> Share | None:
        """Of any number, over the seeds that have it."""
        return mean([result.get(task, metric, k) for result in self.measured])


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
    def cells(self) -> list[Planned]:
        return [cell for rows in self.rows.values() for row in rows for cell in row.cells]

    def known(self, attack: str) -> Cell | None:
        """A cell that says what an attack is, once something was measured under it, of its first seed there."""
        return next((cell.result for cell in self.cells if cell.attack == attack and cell.result), None)

    def title(self, attack: str) -> str:
        """Its name, and what it is where the name does not say it."""
        found = self.known(attack)
        plugin = found.how.partition(":")[0] if found else attack
        return attack if plugin in attack else f"{attack} ({plugin})"

    def of(self, attack: str, method: str) -> list[Row]:
        return [row for row in self.rows[attack] if row.method == method]

    def chosen(self, attack: str, method: str) -> Row | None:
        """A method's row at the value that was chosen; floor and undefended have one row."""
        return next((row for row in self.of(attack, method) if row.chosen or method in ROLES), None)


def filled(plan: Plan, found: Mapping[str, Cell]) -> Study:
    """A plan with the cells that there are, by their rows' names. Methods side by side, weakest settings first."""
    planned: dict[tuple[str, str, str], list[Planned]] = {}
    for row in steps.rows(plan, "@"):
        # Of a method without a chosen value none is: a method without values has just the one.
        chosen = row.chosen and row.method not in ROLES
        says = plan.says(row.method, row.value)
        cell = Planned(row.attack, row.method, row.value, row.seed, chosen, found.get(row.name), says)
        planned.setdefault((row.attack, row.method, row.value), []).append(cell)
    by_attack = {}
    for attack in plan.attacks:
        keys = [(attack, method, value) for method, value in _ordered(plan)]
        by_attack[attack] = tuple(Row(tuple(sorted(planned[key], key=lambda cell: cell.seed))) for key in keys)
    return Study(plan.knob, by_attack)


def _ordered(plan: Plan) -> list[tuple[str, str]]:
    """Methods with each of their values: floor and undefended, then the first value of every method, the second, ..."""
    first = [(method, value) for method in ROLES if method in plan.methods for value in plan.values(method)]
    others = [method for method in plan.methods if method not in ROLES]
    places = max((len(plan.values(method)) for method in others), default=0)
    rest = [(m, plan.values(m)[step]) for step in range(places) for m in others if step < len(plan.values(m))]
    return first + rest
