"""Encode once, cache by content: every task reads the same arrays, and no name can stand for two contents.

A cache entry is an .npz under pipeline.dataset.cache_folder(), named by a hash of everything its numbers depend on:
weights, transform, test set, and for images under attack the attack, its seed and the source code that draws it.
"""

import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from operator import length_hint
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from eval.task import Attacked, Embedded, normalised
from infra import config, log, seeding, storage
from pipeline import images, testsets
from pipeline.dataset import cache_folder
from pipeline.testsets import TestSet
from poison.attack import Attack
from poison.choosing import captions

BATCH = 128


@dataclass(frozen=True)
class Embedder:
    """A model ready to embed. preprocess: PIL image -> float32 (3, S, S); tokenizer: texts -> int64 (n, L).

    identity: what its embeddings depend on, as text: hash of the weights, architecture, transform, head.
    head: of a classifier, which answers by it and not by prompts: float32 (C, D + 1), weights and bias of a class.
    """

    model: Any
    preprocess: Callable[[Image.Image], torch.Tensor]
    tokenizer: Callable[[list[str]], torch.Tensor]
    identity: str
    device: torch.device
    head: np.ndarray | None = None


def embed(embedder: Embedder, test: TestSet, attack: Attack | None, seed: int, cpus: int = 1) -> Embedded:
    """Everything a task may ask for. cpus: threads that decode and transform; the numbers do not depend on it.

    Raises ValueError for embeddings that are not finite, where the attack's class is not one of the test set's, and
    for a classifier of another number of classes, or under an attack that edits prompts.
    """
    base = {"embedder": embedder.identity, "testset": test.digest}
    clean = _cached(base | {"kind": "images"}, lambda: {"images": _clean_pictures(embedder, test, cpus)})
    classes = _classes(embedder, test, None)
    labels = np.array([picture.label for picture in test.pictures], np.int64)
    if attack is None:
        return Embedded(clean["images"], labels, classes)
    key = base | {"kind": "attacked", "attack": config.to_json(attack), "seed": seed, "code": _source_hash(attack)}
    found = _cached(key, lambda: _attacked_pictures(embedder, test, attack, seed, cpus))
    edit = str(found["prompt_edit"]) or None
    edited = classes if edit is None else _classes(embedder, test, edit)
    return Embedded(
        clean["images"], labels, classes, Attacked(found["images"], found["labels"], found["wanted"], edited)
    )


def class_number(test: TestSet, name: str) -> int:
    """The label of the class that an attack names. Raises ValueError that lists the classes there are."""
    matches = [number for number, known in enumerate(test.classes) if captions.same_word(known, name)]
    exact = [number for number in matches if test.classes[number] == name]
    if len(exact or matches) != 1:
        some = ", ".join(test.classes[:20]) + (f", ... ({len(test.classes)} in all)" if len(test.classes) > 20 else "")
        found = "is not a class" if not matches else "names more than one class"
        raise ValueError(f"the attack's target {name!r} {found} of {test.url}; its classes are: {some}")
    return (exact or matches)[0]


def trial_rng(seed: int, sha256: str) -> np.random.Generator:
    """The generator for one test image: the same image is shown with the same trigger in every test set."""
    return seeding.rng(seed, "trial", sha256)


def ensemble(prompts: np.ndarray) -> np.ndarray:
    """Class embeddings: the mean over prompts of their normalised embeddings, normalised. (C, T, D) -> (C, D)."""
    return normalised(normalised(prompts).mean(axis=1))


def _clean_pictures(embedder: Embedder, test: TestSet, cpus: int) -> np.ndarray:
    def prepare(item: tuple[testsets.Picture, bytes]) -> torch.Tensor:
        return embedder.preprocess(images.open_image(item[1]))

    with log.progress(f"embedding {test.url}", len(test.pictures), "images") as bar:
        parts = []
        for batch in _prepared(testsets.stored(test), prepare, cpus):
            parts.append(_encode_images(embedder, batch))
            bar.add(len(batch))
    return np.concatenate(parts)


def _attacked_pictures(
    embedder: Embedder, test: TestSet, attack: Attack, seed: int, cpus: int
) -> dict[str, np.ndarray]:
    labels_of = _labels(test)

    def prepare(item: tuple[str, bytes]) -> tuple[torch.Tensor, int, str, str] | None:
        name, data = item
        sha256 = hashlib.sha256(data).hexdigest()
        trial = attack.trial(images.decode(data), name, trial_rng(seed, sha256))
        if trial is None:
            return None
        pixels = embedder.preprocess(Image.fromarray(trial.image))
        return pixels, labels_of(name, sha256), trial.wanted, trial.prompt_edit or ""

    subjects = attack.subjects((test.classes[picture.label], data) for picture, data in testsets.stored(test))
    total = length_hint(subjects, len(test.pictures))
    parts, labels, wanted, edits = [], [], [], set()
    with log.progress(f"embedding {test.url} under attack", total, "images") as bar:
        for batch in _prepared(subjects, prepare, cpus):
            shown = [trial for trial in batch if trial is not None]
            if shown:
                parts.append(_encode_images(embedder, [pixels for pixels, *_ in shown]))
            labels += [label for _, label, _, _ in shown]
            wanted += [class_number(test, name) for _, _, name, _ in shown]
            edits |= {edit for *_, edit in shown}
            bar.add(len(batch))
    if not parts:
        raise ValueError(
            f"the attack applies to none of the images for {test.url}: all are of the class it wants, or of none "
            "that it is made for"
        )
    if len(edits) > 1:
        raise ValueError(f"an attack edits the prompts of all its trials alike, not by {sorted(edits)}")
    return {
        "images": np.concatenate(parts),
        "labels": np.array(labels, np.int64),
        "wanted": np.array(wanted, np.int64),
        "prompt_edit": np.array(edits.pop()),
    }


