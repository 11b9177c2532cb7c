"""The rows of a plan and the steps that lead to them, in one folder: every command is one step, whoever needs it."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from eval.studies.plan import Plan, Value, text_of
from infra import storage

VARIABLE = re.compile(r"\{(\w+)(?:\+(\d+))?\}")
DEEP = 8  # variables that name variables


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
    folder; steps: all that lead to these, each once, in order. checkpoint: of the run, where it is not its last one.

    digest: of what these commands are, wherever they are run; another definition is another row.
    """

    attack: str
    method: str
    value: str
    seed: int
    chosen: bool
    run: str
    checkpoint: str
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


def rows(plan: Plan, out: str) -> list[Row]:
    """Every planned row, the most useful first. out: the study's folder. Raises ValueError for what makes no plan."""
    anywhere = _Planner(plan, "@", {"port": "@"}).rows()
    digests = [_digest(row.steps) for row in anywhere]
    return [
        Row(**{**vars(row), "digest": digest})
        for row, digest in zip(_Planner(plan, out, {}).rows(), digests, strict=True)
    ]


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
        keyed = []
        for attack, method, seed, (place, value) in self._cells():
            row = self._row(attack, method, value, seed)
            keys = {"seed": self.plan.seeds.index(seed), "chosen": not row.chosen, "value": place}
            keys |= {"attack": self.plan.attacks.index(attack), "method": self.plan.methods.index(method)}
            keyed.append(([*(keys[name] for name in self.plan.order), keys["attack"], place, keys["method"]], row))
        return [row for _, row in sorted(keyed, key=lambda pair: pair[0])]

    def _cells(self) -> Iterator[tuple[str, str, int, tuple[int, str]]]:
        """Attack, method, seed, and the place of the value in the method's frontier."""
        for attack in self.plan.attacks:
            for method in self.plan.methods:
                about, chosen = self.plan.tables["method"][method], self.plan.chosen(method)
                values = self.plan.values(method)
                everywhere = about.get("everywhere", [chosen] if chosen else [])
                for seed in self.plan.seeds if attack in self.plan.repeated else self.plan.seeds[:1]:
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
            checkpoint=" ".join(words(str(values.get("checkpoint", "latest")), values)),
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
            values |= {name: text_of(one) for name, one in table.items()}
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
