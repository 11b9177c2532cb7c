"""A test set as one model sees it: its images, its class prompts or captions, and under an attack the trials and edited
prompts. Each distinct thing is encoded once, whatever tasks and attacks ask for it (train.embedding.cached)."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import torch

from eval.measuring import trials
from eval.measuring.pairs import Drawn
from eval.task import Attacked, Captions, Embedded, Labelled, Pairs
from infra import config, log
from pipeline import images, testsets
from pipeline.captioned import Captioned
from pipeline.testsets import TestSet
from poison.attack import Attack
from poison.choosing import captions
from train.embedding import Embedder, cached, finite, normalised, prepared
from train.prompts import warn_of_cut

TEXTS = 256  # captions encoded at once


def embed(
    embedder: Embedder,
    test: TestSet,
    attack: Attack | None,
    seed: int,
    cpus: int = 1,
    train: TestSet | None = None,
) -> Embedded:
    """Everything a task may ask for of a test set of classes. train: labelled images of the same classes, to learn
    from. cpus: threads that decode and transform; the numbers do not depend on it.

    Raises ValueError for embeddings that are not finite, where the attack's class is not one of the test set's, and
    for a classifier of another number of classes, or under an attack that edits prompts.
    """
    clean = _encoded(embedder, test, cpus)
    classes = _classes(embedder, test, None)
    attacked = None
    if attack is not None:
        found = _attacked(embedder, test, attack, seed, cpus)
        edit = str(found.pop("prompt_edit")) or None
        attacked = Attacked(**found, classes=classes if edit is None else _classes(embedder, test, edit))
    return Embedded(
        images=clean["images"],
        labels=_numbers(test),
        classes=classes,
        attacked=attacked,
        names=_names(test),
        lengths=clean["lengths"],
        called=test.classes,
        head=embedder.head is not None,
        train=_labelled(embedder, train, cpus) if train is not None else None,
    )


def embed_captioned(embedder: Embedder, test: Captioned, attack: Attack | None, seed: int, cpus: int = 1) -> Embedded:
    """The same of a test set with captions. Under an attack its one class is the attack's target in prompts.

    Raises ValueError for embeddings that are not finite.
    """
    clean = _encoded(embedder, test, cpus)
    attacked, classes = None, np.empty((0, clean["images"].shape[1]), np.float32)
    if attack is not None:
        found = _attacked(embedder, test, attack, seed, cpus)
        edit = str(found.pop("prompt_edit"))
        prompts = [f"{edit} {template.format(attack.target)}".strip() for template in captions.TEMPLATES]
        classes = ensemble(_texts(embedder, prompts)[None])
        attacked = Attacked(**found, classes=classes)
    return Embedded(
        images=clean["images"],
        labels=_numbers(test),
        classes=classes,
        attacked=attacked,
        names=_names(test),
        lengths=clean["lengths"],
        captions=Captions(normalised(_texts(embedder, test.texts)), test.owners),
    )


def embed_pairs(embedder: Embedder, drawn: Drawn, cpus: int = 1) -> Embedded:
    """Pairs that a run learned from, and nothing else. Raises ValueError for embeddings that are not finite."""
    base = {"embedder": embedder.identity, "pairs": drawn.digest}

    def make() -> dict[str, np.ndarray]:
        def prepare(data: bytes) -> torch.Tensor:
            return embedder.preprocess(images.open_image(data))

        with log.progress(f"embedding pairs of {drawn.dataset}", len(drawn.rows), "images") as bar:
            parts = []
            for batch in prepared(drawn.stored(), prepare, cpus):
                parts.append(embedder.images(batch))
                bar.add(len(batch))
        return {"images": np.concatenate(parts)}

    found = cached(base, make)["images"]
    texts = normalised(_texts(embedder, drawn.captions))
    pairs = Pairs(found, texts, np.array(drawn.rows), np.array(drawn.poisoned))
    return Embedded(found[:0], np.empty(0, np.int64), texts[:0], pairs=pairs)


def ensemble(prompts: np.ndarray) -> np.ndarray:
    """Class embeddings: the mean over prompts of their normalised embeddings, normalised. (C, T, D) -> (C, D)."""
    return normalised(normalised(prompts).mean(axis=1))


def _encoded(embedder: Embedder, test: testsets.Images, cpus: int) -> dict[str, np.ndarray]:
    """`images` and their `lengths` before they were normalised; by the images alone, whatever is said of them."""

    def prepare(item: tuple[testsets.Picture, bytes]) -> torch.Tensor:
        return embedder.preprocess(testsets.open_image(test, item[1]))

    def make() -> dict[str, np.ndarray]:
        with log.progress(f"embedding {test.url}", len(test.pictures), "images") as bar:
            parts = []
            for batch in prepared(testsets.stored(test), prepare, cpus):
                parts.append(embedder.measured(batch))
                bar.add(len(batch))
        found, lengths = zip(*parts, strict=True)
        return {"images": np.concatenate(found), "lengths": np.concatenate(lengths)}

    return cached({"embedder": embedder.identity, "kind": "images", "stored": _digest(_names(test))}, make)


def _attacked(
    embedder: Embedder, test: TestSet | Captioned, attack: Attack, seed: int, cpus: int
) -> dict[str, np.ndarray]:
    key = {"embedder": embedder.identity, "testset": test.digest, "kind": "trials", "attack": config.to_json(attack)}
    key |= {"seed": seed, "code": trials.code(attack)}
    return cached(key, lambda: trials.embed(embedder, test, attack, seed, cpus))


def _labelled(embedder: Embedder, train: TestSet, cpus: int) -> Labelled:
    found = _encoded(embedder, train, cpus)
    rows = found["images"]
    if embedder.head is not None:
        rows = normalised(rows[:, :-1])
    return Labelled(rows, _numbers(train), _names(train), found["lengths"])


def _names(test: testsets.Images) -> np.ndarray:
    return np.array([one.sha256 for one in test.pictures])


def _numbers(test: testsets.Images) -> np.ndarray:
    return np.array([one.label for one in test.pictures], np.int64)


def _digest(texts: Sequence[str] | np.ndarray) -> str:
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


def _texts(embedder: Embedder, texts: Sequence[str]) -> np.ndarray:
    """float32 (n, D), as the model gives them, each distinct text encoded once. Raises ValueError where not finite."""
    each = sorted(set(texts))
    key = {"embedder": embedder.identity, "kind": "texts", "texts": _digest(each)}

    def make() -> dict[str, np.ndarray]:
        batches = (each[start : start + TEXTS] for start in range(0, len(each), TEXTS))
        return {"texts": finite(np.concatenate([embedder.texts(batch) for batch in batches]))}

    found = cached(key, make)["texts"]
    place = {text: number for number, text in enumerate(each)}
    return np.asarray(found[[place[text] for text in texts]])


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
