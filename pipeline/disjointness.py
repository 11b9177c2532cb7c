"""Which rows of a table are in another dataset already: by row id where both count the rows of one table, else by url
or by the hash of the file. Never by the row ids of different tables, which say nothing of each other.
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute

from infra import config, log, storage
from pipeline import shards
from pipeline.dataset import Dataset
from pipeline.shards import SUCCESS
from pipeline.source import Source

READERS = 16  # threads; a bucket answers each in some 20 ms
_WORDS = {"row": "by row id, both being of one table", "url": "by url", "file": "by the hash of its file"}


@dataclass(frozen=True)
class Other:
    """A dataset whose pairs are left out. used: what they are known by, int64 or string."""

    dataset: Dataset
    by: Literal["row", "url", "file"]
    used: pa.Array

    def lineage(self) -> Any:
        """What the choice of rows depends on, for a recipe. The digest of a dataset says nothing of its urls."""
        if self.by == "row":
            return self.dataset.digest
        return {"digest": self.dataset.digest, "by": self.by, "sha256": _digest(self.used)}


def others(source: Source, identity: dict[str, Any], urls: Sequence[str]) -> list[Other]:
    """identity: the source's, as it is now. Raises ValueError for a dataset that cannot be compared with its table."""
    numbering = source.numbering(identity)
    return [_other(source.kind, numbering, Dataset.open(url)) for url in urls]


def left_out(table: pa.Table, others: Sequence[Other]) -> np.ndarray:
    """bool (rows,): what any of the others holds. Says how it was compared; reads every file where that is by hash."""
    known = {"row": table["row"].combine_chunks()}
    if any(other.by == "url" for other in others):
        known["url"] = _without_user(table["url"].combine_chunks())
    if any(other.by == "file" for other in others):
        known["file"] = _hashes(table["url"].to_pylist())
    out = np.zeros(table.num_rows, bool)
    for other in others:
        shared = np.asarray(pa.compute.is_in(known[other.by], value_set=other.used))
        log.say(f"{int(shared.sum()):,} of {len(out):,} rows are in {other.dataset.url}, compared {_WORDS[other.by]}")
        out |= shared
    return out


def _other(kind: Literal["urls", "files"], numbering: dict[str, Any], there: Dataset) -> Other:
    columns = ["row", "url", "outcome", "source_sha256"]
    index = pa.concat_tables([there.index(shard).select(columns) for shard in there.shards]).combine_chunks()
    if _numbering(there) == numbering:
        return Other(there, "row", index["row"].unique())
    cannot = f"--disjoint-from {there.url} is of another table, so its row ids say nothing, and"
    if kind == "urls":
        urls = index["url"].unique()
        if urls.null_count or not pa.compute.all(pa.compute.match_substring_regex(urls, "(?i)^https?://")).as_py():
            raise ValueError(
                f"{cannot} it has pairs without a url: whether they are in this table cannot be known before it is "
                "downloaded; prepare both from one url table"
            )
        return Other(there, "url", _without_user(urls).unique())
    if there.contains_poison:
        raise ValueError(
            f"{cannot} it contains poison, which hides what its images were: name the dataset it was made from instead"
        )
    hashes = index.filter(pa.compute.equal(index["outcome"], SUCCESS))["source_sha256"].unique()
    if hashes.null_count:
        raise ValueError(
            f"{cannot} it does not say of what files its images were made (no sha256): whether they are among these "
            "images cannot be known; make both from one folder, by --limit and --disjoint-from"
        )
    return Other(there, "file", hashes)


def _numbering(there: Dataset) -> dict[str, Any] | None:
    """What its row ids mean; None where its own recipe does not say it (poisoned, foreign, of an earlier version)."""
    place = storage.join(there.url, "recipe.json")
    if not storage.exists(place):
        return None
    try:
        made = storage.read_json(place)["prepare"]
        source = config.from_json(Source, made["source"])
        return source.numbering(made["identity"])  # type: ignore[no-any-return]
    except (ValueError, LookupError, TypeError):
        return None


def _without_user(urls: pa.Array) -> pa.Array:
    """As a dataset keeps the url of a failed row (pipeline.fetch): user names and passwords are nobody's business."""
    return pa.compute.replace_substring_regex(urls, "^([a-zA-Z]+://)[^/?#]*@", r"\1...@")


def _hashes(places: Sequence[str]) -> pa.Array:
    """sha256 of each file; null for what is no plain file, which no dataset holds."""

    def one(place: str) -> str | None:
        try:
            return hashlib.sha256(shards.read_source(place, "image")).hexdigest()
        except (ValueError, FileNotFoundError):
            return None

    found = []
    with log.progress("hashing images", len(places), "images") as bar, ThreadPoolExecutor(READERS) as pool:
        for sha256 in pool.map(one, places):
            found.append(sha256)
            bar.add(1)
    return pa.array(found, pa.string())


def _digest(values: pa.Array) -> str:
    return hashlib.sha256(json.dumps(sorted(values.to_pylist())).encode()).hexdigest()
