"""One shard of a poisoned dataset, examined: each pair that a ledger names, held against the ledger and the original.

A finding is about files (`trouble`: one sentence, or null) and about pixels (fidelity and crops, where the attack is a
backdoor and nothing is wrong with the files). One pair is in memory at a time.
"""

import hashlib
import io
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra import storage
from infra.seeding import rng
from pipeline import images, shards
from pipeline.dataset import Dataset, Shard
from poison.attack import Attack, Backdoor
from poison.geometry import Box
from poison.proving import fidelity
from poison.proving.views import Views

FINDINGS = pa.schema(
    [
        ("ledger", pa.int32()),  # its place in proof.json
        ("row", pa.int64()),
        ("key", pa.string()),
        ("shard", pa.int32()),
        ("action", pa.string()),
        ("trouble", pa.string()),  # null: everything is as the ledger says
        ("same_picture", pa.bool_()),  # byte for byte the original's; null for an added pair
        ("stored_psnr", pa.float64()),  # dB between the original and the stored image, both as stored
        ("eval_fidelity", pa.float64()),  # poison.proving.fidelity; null where the attack stamps nothing
        ("eval_gain", pa.float64()),
        ("eval_psnr", pa.float64()),
        ("eval_share", pa.float64()),  # of the trigger, left by the evaluation's crop
        ("train_fidelity", pa.float64()),  # the lowest over the epochs looked at; null where a crop left nothing
        ("train_share", pa.float64()),  # mean over them
        ("train_share_min", pa.float64()),
    ]
)
Line = dict[str, Any]  # of a ledger, with the number of that ledger


