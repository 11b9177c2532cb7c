"""Ledgers and their dataset -> proof.json, proof.parquet, proof.png: the one function behind poison/proof.py.

recipe.json     whose folder this is
parts/          findings of shards that were examined; gone at the end
proof.parquet   a line a pair: poison.proving.examination.FINDINGS
proof.png       how much is left of the triggers, and the four pairs that lost most, as a model sees them
proof.json      the summary (poison.proving.verdicts); written last: complete
"""

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pyarrow as pa
import tyro

from infra import config, log, storage
from infra.errors import Lost
from infra.spread import Backend, spread
from pipeline import dataset as datasets
from pipeline import shards
from pipeline.dataset import Dataset, Shard
from poison.ledger import Ledger, is_sealed
from poison.proving import examination, portrait, verdicts, views
from poison.proving.examination import Examine, Line
from poison.proving.views import Views

NAMED = 10  # mismatches that the error message names


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What to examine, and as which model sees it: one of 224 pixels without augmentation if nothing is said."""

    ledger: tuple[str, ...]
    """Folder of the ledger, or of all ledgers of a dataset that was poisoned several times."""
    dataset: str
    """Folder of the clean dataset that was poisoned."""
    poisoned: str
    """Folder of the poisoned dataset."""
    out: str
    """Folder of the proof. It names poisoned pairs: keep it from whoever trains or defends."""
    model: str | None = None
    """A model's name, for the size of the images it sees."""
    trained: Annotated[str | None, tyro.conf.arg(name="run")] = None
    """Folder of a run: its model's size, its augmentation, its epochs, and the very crops of its seed."""
    preset: str | None = None
    """A preset of pretraining, for model, augmentation and epochs."""
    augment: Literal["none", "flip_crop"] | None = None
    """Augmentation in training."""
    epochs: int | None = None
    """Epochs of training, to see whether the poisons are shown often enough to be learned."""
    crops: int = 4
    """With flip_crop: how many epochs' random crops of each image to look at, from the first."""
    backend: Backend = "ray"
    """Where shards are examined: on a Ray cluster, or in this process."""
    dry_run: bool = False
    """Print the resolved configuration and the plan; touch nothing."""

    def __post_init__(self) -> None:
        if not self.ledger:
            raise ValueError("--ledger needs at least one value")
        for name in ("epochs", "crops"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"--{name} is at least 1, not {value}")
        if self.trained is not None and (self.model is not None or self.preset is not None):
            raise ValueError("--run brings its own model and epochs: leave out --model and --preset")
        for name in ("dataset", "poisoned"):
            if storage.within(self.out, getattr(self, name)):
                raise ValueError(f"--out names poisoned pairs and must not lie in --{name}, {getattr(self, name)}")

    def run(self) -> str:
        """Examine, or finish what was interrupted. Returns the entry's last line; raises Lost for any mismatch."""
        clean, poisoned = Dataset.open(self.dataset), Dataset.open(self.poisoned)
        ledgers = chain([Ledger.open(url) for url in self.ledger], clean, poisoned)
        view = views.of(self.model, self.trained, self.preset, self.augment, self.epochs)
        crops = 1 if view.augment == "none" else min(self.crops, view.epochs or self.crops)
        recipe = {
            "crops": crops,
            "dataset": {"parent": clean.digest, "poisoned": poisoned.digest},
            "ledgers": [hashlib.sha256(storage.read(f"{ledger.url}/attack.json")).hexdigest() for ledger in ledgers],
            "views": config.to_json(view),
        }
        out, lines = storage.absolute(self.out), _lines(ledgers, clean, poisoned)
        if storage.names(out) or not self.dry_run:
            datasets.claim(out, {"proof": recipe})
        total = sum(map(len, lines.values()))
        if self.dry_run:
            print(storage.dump_json({"configuration": config.to_json(self), "proof": recipe}).decode(), end="")
            return f"would examine {total:,} pairs in {len(lines):,} shards; nothing was written"
        if not storage.exists(storage.join(out, "proof.json")):
            self._examine(clean, poisoned, ledgers, lines, view, crops, out)
            _conclude(clean, poisoned, ledgers, lines, view, recipe, out)
            return _said(out, "")
        return _said(out, "nothing to do: ")

    def _examine(
        self,
        clean: Dataset,
        poisoned: Dataset,
        ledgers: list[Ledger],
        lines: dict[int, list[Line]],
        view: Views,
        crops: int,
        out: str,
    ) -> None:
        by_id = {shard.id: shard for shard in poisoned.shards}
        if strange := sorted(lines.keys() - by_id.keys()):
            raise ValueError(f"a ledger names shard {strange[0]}, which {poisoned.url} does not have")
        done = set(storage.names(storage.join(out, "parts")))
        missing = [shard_id for shard_id in sorted(lines) if f"{shard_id:05d}.parquet" not in done]
        tasks: list[tuple[Shard, list[Line]]] = [(by_id[shard_id], lines[shard_id]) for shard_id in missing]
        spread(
            Examine(
                clean=clean,
                poisoned=poisoned,
                attacks=tuple(ledger.attack for ledger in ledgers),
                seeds=tuple(ledger.seed for ledger in ledgers),
                sealed=frozenset(number for number, ledger in enumerate(ledgers) if is_sealed(ledger.url)),
                views=view,
                epochs=crops,
                out=out,
            ),
            tasks,
            backend=self.backend,
            what="examining",
            unit="pairs",
            weight=int,
            total=sum(map(len, lines.values())),
            done=sum(len(lines[shard_id]) for shard_id in lines.keys() - set(missing)),
            describe=lambda task: f"shard {task[0].id}",
        )


