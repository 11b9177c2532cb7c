"""Runs that answer by a head of their own, and not by prompts: their heads, and what they can be asked."""

import hashlib
from collections.abc import Sequence

import numpy as np

from eval.measuring import trials
from eval.store.runs import Run
from infra import config
from infra.errors import Damaged
from pipeline import testsets
from pipeline.testsets import TestSet
from poison.attack import Attack
from poison.ledger import Ledger
from train import checkpoint as checkpoints
from train.objective import Objective

NAMES = 5  # of the classes, in a message


def head(run: Run) -> np.ndarray:
    """float32 (C, D + 1): of every class its weights and, last, its bias. Raises Damaged."""
    saved = checkpoints.named(run.url, run.checkpoint)
    if saved is None:
        raise Damaged(f"the checkpoint {run.checkpoint} of {run.url} went away while it was evaluated")
    objective = config.from_json(Objective, run.config["objective"])
    weight, bias = objective.classifier(saved.read_training()["objective"])
    return np.concatenate([weight.float().numpy(), bias.float().numpy()[:, None]], axis=1)


def check(runs: Sequence[Run], tests: Sequence[TestSet], ledgers: Sequence[Ledger]) -> None:
    """Raises ValueError, before anything is measured, for a classifier of other classes than a test set's, and for an
    attack on the prompts, of which a classifier reads none."""
    for run in runs:
        if not run.classes:
            continue
        for test in tests:
            unnamed = run.classes == tuple(map(str, range(len(test.classes))))
            if run.classes != test.classes and not unnamed:
                raise ValueError(
                    f"{run.url} is a classifier of {_told(run.classes)}, and the test set {test.url} is of "
                    f"{_told(test.classes)}: a classifier is measured on its own classes, in their order"
                )
            for ledger in ledgers:
                if _edits_prompts(ledger.attack, test):
                    raise ValueError(
                        f"{run.url} is a classifier, which reads no prompts, and the attack of {ledger.url} edits "
                        "them: measure one without the other"
                    )


def _told(classes: Sequence[str]) -> str:
    some = ", ".join(classes[:NAMES])
    return f"{len(classes)} classes ({some}{', ...' if len(classes) > NAMES else ''})"


def _edits_prompts(attack: Attack, test: TestSet) -> bool:
    """By its first trial: all of them edit the prompts alike."""
    for name, data in attack.subjects((test.classes[one.label], data) for one, data in testsets.stored(test)):
        rng = trials.trial_rng(0, hashlib.sha256(data).hexdigest())
        if (trial := attack.trial(np.asarray(testsets.open_image(test, data)), name, rng)) is not None:
            return trial.prompt_edit is not None
    return False
