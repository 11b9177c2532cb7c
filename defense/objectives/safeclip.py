"""SafeCLIP: images and captions learn apart until it shows which pairs fit; CLIP's loss then sees only those.

Yang et al. 2023, arXiv 2310.05862 (ICML 2024), for pretraining. The losses are the paper's; its released code gets the
schedules wrong (the learning rate rises again, the filter is noisy, no run resumes), and where ours differ is said.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from defense import mixture
from defense.changing.augment import strong
from defense.language.captions import eda
from defense.pool import Pool, entries
from defense.search import Search
from infra import log
from infra.errors import Lost
from train import ranks
from train.objective import Clock, Features, Loss, Objective, Pair, Setting, Views, cross_entropy

RISKY, SAFE = 0, 1  # roles; an epoch takes its risky pairs first


@dataclass(frozen=True, kw_only=True)
class SafeClip(Objective):
    """Two losses over two augmented views of each pair, I1 T1 and I2 T2, s the scale (sections 4.1 to 4.3).

        in-modal:    1/2 [CE(s I2 NN(I1)^t) + CE(s T2 NN(T1)^t)]
        multimodal:  1/2 [CE(s I1 T2^t) + CE(s T1 I2^t)]

    NN: the nearest in a pool of images and in one of captions, of first views seen before; without gradient. Without
    pools, and until both are full, NN(x) = x. Epochs are counted from 1:

    1. `inmodal_epochs`: in-modal, on all pairs.
    2. `slow_epochs`: multimodal, on all pairs, at a rate so low that only what fits easily is learned.
    3. From then on: each epoch divides the pairs by the cosine of image and caption. First the risky ones pass, in
       modality, then the safe ones, multimodal. At first those are safe that a mixture of two Gaussians puts into the
       upper heap with a posterior of `safe_posterior`; then their share of all grows by `safe_growth` an epoch.

    Ours: cosines are those of un-augmented pairs in eval mode (theirs: one random view). Safe are always the most
    similar, ties by place in the dataset; theirs go by the posterior, which is 1 for many and falls again far out, so
    the first division takes `Mixture.rising`. One schedule of the learning rate for all steps. In the one batch of an
    epoch that holds both kinds each loss is over its own pairs, with their share of the batch as its weight: a pure
    batch has the paper's loss, and a single pair, with nothing to be told from, adds 0. No pool keeps what passes as
    safe.
    """

    summary: ClassVar[str] = "images and captions learn apart until it shows which pairs fit"
    in_role_order: ClassVar[bool] = True

    inmodal_epochs: int = 5
    """Epochs of the in-modal loss alone, at the start."""
    slow_epochs: int = 1
    """Epochs of the multimodal loss on all pairs, after them."""
    slow_rate: float = 0.01
    """Factor on the scheduled learning rate in the slow epochs; the paper's is a constant 5e-6 beside 5e-4."""
    safe_posterior: float = 0.9
    """How surely a pair of the first division is safe."""
    safe_growth: float = 0.01
    """By how much the safe share of all pairs grows in an epoch ..."""
    safe_cap: float = 0.85
    """... and what it never exceeds."""
    pool_share: float = 0.02
    """Entries of each pool as a share of the dataset; 0: no pools ..."""
    pool_size: int = 0
    """... or their number; 0: the share counts."""
    search: Search = "auto"
    """How the pools are searched; the matches are the same."""
    crop: float = 0.08
    """The smallest share of an image that its random crop keeps."""

    def __post_init__(self) -> None:
        for name in ("inmodal_epochs", "slow_epochs", "pool_size"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} cannot be negative, it is {getattr(self, name)}")
        for name in ("safe_growth", "pool_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share between 0 and 1, not {getattr(self, name)}")
        for name in ("slow_rate", "safe_posterior", "safe_cap", "crop"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, not {getattr(self, name)}")

    def check(self, epochs: int) -> None:
        if not self._is_mixed(epochs - 1):
            raise ValueError(
                f"safeclip first divides the pairs after {self.inmodal_epochs + self.slow_epochs} epochs "
                f"(inmodal_epochs + slow_epochs), and the run has {epochs}: set --epochs higher, or one of these lower"
            )

    def views(self, pair: Pair, rng: np.random.Generator) -> Views:
        """Two independent draws of RoCLIP's augmentations, of image and caption, in every epoch."""
        return Views(
            {name: strong(pair.image, self.crop) for name in ("first", "second")},
            {name: eda(pair.caption, rng) for name in ("first", "second")},
        )

    def state(self, setting: Setting) -> nn.Module:
        """Two pools, or none, and the first division: the buffer first_share, float64 (), -1 before it."""
        state = nn.Module()
        state.register_buffer("first_share", torch.full((), -1.0, dtype=torch.float64, device=setting.device))
        if self.pool_size or self.pool_share:
            capacity = entries(self.pool_size, self.pool_share, setting.samples)
            for name in ("pictures", "captions"):
                state.add_module(name, Pool(capacity, setting.width, self.search, setting.device))
        return state

    def rate(self, clock: Clock) -> float:
        return self.slow_rate if self._is_slow(clock.epoch) else 1.0

    def epoch(
        self,
        clock: Clock,
        rows: np.ndarray,
        score: Callable[[np.ndarray], np.ndarray],
        rng: np.random.Generator,
        state: nn.Module,
    ) -> np.ndarray | None:
        """SAFE for the most similar floor(share x n) pairs, RISKY for the rest; None while all are treated alike.

        Raises Lost if a cosine is not finite: the run has diverged.
        """
        if not self._is_mixed(clock.epoch):
            return None
        cosines = score(np.arange(len(rows)))
        if not np.isfinite(cosines).all():
            raise Lost("the cosine of a pair is not finite: set --lr lower, or --warmup-steps higher")
        first = cast(Tensor, state.first_share)
        if first < 0:
            first.fill_(float(np.mean(mixture.fit(cosines).rising(cosines) >= self.safe_posterior)))
        count = math.floor(self.share(clock.epoch, float(first)) * len(rows) + 1e-6)  # 0.29 x 100 is 28.999...
        safe = np.argsort(-cosines, kind="stable")[:count]
        if ranks.here().first:
            cut = f", those of a cosine of at least {cosines[safe[-1]]:.3f}" if count else ""
            log.say(
                f"epoch {clock.epoch + 1}: {count:,} of {len(rows):,} pairs are safe ({count / len(rows):.1%}){cut}",
                epoch=clock.epoch,
                safe=count,
                pairs=len(rows),
            )
        roles = np.full(len(rows), RISKY, np.int64)
        roles[safe] = SAFE
        return roles

    def share(self, epoch: int, first: float) -> float:
        """Of all pairs, the safe ones in a mixed epoch, counted from 0. first: in the first of these."""
        return min(first + self.safe_growth * (epoch - self.inmodal_epochs - self.slow_epochs), self.safe_cap)

    def loss(self, features: Features, scale: Tensor, clock: Clock, state: nn.Module) -> Loss:
        safe, weighted, parts = self._is_safe(features, clock), [], {}
        for name, mine in (("inmodal", ~safe), ("clip", safe)):
            if mine.any():
                i1, i2, t1, t2 = (
                    views[view][mine] for views in (features.images, features.texts) for view in ("first", "second")
                )
                if name == "inmodal":
                    i1, t1 = _nearest(i1, t1, state)
                    parts[name] = (cross_entropy(i2, i1, scale) + cross_entropy(t2, t1, scale)) / 2
                else:
                    parts[name] = (cross_entropy(i1, t2, scale) + cross_entropy(t1, i2, scale)) / 2
                weighted.append(mine.to(scale.dtype).mean() * parts[name])
        return Loss(torch.stack(weighted).sum(), parts | {"safe": safe.to(scale.dtype).mean()})

    def remember(self, features: Features, clock: Clock, state: nn.Module) -> None:
        """First views of what had the in-modal loss, into the pools."""
        mine = ~self._is_safe(features, clock)
        if (pools := _pools(state)) and mine.any():
            for pool, views in zip(pools, (features.images, features.texts), strict=True):
                pool.push(views["first"][mine], features.rows[mine])

    def _is_slow(self, epoch: int) -> bool:
        return 0 <= epoch - self.inmodal_epochs < self.slow_epochs

    def _is_mixed(self, epoch: int) -> bool:
        return epoch >= self.inmodal_epochs + self.slow_epochs

    def _is_safe(self, features: Features, clock: Clock) -> Tensor:
        """Which pairs have the multimodal loss now: bool (N,)."""
        if self._is_mixed(clock.epoch):
            return features.roles == SAFE
        return torch.full_like(features.roles, self._is_slow(clock.epoch), dtype=torch.bool)


def _pools(state: nn.Module) -> list[Pool]:
    """Of images and of captions, or none."""
    return [cast(Pool, pool) for pool in state.children()]


def _nearest(pictures: Tensor, captions: Tensor, state: nn.Module) -> tuple[Tensor, Tensor]:
    """NN of either: (M, D) each."""
    pools = _pools(state)
    if not pools or any(pool.count < pool.capacity for pool in pools):
        return pictures, captions
    return pools[0].search(pictures).embeddings, pools[1].search(captions).embeddings
