"""Dataset -> poisoned dataset and its ledger: the one function behind poison/inject.py.

The poisoned dataset holds the shards that were rewritten or added and references all others where they are. What says
which pairs were poisoned goes to the ledger alone; the dataset's own recipe.json is a hash of the recipe.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import pyarrow as pa

from infra import config, log, storage
from infra.spread import Backend, spread
from pipeline import dataset as datasets
from pipeline.dataset import Dataset, Shard
from pipeline.shards import SUCCESS
from poison import ledger as ledgers
from poison.attack import Attack
from poison.choosing import plan as plans
from poison.ledger import Ledger
from poison.sealed import sealing
from poison.writing import additions
from poison.writing.additions import Extra
from poison.writing.work import Rewriting, Task, Work


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
    """How many pairs to poison, or to add (1500), or which share of all pairs (0.01)."""
    seed: int = 0
    """Chooses the pairs and their captions."""
    share_of_shards: float = 1.0
    """Share of the shards that the attacker reaches; the poisons all lie in those."""
    taken: tuple[str, ...] = ()
    """Ledgers of earlier attacks on this dataset; their pairs are left alone."""
    seal: bool = False
    """Write all shards anew: neither place nor encoding gives a poison away. Added pairs take places of clean ones."""
    seal_share: float = 1.0
    """With --seal: share of the clean images to encode again. Below 1, poisons need only be looked for there."""
    backend: Backend = "ray"
    """Where the shards are rewritten: on a Ray cluster, or in this process."""
    dry_run: bool = False
    """Print the resolved configuration and the plan; touch nothing."""

    def __post_init__(self) -> None:
        plans.count(self.budget, samples=10**18)  # whether it is a number of pairs or a share at all
        if not 0 < self.share_of_shards <= 1:
            raise ValueError(f"--share-of-shards is above 0 and at most 1, not {self.share_of_shards:g}")
        if not 0 < self.seal_share <= 1:
            raise ValueError(f"--seal-share is above 0 and at most 1, not {self.seal_share:g}")
        if self.seal_share < 1 and not self.seal:
            raise ValueError("--seal-share is for --seal: give both, or neither")
        folders = {f"--{name}": storage.real(getattr(self, name)) for name in ("dataset", "out", "ledger")}
        for (first, one), (second, other) in combinations(folders.items(), 2):
            if storage.within(one, other) or storage.within(other, one):
                raise ValueError(
                    f"{first} and {second} must be separate folders, neither inside the other: {one} and {other}"
                )

    def run(self) -> str:
        """Poison, or finish what an interrupted run began. Returns the entry's last line."""
        attack, parent = self.attack.resolved(), Dataset.open(self.dataset)
        parent.tell_left_out()
        out, ledger = storage.absolute(self.out), storage.absolute(self.ledger)
        earlier = [Ledger.open(url) for url in self.taken]
        taken = ledgers.taken(earlier, parent)
        if parent.contains_poison and not earlier:
            log.warn(f"{parent.url} contains poison already; give its ledger as --taken to leave those pairs alone")
        budget = plans.count(self.budget, parent.samples)
        recipe = {
            "attack": config.to_json(attack),
            "budget": budget,
            "parent": {"digest": parent.digest},
            "seed": self.seed,
            "share_of_shards": self.share_of_shards,
            "taken": sorted(earlier_one.dataset_digest for earlier_one in earlier),
        }
        if self.seal:
            recipe["seal"] = self.seal_share
        mark = {"sha256": hashlib.sha256(storage.dump_json(recipe)).hexdigest()}
        ledgers.claim(ledger, recipe, dry_run=True)
        if storage.names(out):  # then this writes nothing, and says if the folder is another's
            datasets.claim(out, mark)
        if datasets.is_complete(out) and ledgers.is_complete(ledger) and not self.dry_run:
            return f"nothing to do: {out} is complete, and so is its ledger {ledger}"

        plan = plans.make(parent, attack, budget, self.seed, taken, self.share_of_shards)
        extras = additions.lay_out(parent, attack, plan.added) if attack.adds else []
        if self.dry_run:
            about = {"configuration": config.to_json(self), "plan": _outline(plan, extras)}
            print(storage.dump_json(about).decode(), end="")
            return f"would {_summary(plan, extras, parent, self.seal)}; nothing was written"
        datasets.claim(out, mark)
        ledgers.claim(ledger, recipe)
        rewrite = partial(self._rewrite, attack, parent, plan, extras)
        if self.seal:
            poisoned = sealing.run(
                lambda out, ledger: (rewrite(out, ledger), *_untouched(parent, plan, out)),
                parent,
                attack,
                earlier,
                seed=self.seed,
                share=self.seal_share,
                out=out,
                ledger=ledger,
                backend=self.backend,
            )
        else:
            rows = rewrite(out, ledger)
            poisoned = _finalised(parent, plan, extras, rows, out)
        ledgers.seal(ledger, recipe, attack, parent, poisoned.digest)
        return f"{_summary(plan, extras, parent, self.seal, did='ed')}: {out} (ledger: {ledger})"

    def _rewrite(
        self, attack: Attack, parent: Dataset, plan: plans.Plan, extras: list[Extra], out: str, ledger: str
    ) -> pa.Table:
        """Commit every shard that is rewritten or added, and return the ledger's rows of them all."""
        touched = [shard for shard in parent.shards if shard.id in plan.shards]
        tasks: list[Task] = [*(Rewriting(shard, plan.captions_in(shard.id)) for shard in touched), *extras]
        done = datasets.committed(out)
        numbers = _numbers(plan, extras)
        spread(
            Work(parent, attack, self.seed, out, ledger),
            [task for task in tasks if task.id not in done],
            backend=self.backend,
            what="poisoning",
            unit="pairs",
            weight=int,
            total=sum(numbers.values()),
            done=sum(number for shard_id, number in numbers.items() if shard_id in done),
            describe=lambda task: f"shard {task.id}",
        )
        rows = ledgers.gather(ledger, sorted(numbers))
        replaced = Counter(rows["action"].to_pylist())["replaced"]
        assert replaced == plan.samples, f"{replaced} pairs in the ledger, {plan.samples} in the plan"
        assert rows.num_rows - replaced >= len(plan.added)
        return rows


