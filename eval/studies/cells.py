"""What a study has measured, a small file a row: `scores/NAME/ATTACK.METHOD.VALUE.sSEED.json`, kept in git.

A study goes on from these alone: what is here needs no run, on whatever machine. A cell names the definition that it
was measured by (the digest of every command that led to it): a row that is planned otherwise now is missing.
"""

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.judging.seeds import Share, together
from eval.studies.plan import METRIC
from eval.studies.steps import Row
from infra import config, storage

ACCURACY, SUCCESS = ("zeroshot", "accuracy", 1), ("attack_success", "attack_success", 1)
FASTER = "AVX-512"  # with it, sums are rounded otherwise: the same commands end in other weights, as another seed would


@dataclass(frozen=True, kw_only=True)
class Number:
    """One score of a row. value: in [0, 1] for shares; low, high: its 95% interval, where it has one; n: trials.

    of: the class or kind that it is of. Of several classes a cell keeps the one of the greatest value.
    """

    task: str
    metric: str
    k: int | None
    value: float
    n: int
    low: float | None = None
    high: float | None = None
    of: str | None = None

    @property
    def key(self) -> tuple[str, str, int | None]:
        return self.task, self.metric, self.k

    @property
    def interval(self) -> tuple[float, float]:
        """Of one without, the value itself."""
        return self.value if self.low is None else self.low, self.value if self.high is None else self.high


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What was measured of a row. how: the attack in words; poisons: pairs that it made, of `samples` (None: unknown).

    machine: the kind of processor; seconds: of its own training and its measuring, few where the run was there before.
    read_back: the page that the numbers were read from again, where the scores are gone: of counts that print alike
    the first that its figure shows; code and seconds are not known.
    """

    attack: str
    method: str
    value: str
    seed: int
    definition: str
    how: str
    poisons: int
    samples: int | None
    numbers: tuple[Number, ...]
    machine: str
    code_version: str | None
    seconds: float | None
    read_back: str | None = None

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.attack, self.method, self.value, self.seed

    @property
    def elsewhere(self) -> bool:
        """Whether it comes from a processor without AVX-512."""
        return self.machine.endswith(f"without {FASTER}")

    def get(self, task: str, metric: str, k: int | None = 1) -> Number | None:
        return next((number for number in self.numbers if number.key == (task, metric, k)), None)

    @property
    def accuracy(self) -> Number:
        return self._whole(*ACCURACY)

    @property
    def success(self) -> Number:
        return self._whole(*SUCCESS)

    def _whole(self, task: str, metric: str, k: int) -> Number:
        found = self.get(task, metric, k)
        assert found is not None, f"the cell {self.key} has no {task}.{metric}@{k}"
        return found


def mean(found: Sequence[Number | None]) -> Share | None:
    """Over seeds; None where nothing was measured."""
    there = [number for number in found if number is not None]
    return together(there) if there else None


def metric(text: str) -> tuple[str, str, int | None]:
    """`knn.attack_success@1` as the key of a number; `@-` is one that has no k."""
    match = METRIC.fullmatch(text)
    assert match, text
    return match[1], match[2], None if match[3] == "-" else int(match[3])


def write(folder: str, row: Row, cell: Cell) -> None:
    """The cell of a row, in place of one of another definition."""
    storage.write(storage.join(folder, f"{row.name}.json"), storage.dump_json(config.to_json(cell)))


def read(folder: str, rows: Iterable[Row]) -> dict[str, Cell]:
    """By the row's name: the cells of these rows that are there, whole, and of the present definition.

    Raises ValueError for a file that holds something else.
    """
    there = set(storage.names(folder))
    found = {}
    for row in rows:
        if (name := f"{row.name}.json") not in there:
            continue
        url = storage.join(folder, name)
        try:
            cell: Cell = config.from_json(Cell, storage.read_json(url))
        except ValueError as error:
            raise ValueError(f"{url} is no cell of a study ({error}); remove it to measure that row again") from error
        have = {number.key for number in cell.numbers}
        if cell.definition == row.digest and all(metric(text) in have for text in row.metrics):
            found[row.name] = cell
    return found


def machine() -> str:
    """`x86_64 with AVX-512`: what of this machine decides how numbers are rounded."""
    try:
        flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        return platform.machine()
    return f"{platform.machine()} {'with' if 'avx512f' in flags.split() else 'without'} {FASTER}"
