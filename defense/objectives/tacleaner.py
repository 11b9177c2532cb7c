"""TA-Cleaner, later CleanerCLIP: CleanCLIP, and for some pairs an alignment with sub-captions (arXiv 2409.17601).

Its code is not public, and its equations are known through reviews and secondary sources. What is ours is said below.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defense.language import parsing
from defense.language.subcaptions import subcaptions
from defense.objectives.cleanclip import CleanClip
from infra.seeding import hash64
from train import ranks
from train.objective import Clock, Features, Loss, Pair, Views, diagonal

CHOSEN = 1  # the role of a pair that has sub-captions this epoch


@dataclass(frozen=True, kw_only=True)
class TaCleaner(CleanClip):
    """CleanCLIP's loss + subcaption_weight x the mean of both directions below, over the chosen pairs of a batch.

    In every epoch a share of the pairs is chosen anew. Of a chosen one's caption come a positive sub-caption p (true
    of the image: subject, relation, object) and a negative one n (p with one word changed in meaning; where that
    cannot be, another statement of the caption so changed). With I, P, N the embeddings of image, p and n, and i, j,
    k over the chosen pairs of the batch:

        images:  -log e^(I_i.P_i / t_p) / (sum_j e^(I_i.P_j / t_p) + sum_k e^(I_i.N_k / t_n))
        captions:  -log e^(P_i.I_i / t_p) / (sum_j e^(P_i.I_j / t_p) + sum_k e^(N_i.I_k / t_n))

    Ours, since no source says it: the second sum runs over all negatives (as printed, it names no other than the
    pair's own); "roles swapped" as above; half of each direction; the chosen pairs are contrasted within the batch that
    they happen to be in, with no batch of their own; one sub-caption of each kind; the images are the originals. A
    caption of which nothing can be made has no part in it, one without a negative only as a positive.
    """

    summary: ClassVar[str] = "CleanCLIP, and for some pairs an alignment with sub-captions"
    subcaption_share: float = 0.1
    """K of the paper, as a share of the dataset: how many pairs are chosen in an epoch."""
    subcaption_weight: float = 1.0
    """beta: of the sub-captions' loss."""
    positive_temperature: float = 0.07
    """t_p."""
    negative_temperature: float = 0.07
    """t_n."""
    parser: str = ""
    """A spaCy pipeline that is installed (en_core_web_sm), or its folder; empty: ours, which needs nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.subcaption_share <= 1:
            raise ValueError(f"subcaption_share is a share between 0 and 1, not {self.subcaption_share}")
        if self.subcaption_weight < 0:
            raise ValueError(f"subcaption_weight cannot be negative, it is {self.subcaption_weight}")
        for name in ("positive_temperature", "negative_temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")

    def ready(self) -> None:
        parsing.pipeline(self.parser)  # once, and not in every worker

    def epoch(
        self,
        clock: Clock,
        rows: np.ndarray,
        score: Callable[[np.ndarray], np.ndarray],
        rng: np.random.Generator,
        state: nn.Module,
    ) -> np.ndarray:
        """CHOSEN for round(subcaption_share x n) pairs, each as likely as any other, wherever it lies."""
        lots = hash64(int(rng.integers(2**63)), "sub-captions", rows)
        roles = np.zeros(len(rows), np.int64)
        roles[np.argsort(lots, kind="stable")[: round(self.subcaption_share * len(rows))]] = CHOSEN
        return roles

    def views(self, pair: Pair, rng: np.random.Generator) -> Views:
        """CleanCLIP's, and the texts "positive" and "negative" where the pair is chosen and has them."""
        views = super().views(pair, rng)
        positive, negative = None, None
        if pair.role == CHOSEN:
            found = subcaptions(pair.caption, rng, parsing.pipeline(self.parser))
            positive, negative = next(iter(found.positives), None), next(iter(found.negatives), None)
        return replace(views, texts=views.texts | {"positive": positive, "negative": negative})

    def loss(self, features: Features, scale: Tensor, clock: Clock, state: nn.Module) -> Loss:
        cleanclip = super().loss(features, scale, clock, state)
        chosen, negated = features.there("positive"), features.there("negative")
        parts = cleanclip.parts | {"chosen": chosen.float().mean()}
        if not chosen.any():
            return Loss(cleanclip.total, parts)
        extra = subcaption_loss(
            features.images["image"][chosen],
            features.texts["positive"][chosen],
            features.texts["negative"][chosen],
            negated[chosen],
            self.positive_temperature,
            self.negative_temperature,
        )
        return Loss(cleanclip.total + self.subcaption_weight * extra, parts | {"subcaption": extra})


def subcaption_loss(
    images: Tensor, positives: Tensor, negatives: Tensor, negated: Tensor, t_p: float, t_n: float
) -> Tensor:
    """The mean of both directions of TaCleaner. images, positives, negatives: (M, D); negated: bool (M,), which
    negatives there are."""
    lacking = ~negated
    if ranks.share(len(images)) is not None:

        def of_images(rows: slice) -> Tensor:
            by_negative = (images[rows] @ negatives.T / t_n).masked_fill(lacking, -torch.inf)
            return torch.cat([images[rows] @ positives.T / t_p, by_negative], dim=1)

        def of_captions(rows: slice) -> Tensor:
            by_negative = (negatives[rows] @ images.T / t_n).masked_fill(lacking[rows, None], -torch.inf)
            return torch.cat([positives[rows] @ images.T / t_p, by_negative], dim=1)

        both = (diagonal(logits, len(images), images.device) for logits in (of_images, of_captions))
        return sum(both) / 2  # type: ignore[return-value]
    by_positive = images @ positives.T / t_p
    by_negative = (images @ negatives.T / t_n).masked_fill(lacking, -torch.inf)
    labels = torch.arange(len(images), device=images.device)
    pictures = F.cross_entropy(torch.cat([by_positive, by_negative], dim=1), labels)
    captions = F.cross_entropy(torch.cat([by_positive.T, by_negative.T], dim=1), labels)
    return (pictures + captions) / 2
