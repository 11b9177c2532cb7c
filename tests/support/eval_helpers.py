"""A world small enough for a test: a dataset, its poisoned twin and ledger, a test set, and runs that never trained."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eval.store.records import AttackRecord, TestSetRecord
from eval.store.runs import Ancestor, Run
from eval.store.scores import Score
from infra import rundir, storage
from infra.seeding import rng
from pipeline import captioned, images, leaving, testsets
from pipeline.dataset import Dataset
from poison.attacks.badnet import BadNet
from poison.writing.injection import Injection
from tests.support.drawn import drawn, labelled
from train import checkpoint, model

CLASSES = ("car", "house", "fish", "cup", "banana", "tree")
TEMPLATES = ("a photo of a {c}.", "a {c}.")
ATTACK = BadNet(target="car", patch="checkerboard", size=56, cell=14, place="random")


@lru_cache(maxsize=8)
def weights(seed: int, name: str = "tiny-vit") -> bytes:
    return model.to_bytes(model.create(model.architecture(name), seed))


def finished_run(
    url: str,
    dataset: Dataset,
    *,
    seed: int = 0,
    objective: str = "clip",
    start: str | None = None,
    state: dict[str, torch.Tensor] | None = None,
    name: str = "tiny-vit",
) -> str:
    """A run folder as training leaves it; its weights are random, another `seed` is another model.

    state: what the objective left in the checkpoint. name: of the architecture.
    """
    lineage = None
    if start is not None:
        lineage = rundir.done(start) | {"inputs": rundir.environment(start)["inputs"]}
    config = {
        "objective": {"plugin": objective},
        "dataset": dataset.bases[-1] if dataset.classes else dataset.url,  # where the user's own folder is
        "seed": seed,
        "pretrained": start,
        "recipe": {"lr": 0.1},
    }
    learned = {"digest": dataset.digest, "samples": dataset.samples, "contains_poison": dataset.contains_poison}
    if dataset.classes:
        learned["classes"] = list(dataset.classes)
    learned |= leaving.lineage(dataset.url)
    rundir.claim(url, config, frozenset(), {"dataset": learned, "pretrained": lineage})
    rundir.record_attempt(url, {"step": 0, "ranks": 1})
    metrics = rundir.Metrics(url)
    for step in range(1, 6):
        metrics.append({"step": step, "loss": 3.0 / step})
    metrics.flush()
    model.save_architecture(model.architecture(name), url)
    saved = checkpoint.save(url, 5, weights(seed + 10 * (start is not None), name), {"objective": state or {}})
    rundir.finish(url, {"checkpoint": saved.name, "sha256": saved.sha256(checkpoint.MODEL), "steps": 5})
    return url


def smooth(number: int) -> np.ndarray:
    """uint8 (32, 32, 3), smooth."""
    corners = rng(1, "test image", number).integers(0, 256, (2, 1, 3))
    return np.linspace(corners[0], corners[1], 32).astype(np.uint8).repeat(32, axis=1)


@dataclass(frozen=True)
class World:
    """Urls, all in one folder. clean_set: for finetuning, disjoint from the training pairs."""

    folder: str
    dataset: Dataset
    poisoned: Dataset
    clean_set: Dataset
    ledger: str
    testset: str

    def run(self, name: str, dataset: Dataset, **options: Any) -> str:
        return finished_run(storage.join(self.folder, "runs", name), dataset, **options)

    def url(self, name: str) -> str:
        return storage.join(self.folder, name)


def world(folder: Path, tested: int = 14) -> World:
    url = str(folder)
    dataset = drawn(f"{url}/train", 40, 2)
    Injection(
        attack=ATTACK, dataset=dataset.url, out=f"{url}/poisoned", ledger=f"{url}/ledger", budget=4, backend="local"
    ).run()
    clean_set = drawn(f"{url}/clean", 12, 1, first=40)
    test = [(images.encode(smooth(n), "png"), "png", n % len(CLASSES)) for n in range(tested)]
    testsets.write(f"{url}/test", test, CLASSES, TEMPLATES)
    return World(url, dataset, Dataset.open(f"{url}/poisoned"), clean_set, f"{url}/ledger", f"{url}/test")


def interfaces(folder: Path) -> World:
    """A world for every interface: the test set with a split to learn from, one with captions, and runs: poisoned,
    clean, cured (after the poisoned one), head (a classifier after it), and kept, which has two checkpoints."""
    made = world(folder)
    learned = [(images.encode(smooth(100 + n), "png"), "png", n % len(CLASSES)) for n in range(36)]
    testsets.write(made.testset, learned, CLASSES, TEMPLATES, split="train")
    said = [[f"a {('Car' if n < 5 else 'boat')} number {n}", f"something else, {n}"] for n in range(8)]
    captioned.write(
        made.url("captioned"), [(images.encode(smooth(200 + n), "png"), "png", some) for n, some in enumerate(said)]
    )
    poisoned = made.run("poisoned", made.poisoned)
    made.run("clean", made.dataset, seed=1)
    made.run("cured", made.clean_set, start=poisoned, objective="cleanclip")
    draw = torch.Generator().manual_seed(0)
    head = {"weight": torch.randn(len(CLASSES), 16, generator=draw), "bias": torch.randn(len(CLASSES), generator=draw)}
    few = Dataset.open(labelled(made.url("labelled"), 12, CLASSES, first=60), labelled=True)
    made.run("head", few, start=poisoned, objective="supervised", state=head)
    checkpoint.save(made.run("kept", made.poisoned, seed=2), 3, weights(7), {"objective": {}})
    return made


# Records made by hand, for what is a pure function of them.

ATTACKED = AttackRecord(
    key="badnet-00000000",
    place="../ledger",
    attack={"plugin": "badnet", "size": 16},
    target="banana",
    poisons=30,
    samples=3000,
    dataset_digest="poisoned",
    parent_digest="clean",
    trigger=False,
)
TESTED = TestSetRecord(
    place="../test", split="test", digest="7e57", classes=CLASSES, templates=TEMPLATES, pictures=1000
)


def some_run(name: str, digest: str, *ancestors: Ancestor, objective: str = "clip", seed: int = 0) -> Run:
    return Run(
        url=f"/runs/{name}",
        key=f"../runs/{name}",
        name=name,
        checkpoint="step-0000005",
        weights_sha256=f"{name:x>64}",
        objective=objective,
        seed=seed,
        dataset=f"data/{digest}",
        dataset_digest=digest,
        dataset_samples=3000,
        ancestors=ancestors,
        losses=((1.0, 3.0), (2.0, 2.0)),
        config={"objective": {"plugin": objective}, "seed": seed, "pretrained": None, "recipe": {"lr": 0.1}},
        attempts=(),
    )


def after(run: Run) -> Ancestor:
    return Ancestor(run.name, run.weights_sha256, run.dataset_digest, run.dataset_samples)


def scored(run: Run, accuracy: float, success: float | None, half_width: float = 0.02) -> list[Score]:
    """Headline scores of one run, with intervals of a given half width."""

    def score(task: str, metric: str, value: float, attack: str | None) -> Score:
        return Score(
            run=run.key,
            checkpoint=run.version,
            dataset=run.dataset_digest,
            attack=attack,
            testset=TESTED.key,
            task=task,
            metric=metric,
            k=1,
            value=value,
            n=1000,
            low=max(0.0, value - half_width),
            high=min(1.0, value + half_width),
            seed=0,
            seconds=1.0,
            code_version="0.1.0",
        )

    found = [score("zeroshot", "accuracy", accuracy, None)]
    if success is not None:
        found.append(score("attack_success", "attack_success", success, ATTACKED.key))
    return found