@dataclass(frozen=True)
class Examine:
    """The work of one task: examine the pairs of a shard, save FINDINGS as a part. Idempotent.

    attacks, seeds: by the ledger's number. sealed: the numbers of those whose dataset was sealed (sealed.sealing): that
    encodes the images of earlier ledgers, and of no ledger, once more. epochs: how many epochs' training crops are
    looked at.
    """

    clean: Dataset
    poisoned: Dataset
    attacks: tuple[Attack, ...]
    seeds: tuple[int, ...]
    sealed: frozenset[int]
    views: Views
    epochs: int
    out: str

    def __call__(self, task: tuple[Shard, list[Line]]) -> int:
        """Returns the number of pairs examined."""
        shard, lines = task
        original = next((one for one in self.clean.shards if one.id == shard.id), None)
        rows = _by_key(self.poisoned, shard)
        originals = _by_key(self.clean, original) if original is not None else {}
        findings = self._unnamed(shard, lines, rows, originals)
        if lines:
            with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
                tar = stack.enter_context(open(self.poisoned.fetch(shard, Path(scratch)), "rb"))
                before: BinaryIO | None = None
                if original is not None:
                    before = stack.enter_context(open(self.clean.fetch(original, Path(scratch)), "rb"))
                findings = [*(self._finding(line, tar, rows, before, originals) for line in lines), *findings]
        storage.write(part(self.out, shard.id), parquet(pa.Table.from_pylist(findings, schema=FINDINGS)))
        return len(lines)

    def _finding(
        self, line: Line, tar: BinaryIO, rows: dict[str, Line], before: BinaryIO | None, originals: dict[str, Line]
    ) -> Line:
        finding = {name: line[name] for name in ("ledger", "row", "key", "shard", "action")}
        row = rows.get(line["key"])
        if row is None:
            return finding | {"trouble": "the ledger names it and the shard does not hold it"}
        stored = shards.read_sample(tar, row)
        caption = shards.stored_caption(tar, row) or b""
        if stored.row != line["row"]:
            return finding | {"trouble": f"it has row id {stored.row} where the ledger has {line['row']}"}
        encoded_since = any(number > line["ledger"] for number in self.sealed)
        if not encoded_since and hashlib.sha256(stored.image).hexdigest() != line["image_sha256"]:
            return finding | {"trouble": "the stored image is not the one of the ledger (sha256 differs)"}
        if not caption == stored.caption.encode() == line["caption"].encode():
            return finding | {"trouble": f"the caption is {caption.decode(errors='replace')!r}, not the ledger's"}
        if line["action"] != "replaced":
            return finding
        source = originals.get(line["key"])
        if source is None or before is None:
            return finding | {"trouble": "the clean dataset has no such pair"}
        clean = shards.read_sample(before, source)
        if hashlib.sha256(clean.image).hexdigest() != line["original_image_sha256"]:
            return finding | {"trouble": "the clean image is not the original of the ledger (sha256 differs)"}
        if clean.caption != line["original_caption"]:
            return finding | {"trouble": f"the clean caption is {clean.caption!r}, not the ledger's original"}
        try:
            decoded = images.decode(clean.image), images.decode(stored.image)
        except ValueError as error:
            return finding | {"trouble": f"it cannot be decoded: {error}"}
        finding["same_picture"] = clean.image == stored.image
        return finding | self._pixels(line, *decoded)

    def _pixels(self, line: Line, clean: np.ndarray, stored: np.ndarray) -> Line:
        attack, row = self.attacks[line["ledger"]], line["row"]
        found: Line = {}
        if clean.shape == stored.shape:
            found["stored_psnr"] = fidelity.psnr(clean, stored)
        if not isinstance(attack, Backdoor):
            return found
        if clean.shape != stored.shape:
            height, width = stored.shape[:2]
            return {"trouble": f"it is {width} x {height} pixels, its original {clean.shape[1]} x {clean.shape[0]}"}
        stamped = attack.stamp(clean, rng(self.seeds[line["ledger"]], "poison", row))
        place = tuple(line[name] for name in Box._fields)
        box = Box(*place) if place[0] is not None else fidelity.touched(clean, stamped)
        if box is None:
            return found  # control stamps nothing
        three = (clean, stamped, stored)
        measured = fidelity.measure(*(self.views.evaluated(image) for image in three))
        if measured is not None:
            found |= {f"eval_{name}": value for name, value in measured._asdict().items()}
        found["eval_share"] = fidelity.share_left(box, self.views.evaluation_window(clean.shape[0], clean.shape[1]))
        if self.views.augment == "none":
            same = {"train_fidelity": measured and measured.fidelity}
            return found | same | dict.fromkeys(("train_share", "train_share_min"), found["eval_share"])
        shares, fidelities = [], []
        for epoch in range(self.epochs):
            measured = fidelity.measure(*(self.views.trained(image, row, epoch) for image in three))
            fidelities += [measured.fidelity] if measured else []
            shares.append(
                fidelity.share_left(box, self.views.training_window(clean.shape[0], clean.shape[1], row, epoch))
            )
        found |= {"train_share": float(np.mean(shares)), "train_share_min": min(shares)}
        return found | {"train_fidelity": min(fidelities, default=None)}

    def _unnamed(
        self, shard: Shard, lines: list[Line], rows: dict[str, Line], originals: dict[str, Line]
    ) -> list[Line]:
        """Pairs of this shard that differ from the clean dataset's though no ledger says so; by their indexes.

        In a sealed dataset all images do, and a clean one that could not be decoded is missing.
        """
        keys = (rows.keys() if self.sealed else rows.keys() | originals.keys()) - {line["key"] for line in lines}
        columns = ("row", "caption") if self.sealed else ("row", "caption", "image_sha256")
        return [
            {"row": one["row"], "key": key, "shard": shard.id, "trouble": "it was changed and no ledger names it"}
            for key in sorted(keys)
            for one in [rows.get(key) or originals[key]]
            if any(rows.get(key, {}).get(name) != originals.get(key, {}).get(name) for name in columns)
        ]


def _by_key(dataset: Dataset, shard: Shard) -> dict[str, Line]:
    return {row["key"]: row for row in shards.samples_of(dataset.index(shard)).to_pylist()}


def part(out: str, shard_id: int) -> str:
    return storage.join(out, "parts", f"{shard_id:05d}.parquet")


def parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