def chain(ledgers: list[Ledger], clean: Dataset, poisoned: Dataset) -> list[Ledger]:
    """The ledgers in the order in which they lead from the clean dataset to the poisoned one. Raises ValueError."""
    if len(ledgers) == 1:
        ledgers[0].belongs_to(poisoned)
    found, at = [], clean.digest
    left = list(ledgers)
    while following := next((ledger for ledger in left if ledger.parent_digest == at), None):
        left.remove(following)
        found.append(following)
        at = following.dataset_digest
    if not found:
        raise ValueError(f"{clean.url} is not the dataset that {ledgers[0].url} was made from (digests differ)")
    if left:
        raise ValueError(f"the ledger {left[0].url} belongs to another dataset: no ledger given leads to its parent")
    found[-1].belongs_to(poisoned)
    return found


def _conclude(
    clean: Dataset,
    poisoned: Dataset,
    ledgers: list[Ledger],
    lines: dict[int, list[Line]],
    view: Views,
    recipe: dict[str, Any],
    out: str,
) -> None:
    parts = [shards.read_parquet(storage.read(examination.part(out, shard_id))) for shard_id in sorted(lines)]
    findings = pa.concat_tables(parts)
    storage.write(storage.join(out, "proof.parquet"), examination.parquet(findings))
    troubles = verdicts.troubles(findings)
    about = verdicts.summary(findings, ledgers, poisoned, view) | {
        "recipe": recipe,
        "mismatches": len(troubles),
        "named_mismatches": troubles[:1000],
    }
    storage.write(storage.join(out, "proof.png"), portrait.draw(findings, ledgers, clean, poisoned, view, about))
    storage.remove(storage.join(out, "parts"))
    storage.write_json(storage.join(out, "proof.json"), about)


def _said(out: str, prefix: str) -> str:
    """The last line of a complete proof, its warnings said before it."""
    about = storage.read_json(storage.join(out, "proof.json"))
    for warning in about["warnings"]:
        log.warn(warning)
    if number := about["mismatches"]:
        named = "\n  ".join(about["named_mismatches"][:NAMED])
        more = f"\n  and {number - NAMED:,} more" if number > NAMED else ""
        raise Lost(f"{number:,} pairs or shards are not what the ledger says ({out}):\n  {named}{more}")
    return f"{prefix}{about['headline']}: {out}"


def _lines(ledgers: list[Ledger], clean: Dataset, poisoned: Dataset) -> dict[int, list[Line]]:
    """Lines of the ledgers by shard, [] for a shard that differs from the clean dataset's all the same."""
    before = {shard.id: shard.content_sha256 for shard in clean.shards}
    found: dict[int, list[Line]] = defaultdict(list)
    found |= {shard.id: [] for shard in poisoned.shards if before.get(shard.id) != shard.content_sha256}
    for number, ledger in enumerate(ledgers):
        for line in ledger.rows.to_pylist():
            found[line["shard"]].append(line | {"ledger": number})
    return dict(found)
