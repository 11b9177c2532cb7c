"""Which pairs are poisoned, with which captions, in which shards: a pure function of the dataset's indexes.

Every index is read once, then those again whose rows may be among the chosen ones. Memory holds the plan, the lowest
and the highest row of each shard and a bounded pool of captions, however large the dataset. The rows of a plan over the
whole set do not depend on how it is sharded.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

import numpy as np
import pyarrow as pa

from infra import log
from pipeline.dataset import Dataset, Shard
from poison.attack import Attack
from poison.choosing import captions, choice, indexes
from poison.choosing.indexes import Read


@dataclass(frozen=True)
class Plan:
    """captions: the poison caption by row id, ascending. shards: the rows to poison in each touched shard, by its id.

    added: the captions of the pairs that an attack which `adds` puts in; it changes none.
    samples: how many pairs are changed, which is the budget; more than len(captions) where a foreign corpus holds a
    pair several times.
    """

    captions: dict[int, str]
    shards: dict[int, tuple[int, ...]]
    added: tuple[str, ...] = ()

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
    read: Read | None = None,
) -> Plan:
    """The plan of one attack. taken: rows of earlier ledgers. share_of_shards: of those an attacker reaches.

    read: what gives columns of the pairs of a shard, if not choosing.indexes. An attack that `adds` changes no shard.
    Raises ValueError if the pool is smaller than the budget, or if no caption of the dataset names the target; Damaged.
    """
    number = count(budget, dataset.samples)
    reached = choice.share_of_shards((shard.id for shard in dataset.shards), share_of_shards, seed)
    within = [shard for shard in dataset.shards if shard.id in reached and not attack.adds]
    beyond = [shard for shard in dataset.shards if shard.id not in reached or attack.adds]
    read = read or partial(indexes.pairs, dataset)
    pool = captions.Pool(attack.caption_pool or max(captions.MAX_POOL, number if attack.adds else 0), seed)
    spans: dict[int, tuple[int, int]] = {}  # lowest and highest row of the shards within reach

    def seen(those: Iterable[Shard]) -> Iterator[pa.Table]:
        for shard, part in indexes.ahead(read, those, ["row", "key", "caption"]):
            bar.add(1)
            rows = part["row"].to_numpy()
            if len(rows) and not attack.adds:
                spans[shard.id] = int(rows.min()), int(rows.max())
            if attack.captions == "corpus" or not pool:
                named = part.filter(pa.array(captions.naming(part["caption"], attack.target)))
                found = zip(named["row"].to_pylist(), named["caption"].to_pylist(), strict=True)
                pool.add(caption for row, caption in found if row not in taken)
            yield part

    with log.progress("planning", len(dataset.shards), "indexes") as bar:
        chosen = np.empty(0, np.int64)
        if not attack.adds:
            parts = seen(within)
            chosen = attack.choose(parts, number, seed, taken)
            deque(parts, maxlen=0)  # an attack may know its rows before the end, and captions are drawn from all
            assert not np.isin(chosen, np.fromiter(taken, np.int64, len(taken))).any()
        for _ in seen(shard for shard in beyond if attack.captions == "corpus" or not pool):
            pass
    if not pool:
        raise ValueError(
            f"no caption in {dataset.url} names the target {attack.target!r} (as a whole word): "
            "a model cannot know it; choose a --target that occurs"
        )
    texts = captions.choices(attack.captions, attack.target, attack.caption, pool.texts())
    if attack.adds:
        return Plan({}, {}, captions.several(texts, number, seed))
    drawn = {row: captions.draw(texts, seed, row) for row in map(int, chosen)}
    plan = Plan(drawn, _places(read, within, spans, chosen))
    assert plan.samples == number, f"{plan.samples} pairs are planned for a budget of {number}"
    return plan


def _places(
    read: Read, within: Iterable[Shard], spans: dict[int, tuple[int, int]], chosen: np.ndarray
) -> dict[int, tuple[int, ...]]:
    """The chosen rows of each shard that holds any, by its id, in the shard's order. chosen: sorted.

    Ours hold one range of rows each, so that few are read in vain. Those of a foreign shard are hashes: it is read.
    """

    def may_hold(shard: Shard) -> bool:
        if shard.id not in spans:
            return False
        low, high = spans[shard.id]
        return bool(np.searchsorted(chosen, low) < np.searchsorted(chosen, high, "right"))

    places: dict[int, tuple[int, ...]] = {}
    holding = [shard for shard in within if may_hold(shard)]
    with log.progress("locating pairs", len(holding), "indexes") as bar:
        for shard, part in indexes.ahead(read, holding, ["row"]):
            rows = part["row"].to_numpy()
            if len(inside := rows[np.isin(rows, chosen)]):
                places[shard.id] = tuple(inside.tolist())
            bar.add(1)
    return places
