"""kill -9 in the middle of a stage, then the same command again: the result is that of an undisturbed run.

Training has its own story in tests/train, where the weights are compared bit for bit.
"""

from pathlib import Path

import pytest
from story import kill, last_line, run

from eval import scores
from infra import storage
from pipeline.dataset import Dataset
from poison.ledger import Ledger
from train import checkpoint

pytestmark = pytest.mark.slow

BOOK = ["picturebook", "--port", 8941, "--rows", 240, "--rows-per-shard", 20, "--timeout-seconds", 2, "--threads", 8]

WORKER = "ray::_call|ray::IDLE"  # a busy Ray worker; between two short tasks, an idle one


def commits(folder: Path) -> int:
    return len(storage.names(str(folder / "commits")))


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("stories") / "undisturbed"
    run("pipeline/prepare.py", *BOOK, "--out", out)
    return out


def test_prepare(source, tmp_path):
    whole = Dataset.open(str(source))
    for whom in ("driver", WORKER):
        out = tmp_path / whom.split("|")[0].replace("::", "-")
        words = ["pipeline/prepare.py", *BOOK, "--out", out]
        kill(*words, when=lambda out=out: commits(out) >= 3, whom=whom)
        if whom == "driver":
            assert 3 <= commits(out) < 12
            assert not (out / "dataset.json").exists()
        again = run(*words)
        assert ("nothing to do" in last_line(again)) == (whom != "driver")
        assert Dataset.open(str(out)).digest == whole.digest
        names = [shard.name for shard in whole.shards]
        assert [shard.name for shard in Dataset.open(str(out)).shards] == names, "the same bytes"
    assert "nothing to do" in last_line(run(*words))


def test_inject(source, tmp_path):
    def words(name, backend="ray"):
        out = ["--out", tmp_path / name, "--ledger", tmp_path / f"{name}-ledger", "--backend", backend]
        return ["poison/inject.py", "badnet", "--dataset", source, "--budget", 60, *out]

    run(*words("whole", "local"))
    whole = Dataset.open(str(tmp_path / "whole"))
    for whom in ("driver", WORKER):
        name = whom.split("|")[0].replace("::", "-")
        kill(*words(name), when=lambda name=name: commits(tmp_path / name) >= 2, whom=whom)
        run(*words(name))
        assert Dataset.open(str(tmp_path / name)).digest == whole.digest
        first, second = (Ledger.open(str(tmp_path / f"{kind}-ledger")).rows for kind in ("whole", name))
        assert first.equals(second)
        assert "nothing to do" in last_line(run(*words(name)))


def test_finetune(source, tmp_path):
    def words(name):
        small = ["--preset", "tiny", "--workers", 1, "--dataset", source]
        if name == "start":
            return ["train/pretrain.py", "clip", *small, "--epochs", 1, "--out", tmp_path / name]
        ranks = ["torchrun", "--standalone", "--nproc-per-node", 2, "train/finetune.py", "cleanclip"]
        more = ["--epochs", 12, "--checkpoint-steps", 20, "--pretrained", tmp_path / "start", "--out", tmp_path / name]
        return [*ranks, *small, *more]

    def weights(name):
        return checkpoint.find(str(tmp_path / name)).read(checkpoint.MODEL)

    run(*words("start"))
    run(*words("whole"))
    for whom in ("driver", "train/finetune.py"):
        name = whom.replace("/", "-")
        kill(
            *words(name), when=lambda name=name: bool(checkpoint.whole(str(tmp_path / name))), whom=whom, survives=False
        )
        assert not (tmp_path / name / "DONE").exists()
        run(*words(name))
        assert weights(name) == weights("whole"), "bit for bit"


def test_evaluate(source, tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluated")
    poisoned, ledger = root / "poisoned", root / "ledger"
    run("poison/inject.py", "badnet", "--backend", "local", "--dataset", source, "--budget", 20, "--out", poisoned,
        "--ledger", ledger)  # fmt: skip
    run("pipeline/testset.py", "picturebook", "--samples", 56, "--out", root / "test")
    names = [root / "runs" / name for name in ("clean", "poisoned")]
    for name, dataset in zip(names, (source, poisoned), strict=True):
        run(
            "train/pretrain.py",
            "clip",
            "--preset",
            "tiny",
            "--epochs",
            1,
            "--workers",
            0,
            "--dataset",
            dataset,
            "--out",
            name,
        )

    def words(out):
        return [
            "eval/evaluate.py",
            "--runs",
            *names,
            "--ledger",
            ledger,
            "--testsets",
            root / "test",
            "--out",
            root / out,
        ]

    def cells(out):
        return [name for name in storage.names(str(root / out)) if name.endswith(".json")]

    run(*words("whole"), "--backend", "local")
    assert len(cells("whole")) == 4, "two runs, two tasks"
    for whom in ("driver", WORKER):
        out = whom.split("|")[0].replace("::", "-")
        kill(*words(out), when=lambda out=out: len(cells(out)) >= 1, whom=whom)
        run(*words(out))
        assert numbers(root / out) == numbers(root / "whole")
        assert "nothing to do" in last_line(run(*words(out)))


def numbers(folder: Path) -> list[tuple[object, ...]]:
    return [(score.run, score.metric, score.k, score.value, score.n) for score in scores.read_all(str(folder))]
