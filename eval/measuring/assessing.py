"""Scans against ledgers: which poisons the scores find, and what `auto` would remove. The scan itself never knew."""

from dataclasses import dataclass

import numpy as np

from defense.scanning.folder import ScanFolder
from eval.interval import clopper_pearson
from eval.judging import detection
from eval.measuring import about
from eval.reporting import scans as tables
from eval.store import records, scans
from eval.store.scans import ScanRecord, Worth
from infra import config, log, storage
from poison import ledger as ledgers
from poison.ledger import Ledger


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """Which scans to hold against which ledgers."""

    scans: tuple[str, ...]
    """Folders of scans."""
    ledger: tuple[str, ...]
    """Ledgers of the attacks that lie in the scanned datasets; each scan is held against those of its own dataset."""
    out: str
    """Folder of scores, such as the one for evaluate: its report shows both side by side."""
    dry_run: bool = False
    """Print the resolved configuration and what would be assessed; write nothing."""

    def __post_init__(self) -> None:
        for name in ("scans", "ledger"):
            if not getattr(self, name):
                raise ValueError(f"--{name} needs at least one value")
            if (twice := storage.twice(getattr(self, name))) is not None:
                raise ValueError(f"--{name} names {twice} twice")

    def run(self) -> str:
        """Returns the entry's last line."""
        out = storage.absolute(self.out)
        opened = [Ledger.open(url) for url in self.ledger]
        found, sizes = [], dict[str, int]()
        for url in self.scans:
            scan = ScanFolder.open(url)
            sizes[scan.about["dataset"]["digest"]] = scan.table.num_rows
            own = [ledger for ledger in opened if _in(ledger, scan, opened)]
            if not own:
                raise ValueError(
                    f"{scan.url} is a scan of a dataset of digest {scan.about['dataset']['digest'][:12]}, to which no "
                    "ledger given belongs: give --ledger of its attack"
                )
            found += [assess(scan, ledger, out) for ledger in own]
        if self.dry_run:
            print(storage.dump_json(config.to_json(self)).decode(), end="")
            return f"dry run: would assess {len(found)} scans against their ledgers, into {out}"
        for ledger in opened:
            if not ledgers.is_sealed(ledger.url):
                log.warn(
                    f"{ledger.url}: its dataset is not sealed, so that its files alone tell poisons from others; "
                    "what counts as detection is measured on a sealed one (poison --seal)"
                )
        for ledger in opened:
            if ledger.dataset_digest in sizes:  # evaluate knows how large it is where only a part of it was scanned
                about.tell(ledger, about.attack(ledger, sizes, out), out)
        for record in found:
            scans.write(out, record)
        print(tables.markdown(found), end="\n")
        return f"{len(found)} assessed {'scan' if len(found) == 1 else 'scans'} at {out}"


def _in(ledger: Ledger, scan: ScanFolder, known: list[Ledger]) -> bool:
    """Whether the ledger's poisons lie in what was scanned, a part of it, or beneath another attack on it."""
    line = {scan.about["dataset"]["digest"], *scan.about["dataset"]["part_of"]}
    while more := {other.parent_digest for other in known if other.dataset_digest in line} - line:
        line |= more
    return ledger.dataset_digest in line


def assess(scan: ScanFolder, ledger: Ledger, out: str) -> ScanRecord:
    """out: the folder of scores, from which the record names places."""
    poisoned = truth(scan, ledger)
    proposed = np.asarray(scan.table["proposed"].to_numpy())
    removed, hits = int(proposed.sum()), int((proposed & poisoned).sum())
    low, high = clopper_pearson(hits, removed) if removed else (None, None)
    told, there = scan.about, bool(poisoned.any() and not poisoned.all())
    return ScanRecord(
        place=records.relative(scan.url, out),
        run=records.relative(storage.resolve(told["run"]["url"], scan.url), out),
        saw=told["run"]["saw_these_pairs"],
        suspicion_sha256=scan.sha256,
        dataset_digest=told["dataset"]["digest"],
        attack=records.attack_key(ledger.attack, ledger.dataset_digest),
        plugin=config.to_json(ledger.attack)["plugin"],
        pairs=scan.table.num_rows,
        poisons=int(poisoned.sum()),
        worth={
            name: worth(scan.table[name].to_numpy(), poisoned, scan.ranking if name == "panel" else None)
            for name in ("panel", *scan.detectors)
            if there
        },
        proposed=removed,
        hits=hits,
        low=low,
        high=high,
        clusters=sum(cluster["planted"] for cluster in told["clusters"]),
    )


def truth(scan: ScanFolder, ledger: Ledger) -> np.ndarray:
    """Which lines of the scan are poisons: bool (N,). By row id and key: a pair that was added has a key of its own."""
    made = set(zip(ledger.rows["row"].to_pylist(), ledger.rows["key"].to_pylist(), strict=True))
    lines = zip(scan.table["row"].to_pylist(), scan.table["key"].to_pylist(), strict=True)
    return np.array([line in made for line in lines], bool)


def worth(scores: np.ndarray, poisoned: np.ndarray, ranking: np.ndarray | None = None) -> Worth:
    """scores: float64 (N,); poisoned: bool (N,), some of each kind. ranking: float64 (N,), by which a share is removed,
    where that is not by the scores."""
    first = scores if ranking is None else ranking
    return Worth(
        auroc=detection.auroc(scores, poisoned),
        average_precision=detection.average_precision(scores, poisoned),
        false_positive_rate=detection.false_positive_rate(scores, poisoned),
        recall={f"{share:g}": detection.recall_at(first, poisoned, share) for share in detection.SHARES},
    )
