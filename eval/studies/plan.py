"""A planned study as data: `plans/NAME.toml` becomes rows (a run under an attack) and the steps that lead to them.

    base = "picturebook.toml"             # another file, whose tables this one adds to
    seeds = [0, 1, 2]
    attacks = ["badnet"]                  # of [attack.NAME]
    repeated = ["badnet"]                 # attacks that are measured on all seeds, not on the first alone; default: all
    methods = ["undefended", "mmcl"]      # of [method.NAME]
    order = ["seed", "chosen"]            # of rows, the most useful first; then attacks and methods as they are listed
    metrics = ["zeroshot.accuracy@1"]     # what a row's cell of scores holds: TASK.METRIC@K, @- where there is no k;
                                          # TASK.METRIC:KIND@K of one kind or class
    shares = ["defenses"]                 # studies whose cells stand for rows of the same name and definition

    [step.victim]                         # one command of `antidote`
    run = "pretrain clip --seed {seed} --dataset {here}/poisoned/{attack} --out {here}/runs/{attack}"
    needs = "poisoned"                    # steps, or METHOD:VALUE for the run of another row of this attack and seed
    minutes = "4"                         # on one core: the product of these words

    [method.mmcl]
    step = "cured"                        # what trains it; its --out is the run
    values = ["8e-3", "16e-3"]            # of the knob, on the first seed; `everywhere`: those of all seeds
    chosen = "8e-3"                       # the value that the study settled on; of all seeds, if no others are named
    says = "rate {value}"                 # how a table of kind `series` calls it
    checkpoint = "step-{value}"           # which one of the run was measured, if not its last

`{name}` in a command is a variable: of [variables], then of the row's [book.NAME], [attack.NAME] and [method.NAME]
(any key of these is one), then seed, attack, method, value, book, here (the folder of the book and seed), run (the
row's) and runs (with those of `beside`). Standing alone it may be several words, and name variables in turn;
{seed+1000} is a sum.

Two rows whose steps are the same command share the step. A new kind of step is one more table in a plan.
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from infra import text

PLANS = Path(__file__).parent / "plans"
NAME = re.compile(r"[A-Za-z0-9_-]+")
TABLES = ("book", "attack", "method", "step")
METRIC = re.compile(r"(\w+)\.(\w+(?::\w+)?)@(\d+|-)")
KEYS = {
    "base",
    "about",
    "seeds",
    "attacks",
    "repeated",
    "methods",
    "order",
    "metrics",
    "knob",
    "pages",
    "shares",
    "variables",
    *TABLES,
}
ORDERS = ("seed", "chosen", "attack", "method", "value")
RESERVED = ("seed", "attack", "method", "value", "here", "run", "runs")
Value = str | tuple[str, ...]


@dataclass(frozen=True)
class Page:
    """Where a study's tables stand. file: a page of the repository; table: which kind (eval/studies/pages.py).

    figure: an SVG beside the page; at: a method for the table at equal clean accuracy.
    """

    file: str
    table: str
    figure: str | None = None
    at: str | None = None


@dataclass(frozen=True)
class Plan:
    """What `plans/NAME.toml` says, its base included. settings: values of variables that were given by hand."""

    name: str
    about: str
    seeds: tuple[int, ...]
    attacks: tuple[str, ...]
    repeated: tuple[str, ...]
    methods: tuple[str, ...]
    order: tuple[str, ...]
    metrics: tuple[str, ...]
    knob: str
    pages: tuple[Page, ...]
    shares: tuple[str, ...]
    variables: dict[str, Value]
    tables: dict[str, dict[str, dict[str, Any]]] = field(repr=False)
    settings: dict[str, str] = field(default_factory=dict)

    def values(self, method: str) -> tuple[str, ...]:
        return tuple(self.tables["method"][method].get("values", ("-",)))

    def chosen(self, method: str) -> str | None:
        found: str | None = self.tables["method"][method].get("chosen")
        return found

    def says(self, method: str, value: str) -> str | None:
        """What a table calls a method at a value, where the plan has words for it."""
        found = self.tables["method"][method].get("says")
        return found.replace("{value}", value) if found else None


def read(name: str, settings: Sequence[str] = ()) -> Plan:
    """The plan of that name, or in that file (.toml). settings: NAME=VALUE of variables.

    Raises ValueError for what is no plan, with the file and what is wrong in it.
    """
    path = Path(name) if name.endswith(".toml") else PLANS / f"{name}.toml"
    if not path.is_file():
        raise ValueError(f"no study is named {name!r}; there are: {', '.join(names())}, or give a file (.toml)")
    data = _load(path)
    if unknown := sorted(set(data) - KEYS):
        raise ValueError(f"{path}: a plan has no {unknown[0]!r}; it has: {', '.join(sorted(KEYS))}")
    if missing := [key for key in ("seeds", "attacks", "methods", "metrics", "step") if not data.get(key)]:
        raise ValueError(f"{path}: a plan needs {', '.join(missing)}")
    plan = Plan(
        name=path.stem,
        about=data.get("about", ""),
        seeds=tuple(data["seeds"]),
        attacks=tuple(data["attacks"]),
        repeated=tuple(data.get("repeated", data["attacks"])),
        methods=tuple(data["methods"]),
        order=tuple(data.get("order", ("seed",))),
        metrics=tuple(data["metrics"]),
        knob=data.get("knob", "value"),
        pages=tuple(Page(**page) for page in data.get("pages", ())),
        shares=tuple(data.get("shares", ())),
        variables={name: text_of(value) for name, value in data.get("variables", {}).items()},
        tables={table: data.get(table, {}) for table in TABLES},
        settings=dict(_setting(words) for words in settings),
    )
    _check(plan, str(path))
    return plan


def names() -> list[str]:
    """The studies of the repository: what other plans stand on plans no row."""
    return [path.stem for path in sorted(PLANS.glob("*.toml")) if "attacks" in _load(path)]


def _load(path: Path) -> dict[str, Any]:
    """A file of a plan on top of its base: tables are joined, anything else is replaced."""
    try:
        data = tomllib.loads("\n".join(text.lines(path.read_bytes(), str(path))))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is no TOML: {error}") from error
    if (base := data.get("base")) is None:
        return data
    below = path.parent / base
    if not below.is_file():
        raise ValueError(f"{path}: its base {base!r} is not beside it")
    return _joined(_load(below), data)


def _joined(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    found = dict(below)
    for name, value in above.items():
        both = isinstance(value, dict) and isinstance(found.get(name), dict)
        found[name] = _joined(found[name], value) if both else value
    return found


def text_of(value: Any) -> Value:
    """Of a variable: its words."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _setting(given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not equals or not name:
        raise ValueError(f"--set takes NAME=VALUE, not {given!r}")
    return name, value


