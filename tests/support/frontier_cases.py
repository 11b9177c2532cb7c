"""Studies made by hand: what a plan may hold, and what of it may be there."""

from dataclasses import replace

from eval.interval import clopper_pearson
from eval.judging.roles import Result, role
from eval.store.records import AttackRecord
from eval.store.runs import Run
from eval.store.scores import Score
from eval.studies.study import Cell, Row, Study
from tests.support.eval_helpers import ATTACKED, TESTED, after, some_run

METHODS = ("mmcl", "cleanclip", "tacleaner", "supervised")
LRS = ("1e-3", "2e-3", "4e-3")


def record(attack: str) -> AttackRecord:
    made = {"plugin": "targeted" if attack == "robust" else attack.split("-")[0]}
    return replace(ATTACKED, attack=made, place=f"../ledgers/{attack}", dataset_digest=f"poisoned by {attack}")


def result(run: Run, attack: str, accuracy: float, success: float, n: int = 1000) -> Result:
    def score(task: str, metric: str, value: float) -> Score:
        hits = round(value * n)
        low, high = clopper_pearson(hits, n)
        return Score(
            run=run.key,
            checkpoint=run.version,
            dataset=run.dataset_digest,
            attack=None if metric == "accuracy" else attack,
            testset=TESTED.key,
            task=task,
            metric=metric,
            k=1,
            value=hits / n,
            n=n,
            low=low,
            high=high,
            seed=0,
            seconds=1.0,
            code_version="0.1.0",
        )

    scores = [score("zeroshot", "accuracy", accuracy), score("attack_success", "attack_success", success)]
    return Result(run, role(run, record(attack)), {(one.task, one.metric, one.k, one.of): one for one in scores})


def cell(
    attack: str, method: str, setting: str, seed: int, numbers: tuple[float, float] | None, chosen: bool = False
) -> Cell:
    """numbers: clean accuracy and attack success; None: planned and not measured."""
    digest = {"floor": "clean", "undefended": f"poisoned by {attack}"}.get(method, "other")
    before = () if method in ("floor", "undefended") else (after(some_run(attack, f"poisoned by {attack}")),)
    run = some_run(f"{method}-{setting}", digest, *before, objective="mmcl" if method == "mmcl" else "clip", seed=seed)
    made = Cell(attack, method, setting, seed, chosen, f"/s{seed}/scores", f"/s{seed}/{attack}/{method}-{setting}")
    if numbers is None:
        return made
    return replace(made, result=result(run, attack, *numbers), record=record(attack))


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
        Row(tuple(replace(one, result=None, record=None) if one.method in methods else one for one in row.cells))
        for row in some
    )


def whole() -> Study:
    """Six attacks: four measured, one in part, one not at all."""
    names = ("badnet", "badnet-noise", "blended", "wanet-jitter-1", "label_consistent", "badclip")
    found = {name: rows(name, 0.03 * number) for number, name in enumerate(names)}
    found["label_consistent"] = emptied(found["label_consistent"], METHODS[2:])
    found["badclip"] = emptied(found["badclip"], ("floor", "undefended", *METHODS))
    return Study("lr", found)
