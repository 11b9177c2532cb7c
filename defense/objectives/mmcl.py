"""Plain multimodal finetuning: the CLIP loss on clean pairs, and nothing else. Every finetuning defence's baseline.

What a defence achieves counts only against this one, at the same data, epochs and learning rate.
"""

from dataclasses import dataclass
from typing import ClassVar

from train.objectives.clip import Clip


@dataclass(frozen=True, kw_only=True)
class Mmcl(Clip):
    """The multimodal contrastive loss alone (CleanCLIP's ablation with its in-modal weight at 0)."""

    summary: ClassVar[str] = "CLIP's loss on clean pairs"