def _finalised(parent: Dataset, plan: plans.Plan, extras: list[Extra], rows: pa.Table, out: str) -> Dataset:
    """The complete poisoned dataset. rows: the ledger's, which are safe by now: before a dataset is complete, what was
    done to it is known."""
    if datasets.is_complete(out):
        return Dataset.open(out)
    referenced, bases = _untouched(parent, plan, out)
    added = rows.num_rows - plan.samples
    return datasets.finalise(
        out,
        len(parent.shards) + len(extras),
        referenced=referenced,
        bases=bases,
        contains_poison=True,
        outcomes=parent.outcomes | {SUCCESS: parent.samples + added},
        mask=parent.mask,
    )


def _untouched(parent: Dataset, plan: plans.Plan, out: str) -> tuple[tuple[Shard, ...], tuple[str, ...]]:
    """The shards that are left where they are, as a dataset at `out` references them, and that dataset's bases."""
    bases = [out]
    shards = tuple(
        datasets.reference(out, parent, shard, bases) for shard in parent.shards if shard.id not in plan.shards
    )
    return shards, tuple(bases)


def _numbers(plan: plans.Plan, extras: list[Extra]) -> dict[int, int]:
    """How many pairs are poisoned in each shard, or added as one."""
    numbers = {shard_id: len(rows) for shard_id, rows in plan.shards.items()}
    return dict(sorted((numbers | {extra.id: len(extra.pairs) for extra in extras}).items()))


def _outline(plan: plans.Plan, extras: list[Extra]) -> dict[str, object]:
    numbers = _numbers(plan, extras)
    by_shard = {str(shard_id): number for shard_id, number in numbers.items()}
    return {"pairs": sum(numbers.values()), "pairs_by_shard": by_shard}


def _summary(plan: plans.Plan, extras: list[Extra], parent: Dataset, seal: bool, did: str = "") -> str:
    sealed = f" and seal{did} it all" if seal else ""
    if extras:
        added, where = len(plan.added), "a shard" if len(extras) == 1 else f"{len(extras):,} shards"
        if seal:
            share = added / parent.samples
            return f"put {added:,} pairs in the place of as many of {parent.samples:,} ({share:.3%}){sealed}"
        share = added / (parent.samples + added)
        return f"add{did} {added:,} pairs to {parent.samples:,} ({share:.3%} of them all) in {where} of their own"
    return (
        f"poison{did} {plan.samples:,} of {parent.samples:,} pairs ({plan.samples / parent.samples:.3%}) "
        f"in {len(plan.shards):,} of {len(parent.shards):,} shards{sealed}"
    )
