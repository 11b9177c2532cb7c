"""A planned study as data: `plans/NAME.toml` becomes rows (a run under an attack) and the steps that lead to them.

    base = "picturebook.toml"             # another file, whose tables this one adds to
    seeds = [0, 1, 2]
    attacks = ["badnet"]                  # of [attack.NAME]
    methods = ["undefended", "mmcl"]      # of [method.NAME]
    order = ["seed", "chosen"]            # of rows, the most useful first; then attacks and methods as they are listed
    metrics = ["zeroshot.accuracy@1"]     # what a row's cell of scores holds: TASK.METRIC@K, @- where there is no k

    [step.victim]                         # one command of `antidote`
    run = "pretrain clip --seed {seed} --dataset {here}/poisoned/{attack} --out {here}/runs/{attack}"
    needs = "poisoned"                    # steps, or METHOD:VALUE for the run of another row of this attack and seed
    minutes = "4"                         # on one core: the product of these words

    [method.mmcl]
    step = "cured"                        # what trains it; its --out is the run
    values = ["8e-3", "16e-3"]            # of the knob, on the first seed; `everywhere`: those of all seeds
    chosen = "8e-3"                       # the value that the study settled on; of all seeds, if no others are named

`{name}` in a command is a variable: of [variables], then of the row's [book.NAME], [attack.NAME] and [method.NAME]
(any key of these is one), then seed, attack, method, value, book, here (the folder of the book and seed), run (the
row's) and runs (with those of `beside`). Standing alone it may be several words, and name variables in turn;
{seed+1000} is a sum.

Two rows whose steps are the same command share the step. A new kind of step is one more table in a plan.
"""

import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from math import prod
from pathlib import Path
from typing import Any

from infra import storage, text

PLANS = Path(__file__).parent / "plans"
NAME = re.compile(r"[A-Za-z0-9_-]+")
TABLES = ("book", "attack", "method", "step")
VARIABLE = re.compile(r"\{(\w+)(?:\+(\d+))?\}")
METRIC = re.compile(r"(\w+)\.(\w+)@(\d+|-)")
KEYS = {"base", "about", "seeds", "attacks", "methods", "order", "metrics", "knob", "pages", "variables", *TABLES}
ORDERS = ("seed", "chosen", "attack", "method", "value")
RESERVED = ("seed", "attack", "method", "value", "here", "run", "runs")
DEEP = 8  # variables that name variables
Value = str | tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Step:
    """One command, planned once. name: its table in the plan. label: what tells it from others, for people and logs.

    command: words of `antidote`. out: the folder it makes. alone: never beside another such step (they share a port).
    """

    name: str
    label: str
    command: tuple[str, ...]
    needs: tuple["Step", ...]
    minutes: float
    out: str
    alone: bool

    def all(self) -> Iterator["Step"]:
        """What it needs, each before what needs it, and itself."""
        for step in self.needs:
            yield from step.all()
        yield self


@dataclass(frozen=True, eq=False)
class Row:
    """One run under one attack. run: its folder; trained: what makes it; measures: what writes its scores, into that
    folder; steps: all that lead to these, each once, in order.

    digest: of what these commands are, wherever they are run; another definition is another row.
    """

    attack: str
    method: str
    value: str
    seed: int
    chosen: bool
    run: str
    scores: str
    metrics: tuple[str, ...]
    trained: Step
    measures: tuple[Step, ...]
    steps: tuple[Step, ...]
    digest: str

    @property
    def name(self) -> str:
        """`badnet.mmcl.8e-3.s0`"""
        return ".".join((self.attack, self.method, *([self.value] if self.value != "-" else []), f"s{self.seed}"))


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
    methods: tuple[str, ...]
    order: tuple[str, ...]
    metrics: tuple[str, ...]
    knob: str
    pages: tuple[Page, ...]
    variables: dict[str, Value]
    tables: dict[str, dict[str, dict[str, Any]]] = field(repr=False)
    settings: dict[str, str] = field(default_factory=dict)

    def rows(self, out: str) -> list[Row]:
        """Every planned row, in the plan's order of usefulness. out: the study's folder."""
        anywhere = _Planner(self, "@", {"port": "@"}).rows()
        digests = [_digest(row.steps) for row in anywhere]
        return [
            Row(**{**vars(row), "digest": digest})
            for row, digest in zip(_Planner(self, out, {}).rows(), digests, strict=True)
        ]

    def values(self, method: str) -> tuple[str, ...]:
        return tuple(self.tables["method"][method].get("values", ("-",)))

    def chosen(self, method: str) -> str | None:
        found: str | None = self.tables["method"][method].get("chosen")
        return found


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
        methods=tuple(data["methods"]),
        order=tuple(data.get("order", ("seed",))),
        metrics=tuple(data["metrics"]),
        knob=data.get("knob", "value"),
        pages=tuple(Page(**page) for page in data.get("pages", ())),
        variables={name: _text(value) for name, value in data.get("variables", {}).items()},
        tables={table: data.get(table, {}) for table in TABLES},
        settings=dict(_setting(words) for words in settings),
    )
    _check(plan, str(path))
    return plan


