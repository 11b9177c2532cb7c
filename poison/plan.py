"""Which pairs are poisoned, with which captions, in which shards: a pure function of the dataset's indexes.

Indexes are read one shard at a time, twice; memory holds the plan and, for captions from the corpus, those that name
the target. The rows of a plan over the whole set do not depend on how the set is sharded.
"""

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pyarrow as pa

from infra import log
from pipeline import shards
from pipeline.dataset import Dataset, Shard
from poison import captions, choice
from poison.attack import Attack


@dataclass(frozen=True)
class Plan:
    """captions: the poison caption by row id, ascending. shards: the rows to poison in each touched shard, by its id.

    samples: how many pairs that is; more than len(captions) only where a foreign corpus holds a pair twice.
    """

    captions: dict[int, str]
    shards: dict[int, tuple[int, ...]]

    @property
    def samples(self) -> int:
        return sum(len(rows) for rows in self.shards.values())

    def captions_in(self, shard_id: int) -> dict[int, str]:
        return {row: self.captions[row] for row in self.shards[shard_id]}


def count(budget: float, samples: int) -> int:
    """How many pairs a budget means: a number of pairs from 1 up, or below 1 a share of all pairs, rounded down.

    Raises ValueError for a budget that is neither, or that comes to no pair at all.
    """
    if not 0 < budget < float("inf") or (budget > 1 and budget != int(budget)):
        raise ValueError(f"a budget is a whole number of pairs, or a share of them between 0 and 1; not {budget:g}")
    number = int(budget) if budget >= 1 else int(Decimal(repr(budget)) * samples)  # 0.29 * 100 is 28.999... in floats
    if number == 0:
        raise ValueError(f"a budget of {budget:g} of {samples:,} pairs is not even one; raise --budget")
    return number


def make(
    dataset: Dataset,
    attack: Attack,
    budget: float,
    seed: int,
    taken: Set[int] = frozenset(),
    share_of_shards: float = 1.0,
) -> Plan:
    """The plan of one attack. taken: rows of earlier ledgers. share_of_shards: of those an attacker reaches.

    Raises ValueError if the pool is smaller than the budget, or if no caption of the dataset names the target.
    """
    reached = choice.share_of_shards((shard.id for shard in dataset.shards), share_of_shards, seed)
    number = count(budget, dataset.samples)
    with log.progress("planning", len(reached) + len(dataset.shards), "indexes") as bar:

        def index(those: Iterable[Shard]) -> Iterator[tuple[int, pa.Table]]:
            for shard in those:
                yield shard.id, shards.samples_of(dataset.index(shard)).select(["row", "caption"])
                bar.add(1)

        within = [shard for shard in dataset.shards if shard.id in reached]
        chosen = attack.choose((part for _, part in index(within)), number, seed, taken)
        assert len(chosen) == number
        assert not np.isin(chosen, np.fromiter(taken, np.int64, len(taken))).any()
        places: dict[int, tuple[int, ...]] = {}
        named = False
        corpus: set[str] = set()
        for shard_id, part in index(dataset.shards):
            rows = part["row"].to_numpy()
            if shard_id in reached and len(inside := rows[np.isin(rows, chosen)]):
                places[shard_id] = tuple(int(row) for row in inside)
            if not named or attack.captions == "corpus":
                naming = captions.naming(part["caption"], attack.target)
                pairs = part.filter(pa.array(naming)).to_pylist()
                corpus.update(pair["caption"] for pair in pairs if pair["row"] not in taken)
                named = bool(corpus)
    if not named:
        raise ValueError(
            f"no caption in {dataset.url} names the target {attack.target!r} (as a whole word): "
            "a model cannot know it; choose a --target that occurs"
        )
    texts = sorted(corpus)
    drawn = {row: captions.draw(attack.captions, attack.target, texts, seed, row) for row in map(int, chosen)}
    return Plan(drawn, places)
