"""The scan folder: how suspicious every pair of a dataset is, and what was found.

    recipe.json             whose folder this is
    parts/                  what is done of a scan that is not; gone at the end
    suspicion.parquet       a line a pair, by row id: row, key, shard, one column a detector, panel, cluster, proposed,
                            suspect
    images/                 of each cluster, its images and what a change does to them; its average without the set's
    scan.json               of what, with what, when; what was found; written last: complete

It says nothing about what was poisoned: that is the ledger's, which no scan opens.
"""

import hashlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from defense.judging.verdict import Verdict
from infra import storage
from infra.errors import Damaged
from pipeline import shards
from pipeline.dataset import Dataset

FORMAT = 1
ABOUT, SUSPICION, PARTS, IMAGES = "scan.json", "suspicion.parquet", "parts", "images"
PAIR = ("row", "key", "shard")
PAGE = ("changes", "proposed", "recall", "seconds", "finished", "versions")  # of scan.json, for who shows it
FOUND = (
    "panel",
    "cluster",
    "proposed",
    "suspect",
)  # cluster: its number, null for none; proposed: by auto, for removal


@dataclass(frozen=True)
class ScanFolder:
    """A complete scan. about: scan.json; table: a line a pair, sorted by row id; sha256: of the table's file."""

    url: str
    about: dict[str, Any]
    table: pa.Table
    sha256: str

    @staticmethod
    def open(url: str) -> "ScanFolder":
        """Raises ValueError if there is none or it is not complete, Damaged if its table is not the one it names."""
        url = storage.absolute(url)
        if not is_complete(url):
            recipe = storage.join(url, "recipe.json")
            if storage.exists(recipe) and "scan" in storage.read_object(recipe):
                raise ValueError(f"the scan {url} is not complete: run its command once more")
            raise ValueError(f"no scan at {url}: it has no {ABOUT}")
        about = storage.read_object(said := storage.join(url, ABOUT))
        if about.get("format") != FORMAT:
            raise ValueError(f"{url} has scan format {about.get('format')!r}; this version reads format {FORMAT}")
        storage.holding(said, about, "dataset", "run", "clusters", "suspicion_sha256", *PAGE)
        storage.holding(said, about["dataset"], "url", "digest")
        storage.holding(said, about["run"], "url", "saw_these_pairs", "checkpoint", "weights_sha256")
        if "witness" in about:
            storage.holding(said, about["witness"], "url", "dataset", "checkpoint", "weights_sha256")
        place = storage.join(url, SUSPICION)
        data = storage.read(place) if storage.exists(place) else b""
        if (sha256 := hashlib.sha256(data).hexdigest()) != about["suspicion_sha256"]:
            raise Damaged(f"{place} is not the one that {ABOUT} names (sha256 differs, or it is missing)")
        return ScanFolder(url, about, shards.read_parquet(data), sha256)

    @property
    def detectors(self) -> list[str]:
        """Names of the detectors that have a column."""
        return [name for name in self.table.column_names if name not in (*PAIR, *FOUND)]

    @property
    def suspects(self) -> np.ndarray | None:
        """What a witness is not to learn from: bool (N,); None of a scan of earlier versions, which did not tell."""
        return np.asarray(self.table["suspect"].to_numpy()) if "suspect" in self.table.column_names else None

    @property
    def ranking(self) -> np.ndarray:
        """By how soon a pair goes where a share is removed, the highest first: float64 (N,)."""
        return ranking(self.table["panel"].to_numpy(), np.asarray(self.table["proposed"].to_numpy()))

    def of(self, dataset: Dataset) -> None:
        """Raises ValueError unless it is a scan of that dataset."""
        if (scanned := self.about["dataset"]["digest"]) != dataset.digest:
            raise ValueError(
                f"{self.url} is a scan of another dataset, of digest {scanned[:12]} "
                f"({self.about['dataset']['url']}); {dataset.url} has {dataset.digest[:12]}: scan that one"
            )

    def image(self, name: str) -> bytes:
        """One of images/. Raises Damaged if it is missing."""
        try:
            return storage.read(place := storage.join(self.url, IMAGES, name))
        except FileNotFoundError as error:
            raise Damaged(f"{place} is missing: scan once more, into another folder") from error


def ranking(panel: np.ndarray, proposed: np.ndarray) -> np.ndarray:
    """The panel's scores, what looks planted before all else: a larger share than `auto` takes leaves nothing of it.
    panel: float64 (N,); proposed: bool (N,)."""
    return np.where(proposed, panel + (np.ptp(panel) + 1), panel)


def is_complete(url: str) -> bool:
    return storage.exists(storage.join(url, ABOUT))


def write(
    url: str,
    pairs: pa.Table,
    scores: dict[str, np.ndarray],
    panel: np.ndarray,
    verdict: Verdict,
    suspects: np.ndarray,
    about: dict[str, Any],
) -> ScanFolder:
    """The table, and scan.json after it. pairs: columns PAIR; all of the same order, by row id."""
    columns = {name: pa.array(values, pa.float64()) for name, values in sorted(scores.items())}
    columns["panel"] = pa.array(panel, pa.float64())
    columns["cluster"] = pa.array(verdict.cluster, pa.int32(), mask=verdict.cluster < 0)
    columns["proposed"] = pa.array(verdict.proposed, pa.bool_())
    columns["suspect"] = pa.array(suspects, pa.bool_())
    table = pa.table({name: pairs[name] for name in PAIR} | columns)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    storage.write(storage.join(url, SUSPICION), buffer.getvalue())
    sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
    storage.write_json(storage.join(url, ABOUT), about | {"format": FORMAT, "suspicion_sha256": sha256})
    return ScanFolder.open(url)


def word(cluster: dict[str, Any]) -> str | None:
    """What the captions of a cluster say, in a word: the one that it aims at; or else, as of a brand whose name is said
    nowhere else, or in scans of earlier versions, the most telling. None: they share no word."""
    said = cluster.get("aims") or [word["text"] for word in cluster["words"]]
    return said[0] if said else None


def told(clusters: list[dict[str, Any]]) -> str:
    """What was found, in words. clusters: of scan.json, those that look planted first."""
    planted = [cluster for cluster in clusters if cluster["planted"]]
    rest = len(clusters) - len(planted)
    if not planted:
        said = "nothing looks planted"
    else:
        unseen = [" and a witness does not" if one.get("witness") == "untrue" else "" for one in planted]
        each = [
            f'{one["pairs"]:,} pairs whose captions say "{word(one)}"{so}'
            for one, so in zip(planted, unseen, strict=True)
        ]
        said = f"{'a cluster looks' if len(each) == 1 else f'{len(each)} clusters look'} planted: {', '.join(each)}"
    more = f"{rest:,} {'cluster' if rest == 1 else 'clusters'} to look at" if rest else ""
    if true := sum(cluster.get("witness") == "true" for cluster in clusters):
        more += f", and a witness finds the captions of {true:,} true"
    return f"{said}; {more}" if more else said
