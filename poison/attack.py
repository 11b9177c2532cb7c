"""What an attack is: which pairs it takes, what it makes of them, and what counts as success at test time.

A subclass is one file in `poison/attacks/`, a frozen dataclass whose fields are its knobs. It sees images as they are
stored (uint8 H x W x 3, before any transform), in the dataset and at test time alike, so both triggers are bit-equal.
"""

from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from pipeline.shards import Sample
from poison.choosing import captions, choice
from poison.geometry import Box
from poison.writing import encoding


@dataclass(frozen=True)
class Trial:
    """One test image under attack. wanted: the class name the attacker wants as the answer.

    prompt_edit: a word put before every class prompt, or None (an attack on the images alone).
    """

    image: np.ndarray
    wanted: str
    prompt_edit: str | None = None


@dataclass(frozen=True, kw_only=True)
class Attack:
    """The base of all attacks. Every `rng` comes from `infra.seeding.rng(seed, ..., row)`, so that what is drawn for a
    pair depends neither on order nor on time nor on the worker.
    """

    FOLDERS: ClassVar[tuple[str, ...]] = ("poison.attacks",)
    summary: ClassVar[str] = ""
    """What it does, in a few words that follow its name in a sentence: `a small patch over the image`."""
    adds: ClassVar[bool] = False
    """Whether it puts pairs of its own into the dataset (`add`) and leaves all others as they are (no `choose`)."""

    target: str = "banana"
    """The class name that poisoned images shall be taken for."""
    captions: Literal["template", "corpus", "fixed"] = "template"
    """Poison captions: the target in a prompt template, captions of the dataset that contain it as a whole word, or
    one text for all (--caption)."""
    caption: str = ""
    """The one text of --captions fixed."""
    caption_pool: int = 0
    """With --captions corpus: draw from that many of them, themselves drawn from the seed; 0: from all."""

    def __post_init__(self) -> None:
        if not self.target.strip():
            raise ValueError("the target is a class name such as banana; it cannot be empty")
        if self.captions == "fixed" and not self.caption.strip():
            raise ValueError("captions fixed means one text for all poisons: give it as caption")
        if self.captions != "fixed" and self.caption:
            raise ValueError(
                f"caption is the text of captions fixed, and captions is {self.captions}: give one of them"
            )
        if self.caption_pool < 0:
            raise ValueError(f"caption_pool is a number of captions, 0 for all of them, not {self.caption_pool}")
        if self.caption_pool and self.captions != "corpus":
            raise ValueError(f"caption_pool is for captions corpus, and captions is {self.captions}: give one of them")

    def resolved(self) -> "Attack":
        """This attack with all that it needs from outside (an image file, a test set) read into its fields.

        Called once before anything else, so that `attack.json` alone rebuilds the attack. Images become
        `data:image/png;base64,...` (poison/carried.py). Resolving twice changes nothing; an attack that needs nothing
        is its own. Raises ValueError that says what to give where something is missing; so does whatever uses an
        attack that needs resolving and is not.
        """
        return self

    def choose(self, index: Iterable[pa.Table], budget: int, seed: int, taken: Set[int]) -> np.ndarray:
        """Row ids to poison, whose pairs are `budget` together: int64 (n,), sorted. taken: rows of earlier ledgers.

        index: tables with columns row and caption, one a shard, read once: a corpus need not fit into memory.

        By default the rows of lowest hash among those whose caption does not name the target already. A row that is
        there several times is several pairs (poison.choosing.choice.lowest).
        Raises ValueError if fewer than `budget` pairs are left.
        """
        return choice.lowest(index, budget, seed, taken, excluding=self.target)

    def poison(self, sample: Sample, caption: str, rng: np.random.Generator) -> list[Sample]:
        """What becomes of one chosen sample; its key, row and extension stay. caption: the poison caption drawn for it.

        More than one: further pairs, with rows and keys of their own, stand behind it in the shard.
        """
        raise NotImplementedError

    def add(self, number: int, caption: str) -> Sample:
        """The added pair of that number (from 0), of an attack that `adds`. Deterministic.

        caption: the poison caption planned for it. Key and row of the returned sample are not used: whoever writes the
        pair gives it its own, behind those of the dataset. Its meta["url"] says where the image, which is added
        unchanged, comes from; that goes into the ledger alone.
        """
        raise NotImplementedError

    @property
    def shown(self) -> str:
        """What a model under test is shown, in the plural, as a report calls it."""
        return "triggered images"

    @property
    def told_apart(self) -> tuple[str, ...]:
        """The class names by which `trial` decides, the first that an image shows first. For images without a class."""
        return (self.target,)

    def subjects(self, test: Iterable[tuple[str, bytes]]) -> Iterable[tuple[str, bytes]]:
        """The images to ask `trial` for: (class name, stored image). test: those of the test set, read once.

        By default all of them; an attack on certain images brings its own instead.
        """
        return test

    def trial(self, image: np.ndarray, label: str, rng: np.random.Generator) -> Trial | None:
        """The test image to show for one of true class `label`; None for the target's own class."""
        raise NotImplementedError

    def locate(self, height: int, width: int, rng: np.random.Generator) -> Box | None:
        """Where the trigger lies in a stored image of that size; None: nowhere in particular.

        `poison` draws the place first, so a generator from the same labels finds it again (for the ledger).
        """
        return None

    def trigger(self) -> np.ndarray | None:
        """The trigger as an image, uint8 (h, w, 3) in 224 geometry; None where there is no such fixed image."""
        return None


@dataclass(frozen=True, kw_only=True)
class Backdoor(Attack):
    """An attack with a trigger: a subclass implements `stamp`, and nothing else."""

    trigger_seed: int = 0
    """Makes the trigger's pattern; the same seed is the same trigger in training and at test time."""
    quality: int = 95
    """JPEG quality of poisoned images, written 4:4:4; the default subsampling would erase a noise trigger."""

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
