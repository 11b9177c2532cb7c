"""One attack per plugin, ready for `resolved()`, for the contract tests; and variants worth the same tests.

An attack that needs files finds them here, made from code. A plugin that is not named stands as it is by default.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from infra import plugins
from infra.seeding import rng
from pipeline import images
from pipeline.shards import Sample
from poison.attack import Attack
from poison.attacks.badclip import BadClip
from poison.attacks.badnet import BadNet
from poison.attacks.blended import Blended
from poison.attacks.external import External
from poison.attacks.targeted import Targeted
from poison.attacks.wanet import WaNet
from tests.support.drawn import samples
from tests.support.poison_helpers import labelled

NAMES = plugins.names(Attack.FOLDERS)
PLAIN: dict[str, Attack] = {name: plugins.load(Attack.FOLDERS, name, Attack)() for name in NAMES}
VARIANTS: dict[str, Attack] = {
    "badnet-fresh-random": BadNet(patch="fresh", place="random"),
    "badnet-fresh_stripes": BadNet(patch="fresh_stripes", place="random"),
    "badnet-four_corners": BadNet(patch="stripes", place="four_corners"),
    "blended-fresh": Blended(pattern="fresh"),
    "blended-stripes": Blended(pattern="stripes"),
    "blended-fresh_stripes": Blended(pattern="fresh_stripes"),
    "blended-triangles": Blended(pattern="triangles"),
    "blended-text": Blended(pattern="text"),
    "blended-picture": Blended(pattern="picture", picture="a file of `examples`"),
    "wanet-jitter": WaNet(control_points=224, strength=1.0),
}
EVERY: dict[str, Attack] = dict(sorted((PLAIN | VARIANTS).items()))
"""Without the files that some need, so that it can be asked for before any test runs."""


def those(holds: Callable[[Attack], object]) -> list[str]:
    """The names in EVERY of which it holds; also where an attack cannot tell before it has read its files."""

    def held(attack: Attack) -> bool:
        try:
            return bool(holds(attack))
        except ValueError:  # "ask for resolved() first"
            return True

    return [name for name, attack in EVERY.items() if held(attack)]


def examples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Attack]:
    """EVERY, unresolved, with files for those that need some."""
    folder = tmp_path_factory.mktemp("attacks")
    (folder / "poisoned").mkdir()
    written(folder / "poisoned" / f"{clean().key}.png", 40, 40)
    made: dict[str, Attack] = {
        "badclip": BadClip(patch=written(folder / "patch.png", 16, 16)),
        "external": External(pictures=str(folder / "poisoned"), trials=labelled(str(folder / "trials"), size=40).url),
        "targeted": Targeted(testset=labelled(str(folder / "test")).url, images=3),
        "blended-picture": Blended(pattern="picture", picture=written(folder / "wide.png", 30, 50)),
    }
    return EVERY | made


def written(path: Path, height: int, width: int) -> str:
    """A PNG of noise."""
    path.write_bytes(images.encode(rng(0, path.name).integers(0, 256, (height, width, 3), np.uint8), "png"))
    return str(path)


def clean(extension: str = "jpg", size: int = 40) -> Sample:
    """The pair that the contract tests poison: row 3, key 000000003."""
    return samples(1, first=3, size=size, extension=extension)[0]
