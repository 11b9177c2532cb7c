"""Dataset and scan -> the dataset without what was found, or without what somebody chose."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from defense.judging.verdict import top
from defense.scanning.folder import ScanFolder
from infra import config, storage
from infra.seeding import rng
from infra.spread import Backend
from pipeline import leaving
from pipeline.dataset import Dataset
from pipeline.materialising import materialise

REASON = "filtered"  # the outcome of a pair that was left out


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which pairs to leave out of a dataset: one of --remove, --clusters and --rows."""

    dataset: str
    """Folder of the dataset that was scanned."""
    scan: str
    """Folder of its scan."""
    out: str | None = None
    """Folder of the new dataset. It references the shards of the old one; to undo it, go on with the old one."""
    remove: str | None = None
    """auto: what the scan proposes, which may be nothing; or a share of all pairs, what the scan proposes and then the
    most suspicious: 0.02; or suspects: all that may belong to a cluster, so that a witness learns from the rest."""
    clusters: tuple[int, ...] = ()
    """Numbers of clusters, as the scan's report shows them."""
    rows: str | None = None
    """A file of row ids, one a line."""
    at_random: int | None = None
    """A seed: leave out as many pairs as were chosen, drawn at random from all, to see what their number alone does."""
    materialise: bool = False
    """Write shards of its own, for tools that know no row mask."""
    list: str | None = None
    """Also, or only, write the pairs that are left out as a table: row, key, shard, url (.csv)."""
    backend: Backend = "ray"
    """Where shards are written with --materialise."""
    dry_run: bool = False
    """Print the resolved configuration and how many pairs would be left out; write nothing."""

    def __post_init__(self) -> None:
        given = [f"--{name}" for name in ("remove", "clusters", "rows") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                f"give one of --remove auto, --remove 0.02, --clusters 3 5 and --rows FILE, not "
                f"{' and '.join(given) or 'none of them'}"
            )
        if self.remove not in (None, "auto", "suspects") and not 0 < _share(self.remove) < 1:
            raise ValueError(f"--remove is auto, suspects or a share of all pairs between 0 and 1, not {self.remove!r}")
        if self.out is None and self.list is None:
            raise ValueError("nothing to make: give --out NEW, or --list FILE, or both")
        if self.out is None and self.materialise:
            raise ValueError("--materialise writes a dataset: say where, with --out")
        if self.out is not None and storage.same(self.out, self.dataset):
            raise ValueError(f"--out and --dataset are the same folder, {self.out}: choose another --out")

    def run(self) -> str:
        """Returns the entry's last line."""
        dataset, scan = Dataset.open(self.dataset), ScanFolder.open(self.scan)
        scan.of(dataset)
        chosen = self._chosen(scan)
        if self.at_random is not None:
            chosen = anywhere(chosen, self.at_random)
        pairs = scan.table.filter(pa.array(chosen)).select(["row", "key", "shard"])
        what = f"{pairs.num_rows:,} of {dataset.samples:,} pairs"
        if pairs.num_rows >= dataset.samples:
            raise ValueError(f"{what} would be left out, and none would be left: choose fewer")
        if self.dry_run:
            print(storage.dump_json(config.to_json(self)).decode(), end="")
            return f"dry run: would leave out {what}"
        if self.list is not None:
            storage.write(storage.absolute(self.list), _listed(dataset, pairs))
        if self.out is None:
            return f"listed {what} in {self.list}"
        lines = pairs.append_column("reason", pa.array([REASON] * pairs.num_rows, pa.string()))
        lines = pa.table({name: lines[name] for name in ("shard", "row", "reason")})
        out = storage.absolute(self.out)
        if self.materialise:
            made = materialise(dataset, lines, out, self._by(scan), self.backend)
        else:
            made = leaving.leave_out(dataset, lines, out, self._by(scan))
        told = f"; they are listed in {self.list}" if self.list else ""
        return f"left out {what}: {made.samples:,} pairs in {len(made.shards)} shards at {made.url}{told}"

    def _chosen(self, scan: ScanFolder) -> np.ndarray:
        """bool (N,), by line of the scan's table. Raises ValueError for a cluster or a row that it does not have."""
        table = scan.table
        if self.remove == "auto":
            return np.asarray(table["proposed"].to_numpy())
        if self.remove == "suspects":
            return _suspects(scan)
        if self.remove is not None:
            count = round(_share(self.remove) * table.num_rows)
            if not count:
                raise ValueError(f"--remove {self.remove} of {table.num_rows:,} pairs is not one: give a larger share")
            return top(scan.ranking, count)
        if self.clusters:
            cluster = table["cluster"].fill_null(-1).to_numpy()
            known = np.unique(cluster[cluster >= 0]).tolist()
            if strange := sorted(set(self.clusters) - set(known)):
                raise ValueError(
                    f"{scan.url} has no cluster {strange[0]}; it has: {', '.join(map(str, known)) or 'none'}"
                )
            return np.isin(cluster, self.clusters)
        assert self.rows is not None
        wanted = _row_ids(self.rows)
        rows = table["row"].to_numpy()
        if strange := sorted(set(wanted.tolist()) - set(rows.tolist())):
            raise ValueError(f"{self.rows} names row {strange[0]}, which {scan.url} does not have")
        return np.isin(rows, wanted)

    def _by(self, scan: ScanFolder) -> dict[str, Any]:
        """Lineage: which scan said so, and what was asked for. Not whether it was poison: nobody here knows."""
        chosen: dict[str, Any] = {"remove": self.remove, "clusters": sorted(self.clusters)}
        if self.rows is not None:
            chosen["rows"] = _row_ids(self.rows).tolist()
        if self.at_random is not None:
            chosen["at_random"] = self.at_random
        about = scan.about
        return {"filter": chosen | {"scan": {"suspicion_sha256": scan.sha256, "run": about["run"]["weights_sha256"]}}}


