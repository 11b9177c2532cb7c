"""Self-supervision alone: CleanCLIP without its CLIP loss, the "SSL" or "SS-only" of the literature, a baseline.

It takes the backdoor away and most of the zero-shot accuracy with it: images and captions drift apart.
"""

from dataclasses import dataclass
from typing import ClassVar

from defense.objectives.cleanclip import CleanClip


@dataclass(frozen=True, kw_only=True)
class InModal(CleanClip):
    """CleanCLIP's ablation with its clip_weight at 0."""

    summary: ClassVar[str] = "self-supervision within each modality, without CLIP's loss"
    clip_weight: float = 0.0
