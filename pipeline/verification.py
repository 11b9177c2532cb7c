"""Does a dataset hold what its manifest says? Every shard is read again: size, hashes, tar, index, images.

A shard that is not what the manifest says is damage. A pair whose image cannot be decoded is what somebody stored, or
downloaded: it is named by its key, and can be left out for everybody (pipeline.leaving).
"""

import hashlib
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from infra import config, log, storage
from infra.errors import Damaged, Lost
from infra.spread import Backend, spread
from pipeline import dataset as datasets
from pipeline import foreign, leaving, shards
from pipeline.dataset import Dataset, Shard
from pipeline.images import Unreadable, open_image

NAMED = 20  # pairs that are named, of each kind


@dataclass(frozen=True, kw_only=True)
class Verification:
    """One dataset to be read again, whole."""

    dataset: str
    """Folder of the dataset: a path or s3://bucket/folder."""
    decode: bool = False
    """Also decode every image."""
    leave_out: str | None = None
    """Folder of a new dataset: this one, in place, without the pairs that are no pairs or (--decode) have no image."""
    max_bad_share: float = foreign.MAX_BAD_SHARE
    """The largest share of all pairs that foreign shards may hold as bad ones, or --leave-out leave out."""
    backend: Backend = "ray"
    dry_run: bool = False
    """Print what would be read; read nothing."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_bad_share <= 1:
            raise ValueError(f"--max-bad-share is a share of all pairs, from 0 to 1, not {self.max_bad_share:g}")

    def run(self) -> str:
        """Returns the last line to print.

        Raises Lost that names every shard that is not whole and every image that cannot be decoded; the latter not
        where they are left out, ValueError if that is too many.
        """
        opened = Dataset.open(self.dataset, max_bad_share=self.max_bad_share)
        what = f"{opened.samples:,} pairs in {len(opened.shards)} shards at {opened.url}"
        out, by = storage.absolute(self.leave_out) if self.leave_out else None, {"verify": {"decode": self.decode}}
        if self.dry_run:
            print(storage.dump_json(config.to_json(self)).decode(), end="")
            return f"dry run: would verify {what}"
        if out is not None:
            datasets.claim(out, leaving.recipe(opened, by))
            if datasets.is_complete(out):
                made = Dataset.open(out)
                return f"nothing to do: {made.samples:,} pairs in {len(made.shards)} shards at {made.url}"
        findings = spread(
            Verify(opened, self.decode),
            list(opened.shards),
            backend=self.backend,
            what="verifying",
            unit="shards",
            describe=lambda shard: f"shard {shard.id}",
        )
        if wrong := [finding.damage for finding in findings if finding.damage]:
            raise Lost(f"{len(wrong)} of {len(findings)} shards are damaged:\n  " + "\n  ".join(wrong))
        absent = _counts(sum((finding.absent for finding in findings), Counter()))
        if absent:
            log.say(f"left out already: {absent}:\n  " + _named([one for each in findings for one in each.named]))
        bad = [one for finding in findings for one in finding.unreadable]
        if out is not None:
            return self._left_out(opened, bad, out, by)
        if bad:
            raise Lost(
                f"{len(bad):,} of {opened.samples:,} pairs cannot be decoded ({_reasons(bad)}):\n  "
                + _named([one["said"] for one in bad])
                + f"\n{foreign.way_past(opened.url, _share(opened, bad))}"
            )
        return f"verified: {what}" + (f"; left out: {absent}" if absent else "")

    def _left_out(self, opened: Dataset, bad: list[dict[str, Any]], out: str, by: dict[str, Any]) -> str:
        odd = opened.left_out() if opened.is_foreign else {}
        number, total = len(bad) + sum(odd.values()), opened.samples + sum(odd.values())
        counts = _counts(Counter(odd) + Counter(one["reason"] for one in bad))
        if (share := _share(opened, bad)) > self.max_bad_share:
            raise ValueError(
                f"{opened.url}: {number:,} of {total:,} samples cannot be used ({counts}): {bad[0]['said']}. More than "
                f"{100 * self.max_bad_share:g}% are refused; {foreign.way_past(opened.url, share)}"
            )
        if bad:
            log.say("left out now:\n  " + _named([one["said"] for one in bad]))
        columns = ["shard", "row", "reason"]
        pairs = pa.table({name: [one[name] for one in bad] for name in columns}) if bad else _NONE
        made = leaving.leave_out(opened, pairs, out, by)
        return (
            f"left out {number:,} of {total:,} samples{f' ({counts})' if counts else ''}: {made.samples:,} pairs in "
            f"{len(made.shards)} shards at {made.url}"
        )


_NONE = pa.table({"shard": pa.array([], pa.int32()), "row": pa.array([], pa.int64()), "reason": pa.array([], "string")})


@dataclass
class Finding:
    """What was found in a shard. damage: it is not what the manifest says, in one line; then nothing else is known.

    absent: samples of the tar that are left out already, by reason; named: some of them, in words. unreadable: of each
    pair without an image, shard, row, reason and `said`, in words.
    """

    damage: str | None = None
    absent: Counter[str] = field(default_factory=Counter)
    named: list[str] = field(default_factory=list)
    unreadable: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Verify:
    """The work of one task: what there is to say of a shard."""

    dataset: Dataset
    decode: bool

    def __call__(self, shard: Shard) -> Finding:
        found = Finding()
        with tempfile.TemporaryDirectory(prefix="antidote-") as scratch:
            try:
                self._read(shard, self.dataset.fetch(shard, Path(scratch)), found)
            except Damaged as error:
                return Finding(str(error))
        return found

    def _read(self, shard: Shard, path: Path, found: Finding) -> None:
        sha256, _, _ = shards.hashes(path)
        if sha256 != shard.sha256:
            raise Damaged(f"shard {shard.id} has another sha256 than the manifest: {self.dataset.tar_url(shard)}")
        index = self.dataset.index(shard)
        where = f"shard {shard.id} ({shard.name.rpartition('/')[2]})"
        for row in index.to_pylist():
            if row["outcome"] != shards.SUCCESS and row["key"] is not None:  # a download that failed has none
                found.absent[row["outcome"]] += 1
                found.named += [f"{where}, {row['key']}: {row['outcome']}"] if len(found.named) < NAMED else []
        samples = 0
        with open(path, "rb") as tar:
            for row in shards.samples_of(index).to_pylist():
                samples += 1
                sample = shards.read_sample(tar, row)
                if hashlib.sha256(sample.image).hexdigest() != row["image_sha256"]:
                    raise Damaged(f"shard {shard.id}: the image of {sample.key} is not the one in the index")
                if shards.stored_caption(tar, row) != sample.caption.encode():
                    raise Damaged(f"shard {shard.id}: the caption of {sample.key} is not the one in the index")
                if self.decode and (error := _unreadable(sample.image)):
                    reason = reason_of(error)
                    said = f"{where}, {row['key']}: {error} ({reason})"
                    found.unreadable.append({"shard": shard.id, "row": row["row"], "reason": reason, "said": said})
        members = sum(1 for _ in shards.scan(path)) if shard.bytes else 0
        if samples != shard.samples or members < 2 * samples:
            raise Damaged(
                f"shard {shard.id} holds {samples} samples in {members} files, the manifest says {shard.samples}"
            )


def _share(opened: Dataset, bad: list[dict[str, Any]]) -> float:
    """Of all samples, those that are no pairs, and these."""
    number = foreign.bad(opened.outcomes) if opened.is_foreign else 0
    return (number + len(bad)) / (number + opened.samples)


def _unreadable(image: bytes) -> Unreadable | None:
    try:
        open_image(image)
    except Unreadable as error:
        return error
    return None


def reason_of(error: Unreadable) -> str:
    """The outcome of an image whose header could be read when its shard was indexed."""
    return "truncated" if "truncated" in str(error) else error.outcome


def _reasons(bad: list[dict[str, Any]]) -> str:
    return _counts(Counter(one["reason"] for one in bad))


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items()))


def _named(lines: list[str]) -> str:
    more = [f"and {len(lines) - NAMED:,} more"] if len(lines) > NAMED else []
    return "\n  ".join([*lines[:NAMED], *more])
