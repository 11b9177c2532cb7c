"""RoCLIP: in some epochs an image learns from the nearest caption of a pool, not from its own (Yang et al. 2023).

arXiv 2303.06854. Two methods have this name. The one of the last version and of the released code matches images
with captions; the one first described matches both ways, and finetunes too. Both can be had here, to pretrain and to
finetune.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

from torch import Tensor, nn

from defense.objectives.augmented import Augmented
from defense.pool import Matches, Pool, entries
from defense.search import Search
from train import ranks
from train.objective import EVERYTHING, Clock, Features, Loss, Setting, clip_loss


@dataclass(frozen=True, kw_only=True)
class RoClip(Augmented):
    """CLIP on augmented pairs; in every K-th epoch, whole epochs and counted from 1, the matched loss in its stead.

    Matched, as released (I and T the batch's embeddings, B the pool, s the logit scale's exponential):

        Z_i = the entry of B nearest to I_i;   loss = 1/2 [CE(s I Z^t) + CE(s Z I^t)];   then T goes into B

    Z has no gradient, so the text tower does not learn in such an epoch. Where the released code differs: there it
    drifts by momentum and weight decay, here it rests; theirs has random vectors in the pool until it is full, here
    nothing is made up; theirs drops the part of a batch that would go past the pool's end, searches in fp16, does not
    save the pool, and draws the captions' augmentation once for the whole run.
    """

    summary: ClassVar[str] = "in some epochs an image learns from the nearest caption of a pool, not from its own"
    match_every: int = 2
    """K: the matched epochs are those whose number, from 1, it divides; 1 is all, so that with captions the text tower
    never learns. CLIP without them is the objective `augmented`."""
    matching: Literal["captions", "both"] = "captions"
    """captions: as released. both: as first described; a pair's image learns from the pool's caption nearest to its
    caption, its caption from the pool's image nearest to its image, and both towers learn."""
    pool_share: float = 0.02
    """Entries of the pool as a share of the dataset ..."""
    pool_size: int = 0
    """... or their number; 0: the share counts."""
    pool_scope: Literal["global", "rank"] = "global"
    """global: one pool of what all ranks saw. rank: each rank's pairs are matched among its own, so the result depends
    on how many there are."""
    pool_fill: Literal["ahead", "wait", "partial"] = "ahead"
    """ahead: the steps before a matched epoch fill it, so that it starts full and fresh. wait: matched steps only once
    it is full. partial: matched with what there is. A step of a matched epoch with nothing to match learns from its
    own captions, whose tower rests as in the others."""
    pool_update: Literal["matched", "always"] = "matched"
    """When what was seen goes in, beside the filling ahead: in matched epochs, or in all."""
    search: Search = "auto"
    """How the pool is searched; the matches are the same."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.match_every < 1:
            raise ValueError(f"match_every is at least 1, not {self.match_every}; for no matched epoch use augmented")
        if self.pool_size < 0:
            raise ValueError(f"pool_size cannot be negative, it is {self.pool_size}")
        if not 0 < self.pool_share <= 1:
            raise ValueError(f"pool_share is a share of the dataset, above 0 and at most 1, not {self.pool_share}")

    def check(self, epochs: int) -> None:
        if epochs < self.match_every:
            raise ValueError(
                f"roclip first matches in epoch {self.match_every} (match_every), and the run has {epochs}: "
                "set --epochs higher, or --match-every lower"
            )

    def state(self, setting: Setting) -> nn.Module:
        """The pools, by what they hold: one each, or one for every rank."""
        parts = ranks.here().ranks if self.pool_scope == "rank" else 1
        capacity = entries(self.pool_size, self.pool_share, setting.samples)
        kinds = ("captions",) if self.matching == "captions" else ("captions", "pictures")
        pools = {
            kind: [Pool(capacity, setting.width, self.search, setting.device) for _ in range(parts)] for kind in kinds
        }
        return nn.ModuleDict({kind: nn.ModuleList(each) for kind, each in pools.items()})

    def trainable(self, clock: Clock) -> frozenset[str]:
        rests = self._is_matched(clock.epoch) and self.matching == "captions"
        return EVERYTHING - {"text"} if rests else EVERYTHING

    def loss(self, features: Features, scale: Tensor, clock: Clock, state: nn.Module) -> Loss:
        images, texts = features.images["image"], features.texts["text"]
        if not self._is_matched(clock.epoch) or not self._can_match(state):
            return Loss(clip_loss(images, texts, scale))
        if self.matching == "captions":
            found = _search(_pools(state, "captions"), images)
            total = clip_loss(images, found.embeddings, scale)
            return Loss(total, {"matched_similarity": found.similarities.mean()}, {"captions": found.rows})
        captions, pictures = _search(_pools(state, "captions"), texts), _search(_pools(state, "pictures"), images)
        total = (clip_loss(images, captions.embeddings, scale) + clip_loss(pictures.embeddings, texts, scale)) / 2
        similarity = (captions.similarities.mean() + pictures.similarities.mean()) / 2
        return Loss(total, {"matched_similarity": similarity}, {"captions": captions.rows, "pictures": pictures.rows})

    def remember(self, features: Features, clock: Clock, state: nn.Module) -> None:
        if self._goes_in(clock, len(features.rows), state):
            for kind, embeddings in (("captions", features.texts["text"]), ("pictures", features.images["image"])):
                if kind in cast(nn.ModuleDict, state):
                    pools = _pools(state, kind)
                    parts = zip(pools, embeddings.chunk(len(pools)), features.rows.chunk(len(pools)), strict=True)
                    for pool, part, rows in parts:
                        pool.push(part, rows)

    def _is_matched(self, epoch: int) -> bool:
        return (epoch + 1) % self.match_every == 0

    def _can_match(self, state: nn.Module) -> bool:
        pools = _pools(state, "captions")
        return all(pool.count == pool.capacity if self.pool_fill == "wait" else pool.count > 0 for pool in pools)

    def _goes_in(self, clock: Clock, batch: int, state: nn.Module) -> bool:
        if self._is_matched(clock.epoch) or self.pool_update == "always":
            return True
        pools = _pools(state, "captions")
        filling = math.ceil(pools[0].capacity * len(pools) / batch)
        soon = clock.step_of_epoch >= clock.steps_per_epoch - filling
        return self.pool_fill == "ahead" and self._is_matched(clock.epoch + 1) and soon


def _pools(state: nn.Module, kind: str) -> list[Pool]:
    pools = cast(nn.ModuleDict, state)[kind]
    return [cast(Pool, pool) for pool in cast(nn.ModuleList, pools)]


def _search(pools: list[Pool], queries: Tensor) -> Matches:
    """Each pool's part of the batch, ranks in order, and the answers as one."""
    return Matches.joined([pool.search(part) for pool, part in zip(pools, queries.chunk(len(pools)), strict=True)])
