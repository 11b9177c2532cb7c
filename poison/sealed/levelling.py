"""One shard on its way into a sealed dataset: every pair in one form, and an index that says of all pairs the same.

Images are encoded as the attack's are; KEY.json keeps of a clean pair what it keeps of a poisoned one, files of other
tools stay beside their pair, and the hash of a download becomes that of the stored bytes, as an attack's server would
have sent them.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from infra.seeding import hash64, rng
from pipeline import images, shards
from pipeline.shards import SUCCESS, Sample
from poison.writing import encoding


@dataclass(frozen=True)
class Form:
    """How pairs are written. quality: of JPEGs, 4:4:4; WebP and PNG are lossless.

    keeps: the attack's images are encoded so already (a backdoor's are); else they are encoded here like clean ones.
    encoded: rows of earlier attacks of which the same is true. share: of the clean images that are encoded again.
    """

    keeps: bool
    quality: int
    seed: int
    share: float = 1.0
    encoded: frozenset[int] = frozenset()

    def written(self, sample: Sample) -> Sample:
        """Raises Unreadable."""
        return encoding.rewritten(sample, lambda image, _: image, sample.caption, rng(0), self.quality)

    def controls(self, rows: np.ndarray) -> np.ndarray:
        """Which of these rows are encoded again if they are clean: bool (n,)."""
        if self.share == 1:
            return np.ones(len(rows), bool)
        return hash64(self.seed, "control", rows) < np.uint64(int(self.share * 2.0**64))


@dataclass
class Levelled:
    """The pairs of one shard, and what their index takes from the unsealed one.

    index: the unsealed shard's. ours: keys of the attack's pairs. leaving: keys that belong elsewhere. arriving: added
    pairs by the key of their seat. beside: files of other tools by key; those of a seat stay with it.
    failures: rows without a sample; whole once `samples` has ended.
    """

    form: Form
    index: pa.Table
    ours: frozenset[str]
    leaving: frozenset[str]
    arriving: dict[str, Sample]
    beside: dict[str, dict[str, bytes]] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)

    def samples(self, tar: BinaryIO) -> Iterator[Sample]:
        """In the order found. A clean image that cannot be decoded becomes a failed row."""
        # A pair ends in one of four ways: it leaves, another takes its place, it is encoded again, or its image stays.
        there = shards.samples_of(self.index)
        for row, control in zip(there.to_pylist(), self.form.controls(there["row"].to_numpy()), strict=True):
            key = row["key"]
            if key in self.leaving:
                continue
            sample, known = shards.read_sample(tar, row), {name: row[name] for name in ("url", "width", "height")}
            # Whether the image has been through the encoding already that clean ones get here: once is enough.
            kept = self.form.keeps if key in self.ours else row["row"] in self.form.encoded
            try:
                if key in self.arriving:
                    sample = self.form.written(seated(self.arriving[key], sample))
                    height, width, _ = images.decode(sample.image).shape
                    sizes = {"width": width, "height": height}
                    # An index that knows no sizes (a foreign one) learns none here: only added pairs would have them.
                    known |= {name: size for name, size in sizes.items() if known[name] is not None}
                elif not kept and (control or key in self.ours):
                    before = sample.image
                    sample = self.form.written(sample)
                    known = encoding.sizes(known, before, sample.image)
                else:
                    # The same image and caption; but KEY.json loses what that of an encoded pair loses.
                    sample = encoding.recaptioned(sample, sample.caption)
            except images.Unreadable as error:
                assert key not in self.ours
                lost = {name: row[name] for name in ("row", "caption", "url")}
                self.failures.append(lost | {"outcome": error.outcome})
                continue
            # Of every pair whose image was encoded, the index says that these very bytes were downloaded, as they would
            # have been from an attacker's server.
            as_downloaded = not (kept or control or key in self.ours)
            known["source_sha256"] = row["source_sha256"] and (
                row["source_sha256"] if as_downloaded else _sha256(sample)
            )
            self.columns[key] = known
            yield replace(sample, beside=self.beside.get(key, {}))
        self.failures += [row for row in self.index.to_pylist() if row["outcome"] != SUCCESS]

    def levelled(self, index: pa.Table) -> pa.Table:
        """The index of the written shard, its columns filled, or empty, as the unsealed one had them."""
        rows = [row | self.columns.get(row["key"], {}) for row in index.to_pylist()]
        return pa.Table.from_pylist(rows, schema=shards.INDEX)


def _sha256(sample: Sample) -> str:
    return hashlib.sha256(sample.image).hexdigest()


def seated(added: Sample, clean: Sample) -> Sample:
    """An added pair in the place of a clean one, of whose KEY.json the sizes follow the image."""
    height, width, _ = images.decode(added.image).shape
    sizes = {"width": width, "height": height}
    for name, stored in tuple(sizes.items()):  # as much larger, before it was shrunk, as the other one was
        original, was = clean.meta.get(f"original_{name}"), clean.meta.get(name)
        if isinstance(original, int) and isinstance(was, int) and was > 0:
            sizes[f"original_{name}"] = max(1, round(stored * original / was))
    meta = encoding.described(clean, added.caption) | {name: size for name, size in sizes.items() if name in clean.meta}
    return Sample(clean.key, clean.row, added.image, clean.extension, added.caption, meta)