def _check(plan: Plan, place: str) -> None:
    """Raises ValueError for names that are nowhere, or that cannot be names of files."""
    for kind, listed in (("attack", plan.attacks), ("method", plan.methods)):
        if unknown := [name for name in listed if name not in plan.tables[kind]]:
            there = ", ".join(plan.tables[kind])
            raise ValueError(f"{place}: no {kind} is named {unknown[0]!r}; there are: {there}")
        if len(set(listed)) < len(listed):
            raise ValueError(f"{place}: an {kind} is listed twice" if kind == "attack" else f"{place}: a method twice")
    if unknown := [name for name in plan.repeated if name not in plan.attacks]:
        raise ValueError(f"{place}: {unknown[0]!r} is to be repeated, and is none of its attacks")
    for name in chain(plan.attacks, plan.methods, plan.tables["step"], plan.tables["book"]):
        if not NAME.fullmatch(name):
            raise ValueError(f"{place}: names are letters, digits, - and _, not {name!r}")
    if both := set(plan.tables["step"]) & set(plan.tables["method"]):
        raise ValueError(f"{place}: {both.pop()!r} is a step and a method: call one of them otherwise")
    for name in plan.methods:
        about = plan.tables["method"][name]
        if about.get("step") not in plan.tables["step"]:
            raise ValueError(f"{place}: the method {name} needs a step of the plan, not {about.get('step')!r}")
        given = {*about.get("everywhere", ()), *([about["chosen"]] if "chosen" in about else ())}
        if odd := sorted(given - set(plan.values(name))):
            raise ValueError(f"{place}: {odd[0]!r} is no value of {name}; it has: {', '.join(plan.values(name))}")
    for name, about in plan.tables["step"].items():
        if "--out" not in str(about.get("run", "")).split():
            raise ValueError(f"{place}: the step {name} needs a command (run) with --out")
    if odd_metrics := [metric for metric in plan.metrics if not METRIC.fullmatch(metric)]:
        raise ValueError(f"{place}: a metric is TASK.METRIC@K, not {odd_metrics[0]!r}")
    if strange := [name for name in plan.shares if not (PLANS / f"{name}.toml").is_file()]:
        raise ValueError(
            f"{place}: no study is named {strange[0]!r} to share cells with; there are: {', '.join(names())}"
        )
    if odd_orders := [name for name in plan.order if name not in ORDERS]:
        raise ValueError(f"{place}: rows are ordered by {', '.join(ORDERS)}, not by {odd_orders[0]!r}")
    known = {*plan.variables, *(key for table in plan.tables["book"].values() for key in table)}
    known |= {key for kind in ("attack", "method") for one in plan.tables[kind].values() for key in one}
    if strange := sorted(set(plan.settings) - (known - set(RESERVED))):
        raise ValueError(f"--set: {plan.name} has no variable {strange[0]!r}; it has: {', '.join(sorted(known))}")
