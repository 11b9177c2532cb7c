"""Runs that differ only by their seed, taken together: a mean with its spread, so that no lucky seed is picked out."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from eval.judging.roles import Comparison, Kind, Result
from eval.store.runs import Run
from infra import storage

# What may differ besides: where things lie, and what shapes no weights.
APART = ("seed", "out", "dataset", "pretrained", "workers", "cache_gib", "checkpoint_steps", "checkpoint_seconds")


class Measured(Protocol):
    """What a mean is made of. value: in [0, 1] for shares; n: trials; interval: 95%."""

    @property
    def value(self) -> float: ...

    @property
    def n(self) -> int: ...

    @property
    def interval(self) -> tuple[float, float]: ...


@dataclass(frozen=True)
class Share:
    """A number of one run or of several. value: the mean over runs, in [0, 1]. n: test images.

    low, high: how far the 95% intervals of the runs reach. least, most: of the runs' values.
    """

    value: float
    low: float
    high: float
    least: float
    most: float
    n: int

    def apart(self, other: "Share") -> bool:
        """Whether the intervals have no point in common; only then is a difference called one."""
        return self.above(other) or other.above(self)

    def above(self, other: "Share") -> bool:
        return self.low > other.high


@dataclass(frozen=True)
class Group:
    """One run, or several that differ only by their seed. All play one role."""

    rows: tuple[Result, ...]

    @property
    def kind(self) -> Kind:
        return self.rows[0].role.kind

    @property
    def objective(self) -> str:
        return self.rows[0].run.objective

    @property
    def finetuned(self) -> bool:
        return bool(self.rows[0].run.ancestors)

    @property
    def name(self) -> str:
        """The run's name; of several, what their names have in common."""
        names = [row.run.name for row in self.rows]
        if len(names) == 1:
            return names[0]
        folders = [name.rsplit("/", 1)[-1] for name in names]
        for some in (folders, names):
            parts = [re.split(r"[-_./ ]+", name) for name in some]
            if common := [part for part in parts[0] if all(part in other for other in parts)]:
                return "-".join(common)
        return self.objective

    @property
    def words(self) -> str:
        """What it is, for people."""
        return self.rows[0].role.words if len(self.rows) == 1 else f"{len(self.rows)} seeds"

    @property
    def accuracy(self) -> Share:
        return together([row.accuracy for row in self.rows])

    @property
    def success(self) -> Share:
        return together([row.success for row in self.rows])


def together(scores: Sequence[Measured]) -> Share:
    """Of shares alone; other numbers have no interval."""
    values = [score.value for score in scores]
    lows, highs = zip(*(score.interval for score in scores), strict=True)
    mean = sum(values) / len(values)
    return Share(mean, min(lows), max(highs), min(values), max(values), scores[0].n)


def gather(comparison: Comparison) -> list[Group]:
    """Every run in one group, in the comparison's order. Alike runs of the same seed are a group each."""
    runs = {row.run.weights_sha256: row.run for row in comparison.rows}
    found: dict[bytes, list[Result]] = {}
    for row in comparison.rows:
        found.setdefault(storage.dump_json([row.role.kind, _identity(row.run, runs)]), []).append(row)
    groups = []
    for rows in found.values():
        seeds = {row.run.seed for row in rows}
        if len(seeds) == len(rows):
            groups.append(Group(tuple(sorted(rows, key=lambda row: row.run.seed))))
        else:
            groups += [Group((row,)) for row in rows]
    return groups


def _identity(run: Run, runs: dict[str, Run]) -> list[object]:
    """All that makes a run what it is, without its seed. runs: those known, by weights."""
    kept = {name: value for name, value in run.config.items() if name not in APART}
    if not run.ancestors:
        return [kept, run.checkpoint, run.dataset_digest]
    start = runs.get(run.ancestors[0].weights_sha256)
    before = _identity(start, runs) if start else [run.ancestors[0].weights_sha256]
    return [kept, run.checkpoint, run.dataset_digest, before]
