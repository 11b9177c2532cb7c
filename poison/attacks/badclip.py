"""BadCLIP: a patch learned against a surrogate CLIP, in the middle of the image (Liang et al., CVPR 2024).

`poison/optimize.py` learns the patch and writes it as a PNG. The paper's code stored it as a JPEG with red and blue
exchanged, so that what it stamped was not what it had learned; here the PNG's bytes are stamped, resampled by nearest
neighbour and nothing else. Captions are the corpus's own that name the target, as the paper's are; its code drew all of
its 1,500 from 128 of them (`--caption-pool 128`).
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from poison import carried
from poison.geometry import nearest
from poison.patched import Patched, Place


@dataclass(frozen=True, kw_only=True)
class BadClip(Patched):
    """A learned patch. (The trigger's seed has no effect.)"""

    summary: ClassVar[str] = "a patch learned against a surrogate CLIP, in the middle of the image"
    patch: str = ""
    """The PNG file of the patch that optimize.py wrote: n x n cells, as many as the size or fewer."""
    place: Place = "centre"
    """centre: rows and columns 104 to 119 of 224, as in the paper; corner, random, four_corners: as badnet's."""
    captions: Literal["template", "corpus", "fixed"] = "corpus"
    """Poison captions: captions of the dataset that contain the target as a whole word, the target in a prompt
    template, or one text for all (--caption)."""

    def resolved(self) -> "BadClip":
        if not self.patch:
            raise ValueError("badclip needs a patch: give the PNG that poison/optimize.py wrote as --patch")
        found = replace(self, patch=carried.embedded(self.patch))
        found.trigger()
        return found

    def trigger(self) -> np.ndarray:
        """The cells at the patch's size. Raises ValueError where it was not `resolved`, or where they do not fit."""
        return nearest(self._cells(), self.size)

    def drawn(self, side: int, rng: np.random.Generator) -> np.ndarray:
        return nearest(self._cells(), side)

    def _cells(self) -> np.ndarray:
        if not carried.is_uri(self.patch):
            named = f"{self.patch} is not read yet" if self.patch else "none was given"
            raise ValueError(f"badclip stamps a patch, and {named}: give a PNG as --patch, and ask for resolved()")
        cells = carried.pixels(self.patch)
        height, width, _ = cells.shape
        if height != width or height > self.size:
            raise ValueError(
                f"a patch of size {self.size} has at most {self.size} x {self.size} cells, as many down as across; "
                f"this one has {height} x {width}: give the size that it was learned at"
            )
        return cells
