"""Dataset -> poisoned dataset and its ledger: the one function behind poison/inject.py.

The poisoned dataset holds the rewritten shards and references all others where they are. What says which pairs were
poisoned goes to the ledger alone; the dataset's own recipe.json is a hash of the recipe.
"""

import hashlib
import os
import tempfile
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from infra import config, log, storage
from infra.spread import Backend, spread
from pipeline import dataset as datasets
from pipeline.dataset import Dataset, Shard
from pipeline.shards import SUCCESS
from poison import ledger as ledgers
from poison import plan as plans
from poison.attack import Attack
from poison.ledger import Ledger
from poison.rewrite import rewrite


@dataclass(frozen=True, kw_only=True)
class Injection:
    """What to poison, how much of it, and where to."""

    attack: Attack
    dataset: str
    """Folder of the dataset to poison, ours or a bare folder of WebDataset tars. It is not changed."""
    out: str
    """Folder of the poisoned dataset."""
    ledger: str
    """Folder of the ledger: what was done to which pair. Keep it from whoever trains or defends."""
    budget: float
    """How many pairs to poison (1500), or which share of all pairs (0.01)."""
    seed: int = 0
    """Chooses the pairs and their captions."""
    share_of_shards: float = 1.0
    """Share of the shards that the attacker reaches; the poisons all lie in those."""
    taken: tuple[str, ...] = ()
    """Ledgers of earlier attacks on this dataset; their pairs are left alone."""
    backend: Backend = "ray"
    """Where the shards are rewritten: on a Ray cluster, or in this process."""
    dry_run: bool = False
    """Print the resolved configuration and the plan; touch nothing."""

    def __post_init__(self) -> None:
        plans.count(self.budget, samples=10**18)  # whether it is a number of pairs or a share at all
        if not 0 < self.share_of_shards <= 1:
            raise ValueError(f"--share-of-shards is above 0 and at most 1, not {self.share_of_shards:g}")
        places = {f"--{name}": _place(getattr(self, name)) for name in ("dataset", "out", "ledger")}
        for (first, one), (second, other) in combinations(places.items(), 2):
            if f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/"):
                raise ValueError(
                    f"{first} and {second} must be separate folders, neither inside the other: {one} and {other}"
                )

    def run(self) -> str:
        """Poison, or finish what an interrupted run began. Returns the entry's last line."""
        parent = Dataset.open(self.dataset)
        out, ledger = storage.absolute(self.out), storage.absolute(self.ledger)
        earlier = [Ledger.open(url) for url in self.taken]
        taken = ledgers.taken(earlier, parent)
        if parent.contains_poison and not earlier:
            log.warn(f"{parent.url} contains poison already; give its ledger as --taken to leave those pairs alone")
        budget = plans.count(self.budget, parent.samples)
        recipe = {
            "attack": config.to_json(self.attack),
            "budget": budget,
            "parent": {"digest": parent.digest},
            "seed": self.seed,
            "share_of_shards": self.share_of_shards,
            "taken": sorted(earlier_one.dataset_digest for earlier_one in earlier),
        }
        mark = {"sha256": hashlib.sha256(storage.dump_json(recipe)).hexdigest()}
        ledgers.claim(ledger, recipe, dry_run=True)
        if storage.names(out):  # then this writes nothing, and says if the folder is another's
            datasets.claim(out, mark)
        if datasets.is_complete(out) and ledgers.is_complete(ledger) and not self.dry_run:
            return f"nothing to do: {out} is complete, and so is its ledger {ledger}"

        plan = plans.make(parent, self.attack, budget, self.seed, taken, self.share_of_shards)
        if self.dry_run:
            print(storage.dump_json({"configuration": config.to_json(self), "plan": _outline(plan)}).decode(), end="")
            return f"would poison {_summary(plan, parent)}; nothing was written"
        datasets.claim(out, mark)
        ledgers.claim(ledger, recipe)
        poisoned = self._rewrite(parent, plan, out, ledger)
        ledgers.seal(ledger, recipe, self.attack, parent, poisoned.digest)
        return f"poisoned {_summary(plan, parent)}: {out} (ledger: {ledger})"

    def _rewrite(self, parent: Dataset, plan: plans.Plan, out: str, ledger: str) -> Dataset:
        done = datasets.committed(out)
        missing = [shard for shard in parent.shards if shard.id in plan.shards and shard.id not in done]
        kept = plan.samples - sum(len(plan.shards[shard.id]) for shard in missing)
        spread(
            Work(parent, self.attack, self.seed, out, ledger),
            [(shard, plan.captions_in(shard.id)) for shard in missing],
            backend=self.backend,
            what="poisoning",
            unit="pairs",
            weight=int,
            total=plan.samples,
            done=kept,
            describe=lambda task: f"shard {task[0].id}",
        )
        rows = ledgers.gather(ledger, sorted(plan.shards))
        replaced = Counter(rows["action"].to_pylist())["replaced"]
        assert replaced == plan.samples, f"{replaced} pairs in the ledger, {plan.samples} in the plan"
        # The ledger's rows are safe before the dataset is complete: no poisoned dataset without its truth.
        if datasets.is_complete(out):
            return Dataset.open(out)
        bases = [out]
        untouched = tuple(
            datasets.reference(out, parent, shard, bases) for shard in parent.shards if shard.id not in plan.shards
        )
        return datasets.finalise(
            out,
            len(parent.shards),
            referenced=untouched,
            bases=tuple(bases),
            contains_poison=True,
            outcomes=parent.outcomes | {SUCCESS: parent.samples + rows.num_rows - replaced},
        )


@dataclass(frozen=True)
class Work:
    """Rewrite one shard and commit it. Idempotent: a second attempt writes the same bytes."""

    parent: Dataset
    attack: Attack
    seed: int
    out: str
    ledger: str

    def __call__(self, task: tuple[Shard, dict[int, str]]) -> int:
        """Returns the number of pairs poisoned."""
        shard, captions = task
        with tempfile.TemporaryDirectory() as scratch:
            path = self.parent.fetch(shard, Path(scratch))
            twin = Path(scratch) / "poisoned.tar"
            index = self.parent.index(shard)
            written, rows = rewrite(path, index, shard.id, captions, self.attack, self.seed, twin)
            # The truth first: were it second, a worker that dies between the two would leave poisons nobody knows of.
            ledgers.save_part(self.ledger, shard.id, rows)
            datasets.commit(self.out, shard.id, written)
        return Counter(rows["action"].to_pylist())["replaced"]


def _place(url: str) -> str:
    path = storage.local(url)
    return os.path.realpath(path) if path is not None else storage.absolute(url)


def _outline(plan: plans.Plan) -> dict[str, object]:
    return {"pairs": plan.samples, "pairs_by_shard": {str(key): len(rows) for key, rows in sorted(plan.shards.items())}}


def _summary(plan: plans.Plan, parent: Dataset) -> str:
    return (
        f"{plan.samples:,} of {parent.samples:,} pairs ({plan.samples / parent.samples:.3%}) "
        f"in {len(plan.shards):,} of {len(parent.shards):,} shards"
    )
