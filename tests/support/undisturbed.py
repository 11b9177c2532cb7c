"""One small story, told once on a quiet machine and without Ray: what the disturbed ones must come to."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from defense.scanning.folder import ScanFolder
from eval.store import predictions, scores
from infra import storage
from pipeline.dataset import Dataset
from poison.ledger import Ledger
from tests.support.ports import free_port
from tests.support.story import run

BOOK = ["picturebook", "--rows", 240, "--rows-per-shard", 20, "--timeout-seconds", 2, "--threads", 8]
SHARDS = 12
TRAINING = ["--preset", "tiny", "--epochs", 1, "--workers", 0]
TASKS = ("zeroshot", "attack_success", "knn", "per_class", "pair_similarity")
CELLS = 26


@dataclass(frozen=True)
class Undisturbed:
    """The folders of the story, and the commands that tell it anew elsewhere."""

    root: Path
    port: int

    @property
    def source(self) -> Path:
        return self.root / "source"

    @property
    def poisoned(self) -> Path:
        return self.root / "poisoned"

    @property
    def scores(self) -> Path:
        return self.root / "scores"

    def prepare(self, out: Path, *more: object) -> list[object]:
        return ["pipeline/prepare.py", *BOOK, "--port", self.port, "--out", out, *more]

    def inject(self, out: Path, *more: object) -> list[object]:
        to = ["--out", out, "--ledger", f"{out}-ledger"]
        return ["poison/inject.py", "badnet", "--dataset", self.source, "--budget", 60, *to, *more]

    def verify(self, dataset: Path, *more: object) -> list[object]:
        return ["pipeline/verify.py", "--decode", "--dataset", dataset, *more]

    def evaluate(self, out: Path, *more: object) -> list[object]:
        """out: beside `scores`, since scores name runs and test sets by where they lie from there."""
        assert out.parent == self.root
        runs = [self.root / "runs" / name for name in ("clean", "poisoned")]
        tests = ["--testsets", self.root / "test-1", self.root / "test-2", "--ledger", f"{self.poisoned}-ledger"]
        learned = ["--probe-data", self.root / "test-1", "--probe-split", "test"]
        return ["eval/evaluate.py", "--runs", *runs, *tests, "--tasks", *TASKS, *learned, "--out", out, *more]

    def scan(self, out: Path, *more: object) -> list[object]:
        words = ["--run", self.root / "runs" / "poisoned", "--dataset", self.poisoned, "--out", out]
        return ["defense/scan.py", *words, *more]

    def scanned_alike(self, out: Path, whole: Path) -> None:
        made, meant = (ScanFolder.open(str(folder)).table for folder in (out, whole))
        assert made.schema.equals(meant.schema)
        for name, kind in zip(made.schema.names, made.schema.types, strict=True):
            if pa.types.is_floating(kind):
                assert np.allclose(made[name].to_numpy(), meant[name].to_numpy(), atol=1e-6, equal_nan=True), name
            else:
                assert made[name].equals(meant[name]), name
        assert not (out / "parts").exists()

    def prepared_alike(self, out: Path) -> None:
        _alike(out, self.source)
        assert [shard.name for shard in Dataset.open(str(out)).shards] == [
            shard.name for shard in Dataset.open(str(self.source)).shards
        ], "the same bytes"

    def injected_alike(self, out: Path) -> None:
        _alike(out, self.poisoned)
        first, second = (Ledger.open(f"{folder}-ledger").rows for folder in (out, self.poisoned))
        assert first.equals(second)

    def evaluated_alike(self, out: Path) -> None:
        assert numbers(out) == numbers(self.scores)
        assert cells(out) == cells(self.scores), "nothing lost, nothing double"
        assert answers(out) == answers(self.scores)


def tell(root: Path) -> Undisturbed:
    """About 25 seconds."""
    told = Undisturbed(root, free_port())
    local = ["--backend", "local"]
    run(*told.prepare(told.source, *local))
    run(*told.inject(told.poisoned, *local))
    for number in (1, 2):
        words = ["--samples", 42, "--seed", number, "--out", root / f"test-{number}"]
        run("pipeline/testset.py", "picturebook", *words)
    for name, dataset in (("clean", told.source), ("poisoned", told.poisoned)):
        run("train/pretrain.py", "clip", *TRAINING, "--dataset", dataset, "--out", root / "runs" / name)
    run(*told.evaluate(told.scores, *local))
    assert len(Dataset.open(str(told.source)).shards) == SHARDS
    assert len(cells(told.scores)) == CELLS, "of two runs: on two test sets clean 3 and attacked 3, and pairs"
    return told


def commits(folder: Path) -> int:
    return len(storage.names(str(folder / "commits")))


def cells(folder: Path) -> list[str]:
    """Names of the score files, each named by a hash of what it measures."""
    return [name for name in storage.names(str(folder)) if name.endswith(".json")]


def numbers(folder: Path) -> list[tuple[object, ...]]:
    """What a folder of scores says, without when and for how long."""
    return [
        (score.run, score.testset, score.task, score.metric, score.k, score.of, score.value, score.n)
        for score in scores.read_all(str(folder))
    ]


def answers(folder: Path) -> dict[str, bytes]:
    """What the models answered, and the maps."""
    home = folder / predictions.FOLDER
    return {name: (home / name).read_bytes() for name in storage.names(str(home))}


def unfinished(folder: Path) -> list[Path]:
    """Writes that a killed process did not come to the end of. Never listed, never read; but they take room."""
    return sorted(path for path in folder.rglob("*") if storage.ATTEMPT in path.name)


def _alike(out: Path, whole: Path) -> None:
    made, meant = Dataset.open(str(out)), Dataset.open(str(whole))
    assert made.digest == meant.digest
    assert made.outcomes == meant.outcomes
    own = [shard for shard in made.shards if shard.base == 0]
    assert commits(out) == len(own), "one commit a shard"
    tars = storage.names(str(out / "shards"))
    assert tars == sorted(Path(shard.name).name for shard in own), "nothing lost, nothing double"
