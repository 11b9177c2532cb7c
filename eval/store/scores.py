"""One number and everything it is a number of. Scores are immutable: a file per grid cell, created once."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from infra import storage


@dataclass(frozen=True, kw_only=True)
class Score:
    """value: in [0, 1] for shares. n: how many trials it is a share of. low, high: 95% Clopper-Pearson interval.

    run: its folder, relative to the scores' where both are on one disk. checkpoint: `step-0001234@` and 12 digits of
    the sha256 of its weights. dataset: digest of what the run learned from. attack: key of an AttackRecord
    (records.py). testset: its folder, as `run`, then `@` and 12 digits of its digest. seed: of the evaluation.
    seconds: to make this cell; what the embeddings took is in the first cell that needed them.
    """

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

    @property
    def interval(self) -> tuple[float, float]:
        """Of a share; other numbers have none."""
        assert self.low is not None
        assert self.high is not None
        return self.low, self.high


def write(url: str, scores: list[Score]) -> bool:
    """Create one cell's file. False: the cell was scored before, and its file stands."""
    return storage.create(url, storage.dump_json([asdict(score) for score in scores]))


def read(url: str) -> list[Score]:
    """The scores of one cell. Raises ValueError for a file that holds something else."""
    known = {field.name for field in fields(Score)}
    rows: list[dict[str, Any]] = storage.read_json(url)
    if not isinstance(rows, list) or any(not isinstance(row, dict) or set(row) != known for row in rows):
        raise ValueError(f"{url} does not hold scores of this version; remove it or choose another folder")
    return [Score(**row) for row in rows]


def read_all(url: str) -> list[Score]:
    """Every score under a folder, in the order of file names."""
    files = [name for name in storage.names(url) if name.endswith(".json")]
    return [score for name in files for score in read(storage.join(url, name))]