def names() -> list[str]:
    """The studies of the repository: what other plans stand on plans no row."""
    return [path.stem for path in sorted(PLANS.glob("*.toml")) if "attacks" in _load(path)]


def words(template: str, values: Mapping[str, Value], deep: int = 0) -> list[str]:
    """The words of a command, its variables filled in; what a variable holds of folders is never split.

    Raises ValueError for a variable that does not exist, or that names itself.
    """
    if deep > DEEP:
        raise ValueError(f"{template!r} names a variable that names itself")
    found: list[str] = []
    for word in template.split():
        alone = re.fullmatch(r"\{(\w+)\}", word)
        value = _named(alone[1], values, template) if alone else ""
        if isinstance(value, tuple):
            found += value
        elif alone:
            found += words(value, values, deep + 1)
        else:
            found.append(VARIABLE.sub(lambda match: _inside(match, values, template, deep), word))
    return found


def _inside(match: re.Match[str], values: Mapping[str, Value], template: str, deep: int) -> str:
    value = _named(match[1], values, template)
    filled = " ".join(value if isinstance(value, tuple) else words(value, values, deep + 1))
    return filled if match[2] is None else str(int(filled) + int(match[2]))


def _named(name: str, values: Mapping[str, Value], template: str) -> Value:
    if name not in values:
        raise ValueError(f"{template!r} names {name!r}, which is no variable here; there are: {', '.join(values)}")
    return values[name]


