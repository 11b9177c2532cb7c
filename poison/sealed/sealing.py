"""Poisoned dataset -> sealed dataset: neither a shard's place nor the form of a pair says which pairs are poisoned.

Every shard is written anew by our own writer, whatever form it had, and references nobody. Clean images are decoded
and encoded as poisoned ones were, so that both went through the same two encodings; KEY.json and index keep of a clean
pair what they keep of a poisoned one. What an image or a caption *shows* is not hidden: a trigger, an image that is
there a hundred times, or one of a size that no other has, can still be found by looking at images. And whoever holds
the clean dataset can compare.

An added pair replaces a clean one (seats.py), so its row id, key, url, file type and place in the shard are those of a
natural pair. Behind the others, with row ids and urls of its own, it could be found by these alone.

Until the end the unsealed shards lie in the folder's own unsealed/, and what says which pairs are poisoned in the
ledger's. Both are there for a killed command to go on from. The dataset's goes before dataset.json is written: without
that file no reader takes a folder for whole, and with it nothing tells a poison any more.

With a share below 1 only that share of the clean images is encoded again. It costs less, and tells whoever looks at
encodings (quantisation tables, hashes that are those of the stored bytes) that the poisons are among these and no
others: at 0.01 with 1% poisons, every second one of them is a poison.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from infra import storage
from infra.spread import Backend, spread
from pipeline import dataset as datasets
from pipeline import shards
from pipeline.dataset import Dataset, Shard
from pipeline.shards import Sample
from poison import ledger as ledgers
from poison.attack import Attack, Backdoor
from poison.ledger import Ledger
from poison.sealed import seats
from poison.sealed.levelling import Form, Levelled
from poison.writing import splice

UNSEALED = "unsealed"  # in the dataset's folder: shards without a manifest; in the ledger's: their rows


def run(
    write: Callable[[str, str], tuple[pa.Table, tuple[Shard, ...], tuple[str, ...]]],
    parent: Dataset,
    attack: Attack,
    earlier: Sequence[Ledger],
    *,
    seed: int,
    share: float,
    out: str,
    ledger: str,
    backend: Backend,
) -> Dataset:
    """Poison into a folder inside `out`, seal into `out` itself, and remove the unsealed shards.

    write(out, ledger): commits the poisoned shards, those that are not yet, and gathers their rows. Returns these rows
    (poison.ledger.ROWS), the shards that it left alone, and the bases of them all.

    Once the sealed dataset is complete, its ledger's rows are in ledger.parquet, and nothing is left to do but
    poison.ledger.seal.
    """
    unsealed, unsealed_rows = storage.join(out, UNSEALED), storage.join(ledger, UNSEALED)
    if not datasets.is_complete(out):
        if not _whole(parent, out, ledger):
            rows, untouched, bases = write(unsealed, unsealed_rows)
            poisoned = _listed(unsealed, parent, untouched, bases)
            alike = encoded_alike(earlier, parent, attack)
            form = Form(isinstance(attack, Backdoor), quality(attack), seed, share, alike)
            taken = frozenset().union(*(one.row_ids for one in earlier))
            seal(poisoned, rows, parent, form, taken, out=out, ledger=ledger, backend=backend)
        # From here on nothing needs the unsealed shards: a kill between these two lines finds everything whole.
        storage.remove(unsealed)
        datasets.finalise(out, len(parent.shards), contains_poison=True)
    storage.remove(unsealed_rows)
    return Dataset.open(out)


def _listed(url: str, parent: Dataset, untouched: Sequence[Shard], bases: Sequence[str]) -> Dataset:
    """The unsealed dataset as a value alone: a folder without a manifest is whole to nobody else."""
    known = Shard.__dataclass_fields__
    records = datasets.committed(url).values()
    own = [Shard(**{name: value for name, value in record.items() if name in known}) for record in records]
    listed = tuple(sorted([*own, *untouched], key=lambda shard: shard.id))
    samples = sum(shard.samples for shard in listed)
    return replace(parent, url=url, digest="", samples=samples, bases=tuple(bases), shards=listed, contains_poison=True)


def _whole(parent: Dataset, out: str, ledger: str) -> bool:
    """Whether an earlier attempt sealed every shard and gathered the ledger's rows, which it does last."""
    sealed = {shard.id for shard in parent.shards} <= datasets.committed(out).keys()
    return sealed and ledgers.is_gathered(ledger)


