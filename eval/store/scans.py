"""What scans were worth: `about/scan-KEY.json` in a folder of scores, one a scan and ledger, named by content."""

import hashlib
from dataclasses import dataclass

from infra import config, storage


@dataclass(frozen=True, kw_only=True)
class Worth:
    """What one column of a scan is worth: eval.judging.detection. recall: by the share of all pairs removed."""

    auroc: float
    average_precision: float
    false_positive_rate: float
    recall: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class ScanRecord:
    """place, run: of the scan and of the run it looked through, from the scores folder. saw: whether that run learned
    from these pairs, None for not known. attack: how scores name it; plugin: of it. poisons: that lie among the
    scanned `pairs`. worth: by detector, the panel among them; {} where no poison is there. proposed: pairs that auto
    removes; hits: those of them that are poisons; low, high: 95% interval of their share. clusters: that look planted.
    """

    place: str
    run: str
    saw: bool | None
    suspicion_sha256: str
    dataset_digest: str
    attack: str
    plugin: str
    pairs: int
    poisons: int
    worth: dict[str, Worth]
    proposed: int
    hits: int
    low: float | None
    high: float | None
    clusters: int

    @property
    def key(self) -> str:
        return hashlib.sha256(f"{self.suspicion_sha256} {self.attack}".encode()).hexdigest()[:12]

    @property
    def name(self) -> str:
        """The scan's folder."""
        return self.place.rstrip("/").rsplit("/", 1)[-1]


def write(folder: str, record: ScanRecord) -> None:
    """In place of what was known of an earlier scan that lay where this one lies."""
    storage.write_json(_place(folder, record), config.to_json(record))
    for other in read(folder):
        if (other.place, other.attack) == (record.place, record.attack) and other.key != record.key:
            storage.remove(_place(folder, other))


def _place(folder: str, record: ScanRecord) -> str:
    return storage.join(folder, "about", f"scan-{record.key}.json")


def read(folder: str) -> list[ScanRecord]:
    """All of a folder, by attack and place."""
    home = storage.join(folder, "about")
    names = [name for name in storage.names(home) if name.startswith("scan-") and name.endswith(".json")]
    found = [config.read(ScanRecord, storage.join(home, name)) for name in names]
    return sorted(found, key=lambda record: (record.plugin, record.place, record.key))