class _Planner:
    """Rows and steps of a plan in one folder; each command is one step."""

    def __init__(self, plan: Plan, out: str, given: Mapping[str, str]) -> None:
        self.plan, self.out, self.given = plan, out, given
        self.steps: dict[tuple[str, ...], Step] = {}
        self.labels: dict[str, tuple[str, ...]] = {}

    def rows(self) -> list[Row]:
        numbers = {name: number for number, name in zip(count(), chain(self.plan.attacks, self.plan.methods))}
        keyed = []
        for attack, method, seed, (place, value) in self._cells():
            row = self._row(attack, method, value, seed)
            keys = {"seed": self.plan.seeds.index(seed), "chosen": not row.chosen, "value": place}
            keys |= {"attack": numbers[attack], "method": numbers[method]}
            keyed.append(([*(keys[name] for name in self.plan.order), keys["attack"], place, keys["method"]], row))
        return [row for _, row in sorted(keyed, key=lambda pair: pair[0])]

    def _cells(self) -> Iterator[tuple[str, str, int, tuple[int, str]]]:
        """Attack, method, seed, and the place of the value in the method's frontier."""
        for attack in self.plan.attacks:
            for method in self.plan.methods:
                about, chosen = self.plan.tables["method"][method], self.plan.chosen(method)
                values = self.plan.values(method)
                everywhere = about.get("everywhere", [chosen] if chosen else [])
                for seed in self.plan.seeds:
                    for place, value in enumerate(values):
                        if seed == self.plan.seeds[0] or value == "-" or value in everywhere:
                            yield attack, method, seed, (place, value)

    def _row(self, attack: str, method: str, value: str, seed: int) -> Row:
        values = self._values(attack, method, value, seed)
        trained = self._step(str(values["step"]), values)
        beside = [self._other(name, attack, seed) for name in words(str(values.get("beside", "")), values)]
        runs = tuple(dict.fromkeys([trained.out, *(step.out for step in beside)]))
        values |= {"run": (trained.out,), "runs": runs}
        measures = [self._step(name, values, (trained, *beside)) for name in words("{measure}", values)]
        if not measures or len({step.out for step in measures}) > 1:
            raise ValueError(f"{self.plan.name}: {method} needs steps that measure it, into one folder")
        steps = tuple(dict.fromkeys(step for one in (trained, *measures) for step in one.all()))
        return Row(
            attack=attack,
            method=method,
            value=value,
            seed=seed,
            chosen=value in (self.plan.chosen(method), "-"),
            run=trained.out,
            scores=measures[0].out,
            metrics=self._metrics(values),
            trained=trained,
            measures=tuple(measures),
            steps=steps,
            digest="",
        )

    def _metrics(self, values: Mapping[str, Value]) -> tuple[str, ...]:
        """Those that this row has: a method may be without some tasks (`without = "retrieval"`)."""
        without = words(str(values.get("without", "")), values)
        return tuple(metric for metric in self.plan.metrics if metric.partition(".")[0] not in without)

    def _values(self, attack: str, method: str, value: str, seed: int) -> dict[str, Value]:
        tables = self.plan.tables
        about = tables["attack"][attack]
        book = about.get("book", self.plan.variables.get("book", "small"))
        values = dict(self.plan.variables)
        for table in (
            tables["book"].get(str(book), {}),
            about,
            tables["method"][method],
            self.plan.settings,
            self.given,
        ):
            values |= {name: _text(one) for name, one in table.items()}
        here = (storage.join(self.out, f"{book}-s{seed}"),)
        return values | {
            "study": self.plan.name,
            "attack": attack,
            "method": method,
            "value": value,
            "seed": str(seed),
            "book": str(book),
            "here": here,
        }

    def _other(self, name: str, attack: str, seed: int) -> Step:
        """What trains METHOD:VALUE."""
        method, _, value = name.partition(":")
        if method not in self.plan.tables["method"]:
            raise ValueError(f"{self.plan.name}: {name!r} is no step and no method")
        values = self._values(attack, method, value or self.plan.values(method)[0], seed)
        return self._step(str(values["step"]), values)

    def _step(self, name: str, values: Mapping[str, Value], more: Sequence[Step] = ()) -> Step:
        """more: what it needs besides."""
        known = self.plan.tables["step"]
        about = known[name]
        command = tuple(words(about["run"], values))
        if command in self.steps:
            return self.steps[command]
        needed = words(str(about.get("needs", "")), values)
        needs = [
            self._step(one, values)
            if one in known
            else self._other(one, str(values["attack"]), int(str(values["seed"])))
            for one in needed
        ]
        out = command[command.index("--out") + 1]
        step = Step(
            name=name,
            label=self._label(name, command, values, out),
            command=command,
            needs=tuple(dict.fromkeys([*more, *needs])),
            minutes=prod(float(word) for word in words(str(about.get("minutes", "0")), values)),
            out=out,
            alone=bool(about.get("alone", False)),
        )
        self.steps[command] = step
        return step

    def _label(self, name: str, command: tuple[str, ...], values: Mapping[str, Value], out: str) -> str:
        """`victim small-s0/runs/badnet`, `scores small-s0/measured/badnet of small-s0/runs/badnet`."""
        run = [place for place in values.get("run", ()) if place in command]
        places = [place.removeprefix(f"{self.out}/") for place in dict.fromkeys([out, *run])]
        label = f"{name} {' of '.join(places)}"
        if self.labels.setdefault(label, command) != command:
            raise ValueError(
                f"{self.plan.name}: two steps are called {label!r}: let the --out of one say what it is of"
            )
        return label


def _digest(steps: Sequence[Step]) -> str:
    """Of the commands that lead to a row, in no order: which is run first is no part of what they are."""
    commands = sorted(" ".join(step.command) for step in steps)
    return hashlib.sha256("\n".join(commands).encode()).hexdigest()[:16]


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


def _text(value: Any) -> Value:
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
    if odd_orders := [name for name in plan.order if name not in ORDERS]:
        raise ValueError(f"{place}: rows are ordered by {', '.join(ORDERS)}, not by {odd_orders[0]!r}")
    known = {*plan.variables, *(key for table in plan.tables["book"].values() for key in table)}
    known |= {key for kind in ("attack", "method") for one in plan.tables[kind].values() for key in one}
    if strange := sorted(set(plan.settings) - (known - set(RESERVED))):
        raise ValueError(f"--set: {plan.name} has no variable {strange[0]!r}; it has: {', '.join(sorted(known))}")