def seal(
    poisoned: Dataset,
    rows: pa.Table,
    parent: Dataset,
    form: Form,
    taken: frozenset[int] = frozenset(),
    *,
    out: str,
    ledger: str,
    backend: Backend,
) -> None:
    """Seal every shard of a poisoned dataset into the folder `out`, and gather its rows in the folder `ledger`.

    rows: of the unsealed ledger (poison.ledger.ROWS); sealed, an added pair has the row, key and shard of its
    seat, and an image that is encoded here another hash. parent: what was poisoned; the sealed dataset has its shards
    and as many pairs. taken: rows of earlier attacks, whose pairs are not replaced. Committed shards are not written
    again.

    Raises ValueError if there are fewer clean pairs than added ones, infra.errors.Lost.
    """
    within = {shard.id for shard in parent.shards}
    placed = seats.placed(poisoned, rows, within, form.seed, taken)
    leaving = seats.leaving(rows)
    done = datasets.committed(out)
    spread(
        Work(poisoned, form, out, ledger),
        [
            (shard, placed.get(shard.id, seats.PLACED.empty_table()), leaving.get(shard.id, frozenset()))
            for shard in poisoned.shards
            if shard.id in within and shard.id not in done
        ],
        backend=backend,
        what="sealing",
        unit="pairs",
        weight=int,
        total=parent.samples,
        done=sum(record["samples"] for record in done.values()),
        describe=lambda task: f"shard {task[0].id}",
    )
    gathered = ledgers.gather(ledger, sorted(placed))
    assert gathered.num_rows == rows.num_rows


def quality(attack: Attack) -> int:
    """JPEG quality of everything that is sealed with this attack."""
    return int(getattr(attack, "quality", Backdoor.quality))


def encoded_alike(earlier: Sequence[Ledger], parent: Dataset, attack: Attack) -> frozenset[int]:
    """Rows of earlier attacks whose images have the encoding already that everything clean gets now.

    They are those poisoned since the parent's line was last sealed, at the same quality. What was sealed has as many
    encodings as clean images, and gets another one with them.
    """
    alike = frozenset[int]()
    made_by, digest = {ledger.dataset_digest: ledger for ledger in earlier}, parent.digest
    while (ledger := made_by.get(digest)) is not None:
        if ledgers.is_sealed(ledger.url):
            break
        if isinstance(ledger.attack, Backdoor) and ledger.attack.quality == quality(attack):
            alike |= ledger.row_ids
        digest = ledger.parent_digest
    return alike


@dataclass(frozen=True)
class Work:
    """Seal one shard and commit it. Idempotent: a second attempt writes the same bytes."""

    poisoned: Dataset
    form: Form
    out: str
    ledger: str

    def __call__(self, task: tuple[Shard, pa.Table, frozenset[str]]) -> int:
        """task: a shard, the ledger's pairs that belong into it (seats.PLACED), keys of pairs that leave it.

        Returns its samples.
        """
        shard, placed, leaving = task
        with tempfile.TemporaryDirectory() as scratch:
            arriving = self._arriving(placed, Path(scratch))
            path, index = self.poisoned.fetch(shard, Path(scratch)), self.poisoned.index(shard)
            ours = frozenset(placed["key"].to_pylist())
            level = Levelled(self.form, index, ours, leaving, arriving, splice.beside(path, index))
            with open(path, "rb") as tar:
                written = shards.write_shard(Path(scratch) / "sealed.tar", level.samples(tar), level.failures)
            index = level.levelled(written.index)
            if placed.num_rows:  # the ledger's rows before the commit, as in poison.writing.work
                ledgers.save_part(self.ledger, shard.id, _lines(placed, index))
            datasets.commit(self.out, shard.id, replace(written, index=index))
        return written.samples

    def _arriving(self, placed: pa.Table, scratch: Path) -> dict[str, Sample]:
        """The added pairs, by the key of the seat that they take. Shards are fetched one at a time."""
        found: dict[str, Sample] = {}
        by_id = {shard.id: shard for shard in self.poisoned.shards}
        added = [line for line in placed.to_pylist() if line["action"] == "added"]
        for source in sorted({line["from_shard"] for line in added}):
            seat = {line["from_key"]: line["key"] for line in added if line["from_shard"] == source}
            path = self.poisoned.fetch(by_id[source], scratch)
            with open(path, "rb") as tar:
                for row in shards.samples_of(self.poisoned.index(by_id[source])).to_pylist():
                    if row["key"] in seat:
                        found[seat[row["key"]]] = shards.read_sample(tar, row)
            if path.parent == scratch:
                path.unlink()
        return found


def _lines(placed: pa.Table, index: pa.Table) -> pa.Table:
    """The ledger's rows of a sealed shard, in its order, with the hashes of the images as they are stored now."""
    there = {row["key"]: row["image_sha256"] for row in shards.samples_of(index).to_pylist()}
    order = {key: place for place, key in enumerate(there)}
    lines = [line | {"image_sha256": there[line["key"]]} for line in placed.to_pylist()]
    return pa.Table.from_pylist(sorted(lines, key=lambda line: order[line["key"]]), schema=ledgers.ROWS)