def _suspects(scan: ScanFolder) -> np.ndarray:
    """bool (N,). Raises ValueError where there are none, or the scan does not tell."""
    if (chosen := scan.suspects) is None:
        raise ValueError(f"{scan.url} was made by an earlier version, which did not tell suspects: scan once more")
    if not chosen.any():
        raise ValueError(f"{scan.url} shows no cluster that may be planted: there is nothing to ask of a witness")
    return chosen


def anywhere(chosen: np.ndarray, seed: int) -> np.ndarray:
    """bool (N,): as many as in `chosen`, bool (N,), drawn at random without regard to it."""
    return top(rng(seed, "filter", "at-random").random(len(chosen)), int(chosen.sum()))


def _share(text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        return float("nan")


def _row_ids(place: str) -> np.ndarray:
    """int64 (n,), sorted. Raises ValueError that names the line."""
    try:
        lines = storage.read(storage.absolute(place)).decode("utf-8-sig").split("\n")
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise ValueError(f"--rows {place} cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if line.strip() and not (line.strip().isdecimal() and int(line) < 2**63):
            raise ValueError(f"line {number} of {place} is {line.strip()[:40]!r}, not a row id")
    found = np.unique(np.array([int(line) for line in lines if line.strip()], np.int64))
    if not len(found):
        raise ValueError(f"{place} names no row")
    return found


def _listed(dataset: Dataset, pairs: pa.Table) -> bytes:
    """A csv of these pairs with their urls."""
    wanted = set(zip(pairs["shard"].to_pylist(), pairs["key"].to_pylist(), strict=True))
    table = dataset.index_of_samples(["row", "key", "url"])
    there = [pair in wanted for pair in zip(table["shard"].to_pylist(), table["key"].to_pylist(), strict=True)]
    buffer = io.BytesIO()
    pa.csv.write_csv(table.filter(pa.array(there)).select(["row", "key", "shard", "url"]), buffer)
    return buffer.getvalue()
