"""Studies made by hand: what a plan may hold, and what of it may be there."""

from dataclasses import replace

from eval.interval import clopper_pearson
from eval.studies.cells import Cell, Number
from eval.studies.study import Planned, Row, Study

METHODS = ("mmcl", "cleanclip", "tacleaner", "supervised")
LRS = ("1e-3", "2e-3", "4e-3")


def number(task: str, metric: str, value: float, n: int = 1000, k: int | None = 1) -> Number:
    hits = round(value * n)
    low, high = clopper_pearson(hits, n)
    return Number(task=task, metric=metric, k=k, value=hits / n, n=n, low=low, high=high)


def measured(attack: str, method: str, setting: str, seed: int, *numbers: Number) -> Cell:
    return Cell(
        attack=attack,
        method=method,
        value=setting,
        seed=seed,
        definition="planned",
        how=f"{'targeted' if attack == 'robust' else attack.split('-')[0]}: size 42",
        poisons=30,
        samples=3000,
        numbers=numbers,
        machine="x86_64 with AVX-512",
        code_version="0.1.0",
        seconds=1.0,
    )


def cell(
    attack: str, method: str, setting: str, seed: int, numbers: tuple[float, float] | None, chosen: bool = False
) -> Planned:
    """numbers: clean accuracy and attack success; None: planned and not measured."""
    made = Planned(attack, method, setting, seed, chosen)
    if numbers is None:
        return made
    two = number("zeroshot", "accuracy", numbers[0]), number("attack_success", "attack_success", numbers[1])
    return replace(made, result=measured(attack, method, setting, seed, *two))


def rows(attack: str, level: float = 0.0) -> tuple[Row, ...]:
    """A frontier of four methods on seed 0, and two more seeds where it was chosen. level: is added to the success."""
    found = [
        Row(tuple(cell(attack, "floor", "-", seed, (0.955, 0.012)) for seed in range(3))),
        Row(tuple(cell(attack, "undefended", "-", seed, (0.952 - seed / 200, 0.98)) for seed in range(3))),
    ]
    for step, lr in enumerate(LRS):
        for number, method in enumerate(METHODS):
            accuracy = 0.955 - 0.01 * step - 0.006 * number - (0.3 if method == "supervised" and step == 2 else 0)
            success = min(1.0, (0.8, 0.09, 0.06, 0.11)[number] / (1 + 1.5 * step) + level)
            seeds = range(3) if lr == "2e-3" else range(1)
            some = [
                cell(attack, method, lr, s, (accuracy - s / 300, success * (1 + s / 6)), lr == "2e-3") for s in seeds
            ]
            found.append(Row(tuple(some)))
    return tuple(found)


def emptied(some: tuple[Row, ...], methods: tuple[str, ...] = METHODS) -> tuple[Row, ...]:
    """The same plan, nothing of these methods measured."""
    return tuple(
        Row(tuple(replace(one, result=None) if one.method in methods else one for one in row.cells)) for row in some
    )


def whole() -> Study:
    """Six attacks: four measured, one in part, one not at all."""
    names = ("badnet", "badnet-noise", "blended", "wanet-jitter-1", "label_consistent", "badclip")
    found = {name: rows(name, 0.03 * number) for number, name in enumerate(names)}
    found["label_consistent"] = emptied(found["label_consistent"], METHODS[2:])
    found["badclip"] = emptied(found["badclip"], ("floor", "undefended", *METHODS))
    return Study("lr", found)
