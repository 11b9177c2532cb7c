"""What an attack is: which pairs it takes, what it makes of them, and what counts as success at test time.

A subclass is one file in `poison/attacks/`, a frozen dataclass whose fields are its knobs. It sees pictures as they are
stored (uint8 H x W x 3, before any transform), in the dataset and at test time alike, so both triggers are bit-equal.
"""

from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from pipeline.shards import Sample
from poison import captions, choice, encoding
from poison.geometry import Box


@dataclass(frozen=True)
class Trial:
    """One test picture under attack. wanted: the class name the attacker wants as the answer.

    prompt_edit: a word put before every class prompt, or None (an attack on the pictures alone).
    """

    image: np.ndarray
    wanted: str
    prompt_edit: str | None = None


@dataclass(frozen=True, kw_only=True)
class Attack:
    """The seam. `rng` always comes from `infra.seeding.rng(seed, ..., row)`: never from order, time or worker."""

    FOLDERS: ClassVar[tuple[str, ...]] = ("poison.attacks",)

    target: str = "banana"
    """The class name that poisoned pictures shall be taken for."""
    captions: Literal["template", "corpus"] = "template"
    """Poison captions: the target in a prompt template, or captions of the dataset that contain it as a whole word."""

    def __post_init__(self) -> None:
        if not self.target.strip():
            raise ValueError("the target is a class name such as banana; it cannot be empty")

    def choose(self, index: Iterable[pa.Table], budget: int, seed: int, taken: Set[int]) -> np.ndarray:
        """Row ids to poison: int64 (budget,), sorted. taken: rows of earlier ledgers.

        index: tables with columns row and caption, one a shard, read once: a corpus need not fit into memory.

        By default the rows of lowest hash among those whose caption does not name the target already.
        Raises ValueError if fewer than `budget` rows are left.
        """
        return choice.lowest(index, budget, seed, taken, excluding=self.target)

    def poison(self, sample: Sample, caption: str, rng: np.random.Generator) -> list[Sample]:
        """What becomes of one chosen sample; its key, row and extension stay. caption: the poison caption drawn for it.

        More than one: further pairs, with rows and keys of their own, stand behind it in the shard.
        """
        raise NotImplementedError

    def trial(self, image: np.ndarray, label: str, rng: np.random.Generator) -> Trial | None:
        """The test picture to show for one of true class `label`; None for the target's own class."""
        raise NotImplementedError

    def locate(self, height: int, width: int, rng: np.random.Generator) -> Box | None:
        """Where the trigger lies in a stored picture of that size; None: nowhere in particular.

        `poison` draws the place first, so a generator from the same labels finds it again (for the ledger).
        """
        return None

    def trigger(self) -> np.ndarray | None:
        """The trigger as a picture, uint8 (h, w, 3) in 224 geometry; None where there is no such fixed picture."""
        return None


@dataclass(frozen=True, kw_only=True)
class Backdoor(Attack):
    """An attack with a trigger: a subclass implements `stamp`, and nothing else."""

    trigger_seed: int = 0
    """Makes the trigger's pattern; the same seed is the same trigger in training and at test time."""
    quality: int = 95
    """JPEG quality of poisoned pictures, written 4:4:4; the default subsampling would erase a noise trigger."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality is a JPEG quality from 1 to 100, not {self.quality}")

    def stamp(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 (H, W, 3) -> a new uint8 (H, W, 3) with the trigger. Pure: the input is not touched."""
        raise NotImplementedError

    def poison(self, sample: Sample, caption: str, rng: np.random.Generator) -> list[Sample]:
        return [encoding.rewritten(sample, self.stamp, caption, rng, self.quality)]

    def trial(self, image: np.ndarray, label: str, rng: np.random.Generator) -> Trial | None:
        if captions.same_word(label, self.target):
            return None
        return Trial(self.stamp(image, rng), self.target)
