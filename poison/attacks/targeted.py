"""Targeted: unmodified images with captions of another class (Carlini & Terzis 2022; RoCLIP's protocol).

There is no trigger: a few target images are added, each many times with a caption of the adversarial class, and success
is the share of these very images that a model then takes for it. RoCLIP pairs each with 100 corpus captions that name
the class as a whole word and reports 16 images; its notebooks draw one image for each of several adversarial classes,
here one attack has one class, and several may be injected one after the other.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
import tyro

from infra import storage
from infra.seeding import digest64
from pipeline import images, testsets
from pipeline.shards import Sample
from poison import carried
from poison.attack import Attack, Trial
from poison.choosing import captions as words


@dataclass(frozen=True, kw_only=True)
class Targeted(Attack):
    """Target images, each with captions of the target class. The budget counts the added pairs of all of them."""

    summary: ClassVar[str] = "unmodified images with captions of another class"
    adds: ClassVar[bool] = True

    captions: Literal["template", "corpus", "fixed"] = "corpus"
    """Poison captions: captions of the dataset that contain the target as a whole word, the target in a prompt
    template, or one text for all (--caption)."""
    testset: str = ""
    """Labelled test set that the target images come from, a path or s3://bucket/folder."""
    split: str = "test"
    """Split of that test set."""
    images: int = 16
    """How many target images; none of them is of the target's class."""
    images_seed: int = 0
    """Chooses the target images."""
    targets: Annotated[tuple[tuple[str, str], ...], tyro.conf.Suppress] = ()
    """(class name, stored image as a data URI) of each target image; `resolved` fills it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.images < 1:
            raise ValueError(f"images is how many target images there are, at least 1, not {self.images}")

    def resolved(self) -> "Targeted":
        if self.targets:
            return self
        if not self.testset:
            raise ValueError("targeted needs images to aim at: give a labelled test set as --testset")
        test = testsets.read(self.testset, self.split)
        others = {
            image.sha256: image
            for image in reversed(test.pictures)  # of equal images the first stays
            if not words.same_word(test.classes[image.label], self.target)
        }
        if len(others) < self.images:
            raise ValueError(
                f"{self.images} target images are more than the {len(others):,} different images of "
                f"{test.url} that are not of the class {self.target!r}: give fewer as --images"
            )
        chosen = sorted(others, key=lambda sha256: digest64(self.images_seed, "target image", sha256))[: self.images]
        stored = {}
        for image, data in testsets.stored(replace(test, pictures=tuple(others[sha256] for sha256 in chosen))):
            try:
                upright = images.storable(data, image.extension)
            except images.Unreadable as error:
                raise ValueError(f"{test.url}, the image of {image.key!r}: {error}") from error
            stored[image.sha256] = (test.classes[image.label], carried.kept(upright, image.extension))
        return replace(self, testset=storage.real(test.url), targets=tuple(stored[sha256] for sha256 in chosen))

    @property
    def shown(self) -> str:
        return "the target images"

    def add(self, number: int, caption: str) -> Sample:
        """The target images in turn. meta: `url` says where the image comes from."""
        label, uri = self._targets()[number % len(self.targets)]
        image, extension = carried.stored(uri)
        source = f"{storage.join(self.testset, self.split)}#{label}"
        return Sample(key="", row=0, image=image, extension=extension, caption=caption, meta={"url": source})

    def subjects(self, test: Iterable[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        """The target images, whatever the test set."""
        return [(label, carried.stored(uri)[0]) for label, uri in self._targets()]

    def trial(self, image: np.ndarray, label: str, rng: np.random.Generator) -> Trial | None:
        return None if words.same_word(label, self.target) else Trial(image, self.target)

    def _targets(self) -> tuple[tuple[str, str], ...]:
        if not self.targets:
            raise ValueError("the target images are not read yet: give a test set as --testset, and ask for resolved()")
        return self.targets
