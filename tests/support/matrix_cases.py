"""A report of ten attacks and six methods with everything that can be measured, from records made by hand."""

from dataclasses import replace
from functools import cache

import numpy as np
import pyarrow as pa

from eval.judging.roles import compare
from eval.reporting.page import Material
from eval.store.answers import Asked
from eval.store.predictions import MAP
from eval.store.records import AttackRecord, Example, TestSetRecord
from eval.store.runs import Run
from eval.store.scores import Score
from infra.seeding import rng
from pipeline import images
from tests.support.eval_helpers import ATTACKED, CLASSES, TESTED, after, some_run

ATTACKS = (
    "badnet",
    "blended",
    "sig",
    "wanet",
    "badclip",
    "swap",
    "targeted",
    "external",
    "control",
    "noise-with-a-name",
)
METHODS = ("mmcl", "cleanclip", "roclip", "safeclip", "tacleaner", "supervised")
CAPTIONED = TestSetRecord(place="../flickr", split="test", digest="f11c", classes=(), templates=(), pictures=1000)
STEPS = (1, 2, 3, 4)  # checkpoints before the last one, which is step 5


def number(run: Run, task: str, metric: str, value: float, attack: AttackRecord | None, **more: object) -> Score:
    """A score of a thousand trials; its interval is two points wide to either side."""
    said: dict[str, object] = {
        "testset": TESTED.key,
        "k": 1,
        "n": 1000,
        "of": None,
        "bounds": "clopper-pearson",
        **more,
    }
    return Score(
        run=run.key, checkpoint=run.version, dataset=run.dataset_digest, attack=attack.key if attack else None,
        task=task, metric=metric, value=value, low=max(0.0, value - 0.02), high=min(1.0, value + 0.02), seed=0,
        seconds=1.0, code_version="0.1.0", **said,
    )  # fmt: skip


def attack(position: int) -> AttackRecord:
    name = ATTACKS[position]
    return replace(ATTACKED, key=f"{name}-{position:08x}", attack={"plugin": name, "size": 16}, place=f"../{name}",
                   dataset_digest=f"poisoned by {name}", parent_digest="clean", trigger=True)  # fmt: skip


def obeys(position: int, method: int, interface: float = 0.0) -> float:
    """How well an attack works after a method: from nearly all to nearly nothing."""
    return round(float(np.clip(0.98 - 0.17 * method + 0.03 * (position % 4) - interface, 0.003, 1)), 4)


def measured(run: Run, accuracy: float, success: dict[str, float], attacks: list[AttackRecord]) -> list[Score]:
    """Every interface, class by class, and pairs. success: by attack."""
    found = []
    for task, apart in (("zeroshot", 0.0), ("linear_probe", 0.01), ("knn", 0.03)):
        found.append(number(run, task, "accuracy", accuracy - apart, None))
        for one in attacks:
            under = "attack_success" if task == "zeroshot" else task
            found.append(number(run, under, "attack_success", max(0.0, success[one.key] - 9 * apart), one))
    found.append(number(run, "retrieval", "text_to_image_recall", accuracy - 0.4, None, testset=CAPTIONED.key))
    for one in attacks:
        worth = success[one.key]
        found.append(number(run, "retrieval", "attack_hit", worth / 2, one, testset=CAPTIONED.key))
        for kind, value in (("clean", 0.31), ("poisoned", 0.1 + worth / 5)):
            more = {"testset": None, "k": None, "of": kind, "n": 500, "bounds": "bootstrap"}
            found.append(number(run, "pair_similarity", "similarity", value, one, **more))
    for place, name in enumerate(CLASSES):
        found.append(number(run, "per_class", "class_accuracy", accuracy - place / 50, None, of=name))
        if name != "banana":
            share = [
                number(run, "per_class", "taken_for_target", success[one.key] / (1 + place), one, of=name)
                for one in attacks
            ]
            found += share
    return found


@cache
def photograph(of: int, side: int = 300) -> bytes:
    """PNG of noise on a gradient: as heavy as a photograph."""
    generator = rng(0, "photograph", of)
    smooth = np.linspace(*generator.integers(0, 200, (2, 1, 3)), side).repeat(side, axis=1).reshape(side, side, 3)
    return images.encode((smooth + generator.normal(0, 12, smooth.shape)).clip(0, 255).astype(np.uint8), "png")


def map_of(seed: int, apart: float, size: int = 600) -> tuple[pa.Table, int]:
    generator = rng(seed, "map")
    labels = generator.integers(0, len(CLASSES), size)
    middles = generator.normal(0, 1, (len(CLASSES), 2))
    clean = middles[labels] + generator.normal(0, 0.15, (size, 2))
    shown = (1 - apart) * clean + apart * (middles[4] + generator.normal(0, 0.1, (size, 2)))
    at = np.concatenate([clean, shown, middles[4:5] * 1.2])
    kinds = ["clean"] * size + ["triggered"] * size + ["target"]
    columns = [[f"{place:064x}" for place in range(2 * size)] + [None], kinds, [*labels, *labels, 4]]
    return pa.table([pa.array(c) for c in columns] + [pa.array(at[:, n], pa.float32()) for n in (0, 1)], schema=MAP), 4


def grid(attacks: int = 10, methods: int = 6, cross: bool = False, training: bool = True) -> Material:
    """Every attack's own poisoned run and its cures. cross: every run under every attack, of others' too."""
    kept = [attack(position) for position in range(attacks)]
    clean = some_run("clean", "clean")
    scores = measured(clean, 0.94, {one.key: 0.01 for one in kept}, kept)
    runs, answers, maps = [clean], {}, {}
    for position, one in enumerate(kept):
        poisoned = some_run(f"{ATTACKS[position]}/poisoned", one.dataset_digest)
        group = [(poisoned, 0.95, obeys(position, 0))]
        for method, name in enumerate(METHODS[:methods], 1):
            run = some_run(f"{ATTACKS[position]}/{name}", "other", after(poisoned), objective=name)
            group.append((run, 0.95 - (0.05 if name == "safeclip" else 0.005 * method), obeys(position, method)))
        for run, accuracy, success in group:
            runs.append(run)
            under = kept if cross else [one]
            scores += measured(run, accuracy, {a.key: success if a is one else 0.01 for a in under}, under)
            for key in (None, one.key):
                said = "banana" if key and success > 0.5 else "fish"
                answers[Asked.of(run, TESTED.key, key)] = {f"{n:064x}": said for n in range(4)}
            maps[Asked.of(run, TESTED.key, one.key)] = map_of(position, success)
            for step in STEPS if training and run is poisoned else ():
                name = f"step-{step:07d}"
                then = replace(run, checkpoint=name, name=f"{run.name} {name}", weights_sha256=f"{run.name}{step:x>64}")
                runs.append(then)
                part = step / 5
                scores += measured(then, accuracy * part, {one.key: success * part**2}, [one])
    facts = [(f"Run {run.name}", [("weights", run.weights_sha256), ("folder", run.key)]) for run in runs]
    examples = [Example("fish", photograph(2 * n), photograph(2 * n + 1), f"{n:064x}") for n in range(4)]
    return Material(
        compare(scores, runs, (TESTED, CAPTIONED), kept),
        {(one.key, TESTED.digest): examples for one in kept},
        {one.key: photograph(99, 224) for one in kept},
        [],
        facts,
        answers,
        maps,
    )
