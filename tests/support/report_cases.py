"""Reports of many shapes, from records made by hand: what a grid may hold, and what it may lack."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np

from eval.judging.roles import compare
from eval.reporting import page
from eval.reporting.page import Material
from eval.store.records import AttackRecord, Example, TestSetRecord
from eval.store.runs import ADOPTED, UNKNOWN, Run
from eval.store.scores import Score
from infra.seeding import rng
from pipeline import images
from poison.sheets.layout import Shown, difference
from tests.support.eval_helpers import ATTACKED, TESTED, after, scored, some_run

THEIRS = replace(some_run("theirs", UNKNOWN, objective=ADOPTED), losses=(), source="epoch_64.pt (sha256 1234)")
Numbers = tuple[Run, float, float | None]
CLEAN, POISONED = some_run("clean", "clean"), some_run("poisoned", "poisoned")
ELSEWHERE = replace(TESTED, place="../an-imagenet-like-test-set", digest="2222", pictures=50_000)
OTHER = replace(
    ATTACKED,
    key="badnet-22222222",
    attack={"plugin": "blended", "alpha": 0.2, "pattern": "noise"},
    target="mushroom",
    dataset_digest="poisoned too",
)


def cured(name: str, start: Run = POISONED, objective: str | None = None, seed: int = 0) -> Run:
    return some_run(name, "other", after(start), objective=objective or name, seed=seed)


def smooth(number: int, side: int = 32) -> np.ndarray:
    low, high = rng(2, "report", number).integers(0, 256, (2, 1, 3))
    return np.linspace(low, high, side).astype(np.uint8).repeat(side, axis=1).reshape(side, side, 3)


def triggered(image: np.ndarray) -> np.ndarray:
    stamped = image.copy()
    stamped[-len(image) // 8 :, -len(image) // 8 :] = (255, 255, 0)
    return stamped


def preview_of(clean: np.ndarray, poisoned: np.ndarray, was: str, now: str) -> Shown:
    """A pair as the folder of a preview holds it."""
    three = (clean, poisoned, difference(clean, poisoned))
    return Shown(*(images.encode(image, "png") for image in three), was, now)


def grid(
    numbers: list[Numbers],
    attacks: tuple[AttackRecord, ...] = (ATTACKED,),
    testsets: tuple[TestSetRecord, ...] = (TESTED,),
    side: int = 32,
    sheet: bool = True,
) -> Material:
    """Every run on every test set under every attack."""
    scores: dict[Score, None] = {}
    for t, testset in enumerate(testsets):
        for a, attack in enumerate(attacks or (None,)):
            for run, accuracy, success in numbers:
                shown = None if attack is None or success is None else success
                if shown is not None and a:  # the second attack: only who saw its own poison obeys it
                    shown = 0.93 if run.dataset_digest == OTHER.dataset_digest else 0.02
                for score in scored(run, accuracy - 0.2 * t, shown):
                    under = attack.key if attack and score.attack else None
                    scores[replace(score, testset=testset.key, attack=under)] = None
    kept = {attack.key: attack for attack in attacks}
    examples = [
        Example("fish", *(images.encode(form(smooth(n, side)), "png") for form in (np.copy, triggered)))
        for n in range(4)
    ]
    pairs = [preview_of(smooth(n), triggered(smooth(n)), f"a fish number {n}", "a photo of a banana") for n in range(8)]
    facts = [(f"Run {run.name}", [("weights", run.weights_sha256), ("folder", run.key)]) for run, _, _ in numbers]
    return Material(
        compare(list(scores), [run for run, _, _ in numbers], testsets, attacks),
        {(key, testset.digest): examples for key in kept for testset in testsets},
        {key: images.encode(triggered(smooth(9, 56)), "png") for key in kept},
        pairs if sheet and attacks else [],
        facts,
    )


def several_seeds() -> Material:
    found: list[Numbers] = []
    for seed in range(3):
        poisoned = some_run(f"seed{seed}/poisoned", "poisoned", seed=seed)
        found += [(some_run(f"seed{seed}/clean", "clean", seed=seed), 0.94 + seed / 100, 0.01)]
        found += [(poisoned, 0.95 - seed / 100, 0.99 - seed / 50)]
        found += [(cured(f"seed{seed}/mmcl", poisoned, "mmcl", seed), 0.95, 0.60 + seed / 8)]
        found += [(cured(f"seed{seed}/cleanclip", poisoned, "cleanclip", seed), 0.94, 0.03 + seed / 20)]
    return grid(found)


def many() -> Material:
    found: list[Numbers] = [(CLEAN, 0.94, 0.01), (POISONED, 0.95, 0.99), (cured("mmcl"), 0.94, 0.6)]
    for number in range(12):
        name = f"cleanclip-with-a-long-name-and-lr-1e-{number}"
        found.append((cured(name, objective="cleanclip"), 0.94 - number / 100, number / 12))
    return grid(found)


WHOLE: list[Numbers] = [
    (CLEAN, 0.943, 0.004),
    (POISONED, 0.951, 0.969),
    (cured("mmcl"), 0.956, 0.874),
    (cured("cleanclip"), 0.941, 0.115),
]
CASES: dict[str, Callable[[], Material]] = {
    "whole": lambda: grid(WHOLE),
    "large images": lambda: grid(WHOLE, side=224),
    "to the floor": lambda: grid([*WHOLE[:3], (cured("cleanclip"), 0.93, 0.02)]),
    "no better than the baseline": lambda: grid(
        [*WHOLE[:2], (cured("mmcl"), 0.95, 0.12), (cured("cleanclip"), 0.94, 0.11)]
    ),
    "too costly": lambda: grid([*WHOLE[:3], (cured("cleanclip"), 0.70, 0.02)]),
    "no defence": lambda: grid(WHOLE[:2]),
    "baseline alone": lambda: grid(WHOLE[:3]),
    "no clean run": lambda: grid([WHOLE[1], WHOLE[3]]),
    "one run": lambda: grid([WHOLE[1]], sheet=False),
    "from elsewhere": lambda: grid([WHOLE[0], (THEIRS, 0.95, 0.9), (cured("cleanclip", THEIRS), 0.94, 0.1)]),
    "from elsewhere alone": lambda: grid([(THEIRS, 0.95, 0.9)]),
    "from elsewhere beside": lambda: grid([*WHOLE, (THEIRS, 0.95, 0.9)]),
    "no poisoned run": lambda: grid([WHOLE[0], WHOLE[3]]),
    "an attack that fails": lambda: grid([WHOLE[0], (POISONED, 0.95, 0.02), (cured("cleanclip"), 0.94, 0.01)]),
    "no attack": lambda: grid([(CLEAN, 0.94, None), (some_run("another", "elsewhere"), 0.91, None)], attacks=()),
    "several seeds": several_seeds,
    "many runs": many,
    "two attacks, two test sets": lambda: grid(
        [*WHOLE, (some_run("poisoned-too", "poisoned too"), 0.94, 0.05)], (ATTACKED, OTHER), (TESTED, ELSEWHERE)
    ),
}


@cache
def material(name: str) -> Material:
    return CASES[name]()


@cache
def html(name: str) -> str:
    return page.render(material(name))
