"""What one worker does: rewrite a shard, or write one that is added; save its ledger rows, then commit it."""

import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline import dataset as datasets
from pipeline import foreign, images
from pipeline.dataset import Dataset, Shard
from poison import ledger
from poison.attack import Attack
from poison.writing import additions
from poison.writing.additions import Extra
from poison.writing.rewrite import rewrite


@dataclass(frozen=True)
class Rewriting:
    """A shard of the parent. captions: the poison caption by row id, of the rows to poison in it."""

    shard: Shard
    captions: dict[int, str]

    @property
    def id(self) -> int:
        return self.shard.id


Task = Rewriting | Extra


@dataclass(frozen=True)
class Work:
    """Idempotent: a second attempt writes the same bytes."""

    parent: Dataset
    attack: Attack
    seed: int
    out: str
    ledger: str

    def __call__(self, task: Task) -> int:
        """Returns the number of pairs poisoned or added."""
        with tempfile.TemporaryDirectory() as scratch:
            twin = Path(scratch) / "poisoned.tar"
            if isinstance(task, Extra):
                written, rows = additions.write(task, self.attack, twin)
            else:
                # Pairs that the mask leaves out stay in the twin's tar and index; it inherits the mask.
                path, index = self.parent.fetch(task.shard, Path(scratch)), self.parent.unmasked_index(task.shard)
                try:
                    written, rows = rewrite(path, index, task.id, task.captions, self.attack, self.seed, twin)
                except images.Unreadable as error:
                    raise ValueError(f"{error}; {foreign.way_past(self.parent.url)}") from error
                written = replace(written, samples=written.samples - self.parent.left_out_of(task.shard).num_rows)
            # The ledger's rows first: were they second, a worker killed between the two would leave a committed shard
            # whose poisoned pairs no ledger names.
            ledger.save_part(self.ledger, task.id, rows)
            datasets.commit(self.out, task.id, written)
        return len(task.pairs) if isinstance(task, Extra) else Counter(rows["action"].to_pylist())["replaced"]
