"""A test set as one model sees it: its images, its class prompts, and under an attack the trials and edited prompts."""

import numpy as np
import torch

from eval.measuring import trials
from eval.task import Attacked, Embedded
from infra import config, log
from pipeline import testsets
from pipeline.testsets import TestSet
from poison.attack import Attack
from train.embedding import Embedder, cached, finite, normalised, prepared
from train.prompts import warn_of_cut


def embed(embedder: Embedder, test: TestSet, attack: Attack | None, seed: int, cpus: int = 1) -> Embedded:
    """Everything a task may ask for. cpus: threads that decode and transform; the numbers do not depend on it.

    Raises ValueError for embeddings that are not finite, where the attack's class is not one of the test set's, and
    for a classifier of another number of classes, or under an attack that edits prompts.
    """
    base = {"embedder": embedder.identity, "testset": test.digest}
    clean = cached(base | {"kind": "images"}, lambda: {"images": _images(embedder, test, cpus)})
    classes = _classes(embedder, test, None)
    labels = np.array([one.label for one in test.pictures], np.int64)
    if attack is None:
        return Embedded(clean["images"], labels, classes)
    key = base | {"kind": "attacked", "attack": config.to_json(attack), "seed": seed, "code": trials.code(attack)}
    found = cached(key, lambda: trials.embed(embedder, test, attack, seed, cpus))
    edit = str(found["prompt_edit"]) or None
    edited = classes if edit is None else _classes(embedder, test, edit)
    return Embedded(
        clean["images"], labels, classes, Attacked(found["images"], found["labels"], found["wanted"], edited)
    )


def ensemble(prompts: np.ndarray) -> np.ndarray:
    """Class embeddings: the mean over prompts of their normalised embeddings, normalised. (C, T, D) -> (C, D)."""
    return normalised(normalised(prompts).mean(axis=1))


def _images(embedder: Embedder, test: TestSet, cpus: int) -> np.ndarray:
    def prepare(item: tuple[testsets.Picture, bytes]) -> torch.Tensor:
        return embedder.preprocess(testsets.open_image(test, item[1]))

    with log.progress(f"embedding {test.url}", len(test.pictures), "images") as bar:
        parts = []
        for batch in prepared(testsets.stored(test), prepare, cpus):
            parts.append(embedder.images(batch))
            bar.add(len(batch))
    return np.concatenate(parts)


def _classes(embedder: Embedder, test: TestSet, edit: str | None) -> np.ndarray:
    """float32 (C, D): the prompt ensemble, class after class, so that C x T prompts are never held at once.

    Of a classifier, its head.
    """
    if embedder.head is not None:
        if len(embedder.head) != len(test.classes):
            raise ValueError(f"a classifier of {len(embedder.head)} classes has no answer for {len(test.classes)}")
        if edit is not None:
            raise ValueError(f"the attack edits the prompts (by {edit!r}), and a classifier reads none")
        return finite(embedder.head)

    warn_of_cut(embedder.tokenizer, test.classes, [f"{edit or ''} {template}" for template in test.templates])

    def make() -> dict[str, np.ndarray]:
        rows = []
        for name in test.classes:
            prompts = [template.replace("{c}", name) for template in test.templates]
            prompts = [f"{edit} {prompt}" for prompt in prompts] if edit else prompts
            rows.append(ensemble(embedder.texts(prompts)[None])[0])
        return {"classes": finite(np.stack(rows))}

    key = {"embedder": embedder.identity, "kind": "classes", "classes": test.classes, "templates": test.templates}
    return cached(key | {"prompt_edit": edit}, make)["classes"]
