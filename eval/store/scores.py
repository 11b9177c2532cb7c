"""One number and everything it is a number of. Scores are immutable: a file per grid cell, created once."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from eval.task import Bounds
from infra import storage

LATER = ("of", "bounds")  # fields that cells of earlier versions lack; all of these held shares of all


@dataclass(frozen=True, kw_only=True)
class Score:
    """value: in [0, 1] for shares. n: how many trials it is a number of. low, high: its 95% interval. bounds: what that
    is made by. of: the class, or the kind of pair, that it is a number of; None: of all.

    run: its folder, relative to the scores' where both are on one disk. checkpoint: `step-0001234@` and 12 digits of
    the sha256 of its weights. dataset: digest of what the run learned from. attack: key of an AttackRecord
    (records.py). testset: its folder, as `run`, then `@` and 12 digits of its digest; None for what is measured on
    pairs that a run learned from. task: the interface; metrics of one name mean the same at each. seed: of the
    evaluation.
    seconds: to make this cell; what the embeddings took is in the first cell that needed them.
    """

    run: str
    checkpoint: str
    dataset: str
    attack: str | None
    testset: str | None
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
    of: str | None = None
    bounds: Bounds | None = None

    @property
    def interval(self) -> tuple[float, float]:
        """Of a number that has one."""
        assert self.low is not None
        assert self.high is not None
        return self.low, self.high


def write(url: str, scores: list[Score]) -> bool:
    """Create one cell's file. False: the cell was scored before, and its file stands."""
    return storage.create(url, storage.dump_json([asdict(score) for score in scores]))


def read(url: str) -> list[Score]:
    """The scores of one cell. Raises ValueError for a file that holds something else."""
    known = {field.name for field in fields(Score)}
    needed = known - set(LATER)
    rows: list[dict[str, Any]] = storage.read_json(url)
    if not isinstance(rows, list) or any(not isinstance(row, dict) or not needed <= set(row) <= known for row in rows):
        raise ValueError(f"{url} does not hold scores of this version; remove it or choose another folder")
    return [Score(**({"bounds": "clopper-pearson"} if "bounds" not in row else {}) | row) for row in rows]


def cells(url: str) -> dict[str, list[Score]]:
    """The scores of every cell under a folder, by its file, in the order of file names."""
    files = [name for name in storage.names(url) if name.endswith(".json")]
    return {name: read(storage.join(url, name)) for name in files}


def read_all(url: str) -> list[Score]:
    """Every score under a folder, in the order of file names."""
    return [score for rows in cells(url).values() for score in rows]
