"""One number and everything it is a number of. Scores are immutable: a file per grid cell, created once."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from infra import storage


@dataclass(frozen=True, kw_only=True)
class Score:
    """value: in [0, 1] for shares. n: how many trials it is a share of. low, high: 95% Clopper-Pearson interval."""

    run: str
    checkpoint: str
    dataset: str
    attack: str | None
    testset: str
    task: str
    metric: str
    k: int | None
    value: float
    n: int
    low: float | None
    high: float | None
    seed: int
    seconds: float
    code_version: str


def write(url: str, scores: list[Score]) -> bool:
    """Create one cell's file. False: the cell was scored before, and its file stands."""
    return storage.create(url, storage.dump_json([asdict(score) for score in scores]))


def read_all(url: str) -> list[Score]:
    """Every score under a folder, in the order of file names. Raises ValueError for a file that holds something else."""
    known = {field.name for field in fields(Score)}
    found: list[Score] = []
    for name in storage.names(url):
        if not name.endswith(".json"):
            continue
        rows: list[dict[str, Any]] = storage.read_json(storage.join(url, name))
        if any(set(row) != known for row in rows):
            raise ValueError(
                f"{storage.join(url, name)} does not hold scores of this version; remove it or choose another folder"
            )
        found.extend(Score(**row) for row in rows)
    return found
