"""The trials of an attack on a test set: what a model under test is shown, and what the attacker wants it to answer."""

import hashlib
from collections.abc import Callable, Iterator
from operator import length_hint

import numpy as np
import torch
from PIL import Image

from infra import log, plugins, seeding
from pipeline import testsets
from pipeline.captioned import Captioned
from pipeline.testsets import TestSet
from poison.attack import Attack
from poison.choosing import captions
from train.embedding import Embedder, prepared


def embed(embedder: Embedder, test: TestSet | Captioned, attack: Attack, seed: int, cpus: int) -> dict[str, np.ndarray]:
    """Every trial, embedded: images (M, D) and their lengths before they were normalised, labels and wanted classes
    int64 (M,), names (M,), the sha256 of the images before the attack, and the edit of the prompts or "".

    Raises ValueError where the attack applies to no image, or names a class that the test set does not have.
    """
    labels_of = _labels(test)

    def prepare(item: tuple[str, bytes]) -> tuple[torch.Tensor, int, str, str, str] | None:
        name, data = item
        sha256 = hashlib.sha256(data).hexdigest()
        trial = attack.trial(np.asarray(testsets.open_image(test, data)), name, trial_rng(seed, sha256))
        if trial is None:
            return None
        pixels = embedder.preprocess(Image.fromarray(trial.image))
        return pixels, labels_of(name, sha256), trial.wanted, trial.prompt_edit or "", sha256

    subjects = attack.subjects(_shown(test, attack))
    total = length_hint(subjects, len(test.pictures))
    parts, lengths, labels, wanted, names, edits = [], [], [], [], [], set()
    with log.progress(f"embedding {test.url} under attack", total, "images") as bar:
        for batch in prepared(subjects, prepare, cpus):
            shown = [trial for trial in batch if trial is not None]
            if shown:
                rows, length = embedder.measured([pixels for pixels, *_ in shown])
                parts.append(rows)
                lengths.append(length)
            labels += [label for _, label, *_ in shown]
            wanted += [class_number(test, name) if isinstance(test, TestSet) else 0 for _, _, name, *_ in shown]
            edits |= {edit for *_, edit, _ in shown}
            names += [sha256 for *_, sha256 in shown]
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
        "lengths": np.concatenate(lengths),
        "names": np.array(names),
        "labels": np.array(labels, np.int64),
        "wanted": np.array(wanted, np.int64),
        "prompt_edit": np.array(edits.pop()),
    }


def trial_rng(seed: int, sha256: str) -> np.random.Generator:
    """The generator for one test image: the same image is shown with the same trigger in every test set."""
    return seeding.rng(seed, "trial", sha256)


def class_number(test: TestSet, name: str) -> int:
    """The label of the class that an attack names. Raises ValueError that lists the classes there are."""
    matches = [number for number, known in enumerate(test.classes) if captions.same_word(known, name)]
    exact = [number for number in matches if test.classes[number] == name]
    if len(exact or matches) != 1:
        some = ", ".join(test.classes[:20]) + (f", ... ({len(test.classes)} in all)" if len(test.classes) > 20 else "")
        found = "is not a class" if not matches else "names more than one class"
        raise ValueError(f"the attack's target {name!r} {found} of {test.url}; its classes are: {some}")
    return (exact or matches)[0]


def code(attack: Attack) -> str:
    """sha256 of the code that draws: an attack's fields stay equal while its drawing changes under development."""
    digest = hashlib.sha256()
    for path in plugins.sources(type(attack)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _shown(test: TestSet | Captioned, attack: Attack) -> Iterator[tuple[str, bytes]]:
    """(class name, stored image) of a test set. An image with captions is of the first class that the attack tells
    apart and one of them names; of no name where they name none."""
    for number, (one, data) in enumerate(testsets.stored(test)):
        if isinstance(test, TestSet):
            yield test.classes[one.label], data
        else:
            said = test.captions[number]
            named = (name for name in attack.told_apart if any(captions.whole_word(name).search(text) for text in said))
            yield next(named, ""), data


def _labels(test: TestSet | Captioned) -> Callable[[str, str], int]:
    """(class name, sha256) -> the label: that of the test set's own image; of any other, by name; -1 if unknown."""
    classes = test.classes if isinstance(test, TestSet) else ()
    own = {(classes[one.label], one.sha256): one.label for one in test.pictures if classes}

    def label(name: str, sha256: str) -> int:
        if (name, sha256) in own:
            return own[name, sha256]
        return next((number for number, known in enumerate(classes) if captions.same_word(known, name)), -1)

    return label