def _labels(test: TestSet) -> Callable[[str, str], int]:
    """(class name, sha256) -> the label: that of the test set's own image; of any other, by name; -1 if unknown."""
    own = {(test.classes[picture.label], picture.sha256): picture.label for picture in test.pictures}

    def label(name: str, sha256: str) -> int:
        if (name, sha256) in own:
            return own[name, sha256]
        return next((number for number, known in enumerate(test.classes) if captions.same_word(known, name)), -1)

    return label


def _classes(embedder: Embedder, test: TestSet, edit: str | None) -> np.ndarray:
    """float32 (C, D): the prompt ensemble, class after class, so that C x T prompts are never held at once.

    Of a classifier, its head.
    """
    if embedder.head is not None:
        if len(embedder.head) != len(test.classes):
            raise ValueError(f"a classifier of {len(embedder.head)} classes has no answer for {len(test.classes)}")
        if edit is not None:
            raise ValueError(f"the attack edits the prompts (by {edit!r}), and a classifier reads none")
        return _finite(embedder.head)

    def make() -> dict[str, np.ndarray]:
        rows = []
        for name in test.classes:
            prompts = [template.replace("{c}", name) for template in test.templates]
            prompts = [f"{edit} {prompt}" for prompt in prompts] if edit else prompts
            with torch.inference_mode():
                found = embedder.model.encode_text(embedder.tokenizer(prompts).to(embedder.device))
            rows.append(ensemble(found.float().cpu().numpy()[None])[0])
        return {"classes": _finite(np.stack(rows))}

    key = {"embedder": embedder.identity, "kind": "classes", "classes": test.classes, "templates": test.templates}
    return _cached(key | {"prompt_edit": edit}, make)["classes"]


def _encode_images(embedder: Embedder, pixels: list[torch.Tensor]) -> np.ndarray:
    with torch.inference_mode():
        found = embedder.model.encode_image(torch.stack(pixels).to(embedder.device)).float().cpu().numpy()
    if embedder.head is not None:
        return _finite(np.concatenate([found, np.ones_like(found[:, :1])], axis=1))
    return _finite(normalised(found))


def _finite(rows: np.ndarray) -> np.ndarray:
    if not np.isfinite(rows).all():
        raise ValueError("the model gives embeddings that are not finite numbers: its training diverged")
    return rows


def _prepared(items: Iterable[Any], prepare: Callable[[Any], Any], cpus: int) -> Iterator[list[Any]]:
    """`prepare` over items, in order, in batches; with more than one CPU the next batch is made meanwhile."""
    pending = iter(items)
    batches = iter(lambda: list(islice(pending, BATCH)), [])
    if cpus == 1:
        yield from ([prepare(item) for item in batch] for batch in batches)
        return
    with ThreadPoolExecutor(cpus) as pool:
        waiting = [pool.submit(prepare, item) for item in next(batches, [])]
        while waiting:
            following = [pool.submit(prepare, item) for item in next(batches, [])]
            yield [future.result() for future in waiting]
            waiting = following


def _cached(key: dict[str, Any], make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    text = json.dumps(key, sort_keys=True)
    place = str(cache_folder() / "embeddings" / f"{hashlib.sha256(text.encode()).hexdigest()}.npz")
    if storage.exists(place):
        try:
            with np.load(place, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            log.warn(f"{place} is damaged ({error}) and is made again")
    made = make()
    buffer = io.BytesIO()
    np.savez(buffer, **made)  # type: ignore[arg-type]
    storage.write(place, buffer.getvalue())
    return made


def _source_hash(attack: Attack) -> str:
    """Of the code that stamps: an attack's fields stay equal while its drawing changes under development."""
    modules = {cls.__module__ for cls in type(attack).__mro__ if issubclass(cls, Attack)}
    home = Path(str(sys.modules["poison.attack"].__file__)).parent
    files = {Path(str(sys.modules[module].__file__)) for module in modules} | set(home.glob("*.py"))
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.name):
        digest.update(path.read_bytes())
    return digest.hexdigest()
