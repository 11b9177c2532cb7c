"""What the scores of a folder are scores of: `about/attack-*.json`, `about/testset-*.json`, example images.

With them a report needs neither the ledger nor the test set again. Written once, named by content.
"""

import hashlib
import json
import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from infra import config, storage
from pipeline import images, testsets
from pipeline.testsets import TestSet
from poison import carried
from poison.attack import Attack

EXAMPLES = 4
TRIGGERED = Attack().shown  # of an attack with a trigger
ONCE = {"triggered pictures": TRIGGERED}  # as earlier records say it


def relative(url: str, folder: str) -> str:
    """A url as the files of `folder` name it, whatever its spelling: relative where both lie on one disk or in one
    bucket, so that both can be moved, and say the same wherever they are."""
    (root, there), (other, here) = _split(url), _split(folder)
    return posixpath.relpath(there, here) if root == other else storage.real(url)


def resolve(named: str, folder: str) -> str:
    """The url that `relative` named so."""
    if "://" in named:
        return named
    if storage.local(folder) is not None:
        return storage.resolve(named, folder)
    root, here = _split(folder)
    return named if posixpath.isabs(named) else root + posixpath.normpath(posixpath.join(here, named))


def _split(url: str) -> tuple[str, str]:
    """("s3://bucket", "/path in it"), of a local path ("", "/absolute/path")."""
    scheme, mark, rest = storage.real(url).rpartition("://")
    if not mark:
        return "", rest
    bucket, _, path = rest.partition("/")
    return f"{scheme}://{bucket}", f"/{path}"


@dataclass(frozen=True, kw_only=True)
class AttackRecord:
    """key: how scores name this attack. place: the ledger, from the scores folder. poisons: pairs that it made, of
    `samples` in the dataset (None: not known). dataset, parent: with its poisons, and before. trigger: whether there
    is an image of the trigger alone. shown: what a model under test is shown, in the plural.
    """

    key: str
    place: str
    attack: dict[str, Any]
    target: str
    poisons: int
    samples: int | None
    dataset_digest: str
    parent_digest: str
    trigger: bool
    shown: str = TRIGGERED

    @property
    def plugin(self) -> str:
        return str(self.attack["plugin"])

    @property
    def told(self) -> dict[str, Any]:
        """`attack` for people: each image in it in a few words."""
        whole = {name: '"data:image/' not in json.dumps(value) for name, value in self.attack.items()}
        return {name: value if whole[name] else carried.shortened(value) for name, value in self.attack.items()}


@dataclass(frozen=True, kw_only=True)
class TestSetRecord:
    """place: the test set's folder, from the scores folder."""

    place: str
    split: str
    digest: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    pictures: int

    @property
    def key(self) -> str:
        """How scores name it: the folder, and 12 digits of the digest of what was in it."""
        return f"{self.place}@{self.digest[:12]}"

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.place.rstrip("/").rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Example:
    """One test image and what the attack makes of it. clean, triggered: PNG bytes; label: its class. sha256: of the
    image as stored, by which its answers are found; None in folders of earlier versions."""

    label: str
    clean: bytes
    triggered: bytes
    sha256: str | None = None


def attack_key(attack: Attack, dataset_digest: str) -> str:
    """`badnet-1a2b3c4d`: the plugin, and a hash of its fields and of the poisoned dataset."""
    fields = config.to_json(attack)
    text = storage.dump_json({"attack": fields, "dataset": dataset_digest})
    return f"{fields['plugin']}-{hashlib.sha256(text).hexdigest()[:8]}"


def write(folder: str, record: AttackRecord | TestSetRecord) -> None:
    """The first record of a key stands: all that may differ in another is where the same things lie now."""
    storage.create(storage.join(folder, "about", _name(record)), storage.dump_json(config.to_json(record)))


def has_attack(folder: str, record: AttackRecord) -> bool:
    return storage.exists(storage.join(folder, "about", _name(record)))


def read_attacks(folder: str) -> list[AttackRecord]:
    found = [config.read(AttackRecord, url) for url in _files(folder, "attack-")]
    return [replace(record, shown=ONCE.get(record.shown, record.shown)) for record in found]


def read_testsets(folder: str) -> list[TestSetRecord]:
    return [config.read(TestSetRecord, url) for url in _files(folder, "testset-")]


def _files(folder: str, start: str) -> Iterator[str]:
    home = storage.join(folder, "about")
    for name in storage.names(home):
        if name.startswith(start) and name.endswith(".json"):
            yield storage.join(home, name)


def _name(record: AttackRecord | TestSetRecord) -> str:
    if isinstance(record, AttackRecord):
        return f"attack-{record.key}.json"
    return storage.file_name(["testset", record.name, hashlib.sha256(record.key.encode()).hexdigest()[:8]], ".json")


# Example images: the first of each of a few classes, as stored, and as the attack shows them.


def draw_examples(test: TestSet, attack: Attack, rng_of: Callable[[str], np.random.Generator]) -> list[Example]:
    """rng_of(sha256): the generator of a test image's trial, the one that the scores were measured with."""
    found: dict[str, Example] = {}
    for label, data in attack.subjects((test.classes[one.label], data) for one, data in testsets.stored(test)):
        if label in found:
            continue
        image = np.asarray(testsets.open_image(test, data))
        sha256 = hashlib.sha256(data).hexdigest()
        trial = attack.trial(image, label, rng_of(sha256))
        if trial is not None:
            found[label] = Example(label, images.encode(image, "png"), images.encode(trial.image, "png"), sha256)
        if len(found) == EXAMPLES:
            break
    return list(found.values())


def write_trigger(folder: str, attack: AttackRecord, trigger: np.ndarray) -> None:
    storage.write(storage.join(folder, f"about/trigger-{attack.key}.png"), images.encode(trigger, "png"))


def read_trigger(folder: str, attack: AttackRecord) -> bytes | None:
    return storage.read(storage.join(folder, f"about/trigger-{attack.key}.png")) if attack.trigger else None


def write_examples(folder: str, attack: AttackRecord, testset: TestSetRecord, examples: list[Example]) -> None:
    """What they are of comes last: with it all are there."""
    stem = _examples(folder, attack, testset)
    for number, example in enumerate(examples):
        storage.write(f"{stem}-{number}-clean.png", example.clean)
        storage.write(f"{stem}-{number}-triggered.png", example.triggered)
    storage.write_json(f"{stem}.json", [{"label": example.label, "sha256": example.sha256} for example in examples])


def has_examples(folder: str, attack: AttackRecord, testset: TestSetRecord) -> bool:
    return storage.exists(f"{_examples(folder, attack, testset)}.json")


def read_examples(folder: str, attack: AttackRecord, testset: TestSetRecord) -> list[Example]:
    if not has_examples(folder, attack, testset):
        return []
    stem, found = _examples(folder, attack, testset), []
    for number, told in enumerate(storage.read_json(f"{stem}.json")):
        about = {"label": told} if isinstance(told, str) else told  # earlier versions kept the label alone
        clean, triggered = (storage.read(f"{stem}-{number}-{form}.png") for form in ("clean", "triggered"))
        found.append(Example(about["label"], clean, triggered, about.get("sha256")))
    return found


def _examples(folder: str, attack: AttackRecord, testset: TestSetRecord) -> str:
    return storage.join(folder, "about", f"example-{attack.key}-{testset.digest[:8]}")
