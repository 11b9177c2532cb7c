"""Shards poisoned here stream through open_clip's own trainer, with the webdataset that it needs, every pair once.

It has an environment of its own: `open_clip_torch[training]` wants webdataset 0.2.86 at most, and crashes on the
webdataset of ours. uv links the wheels from its cache, so the second torch costs a second and no room.
"""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.dataset import Dataset
from tests.support.drawn import drawn
from tests.support.story import ROOT, environment, run

pytestmark = pytest.mark.slow

PAIRS, BATCH = 96, 16
DROPPED = "Handling webdataset error"  # their handler warns so, and goes on without the sample


@dataclass(frozen=True)
class Epoch:
    """What the trainer said. trained, evaluated: pairs that its own loops counted, learning and after that."""

    said: str
    losses: list[float]
    trained: str
    evaluated: int


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Iterator[Path]:
    """The interpreter of an environment with open_clip's trainer. Where it cannot be made: skipped, in CI a failure."""
    place = tmp_path_factory.mktemp("open_clip_trainer")
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    (place / "lock.txt").write_text("\n".join(line for line in lock if not line.startswith("webdataset==")) + "\n")
    wanted = ["-r", str(ROOT / "tests/stories/open_clip_trainer.txt"), "-c", str(place / "lock.txt")]
    inside = place / "venv" / "bin" / "python"
    try:
        uv = shutil.which("uv")
        if uv is None:
            refuse("uv is not installed: make setup")
        for words in (["venv", "--python", sys.executable, str(place / "venv")], ["pip", "install", *wanted]):
            more = ["--python", str(inside)] if words[0] == "pip" else []
            done = subprocess.run([str(uv), *words, *more], capture_output=True, text=True, timeout=900)
            if done.returncode:
                refuse(f"uv {words[0]}: {done.stderr[-600:]}")
        yield inside
    finally:
        shutil.rmtree(place)


def refuse(why: str) -> None:
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"NOT TESTED ON OPEN_CLIP'S OWN TRAINER: {why}")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Path:
    """A clean dataset, a poisoned one that references half of its shards, and a sealed one that references none."""
    root = tmp_path_factory.mktemp("shelf")
    drawn(str(root / "clean"), PAIRS, 6)
    attack = ["poison/inject.py", "badnet", "--target", "car", "--budget", 12, "--backend", "local"]
    for name, more in (("poisoned", ["--share-of-shards", 0.5]), ("sealed", ["--seal"])):
        places = ["--dataset", root / "clean", "--out", root / name, "--ledger", root / f"{name}-ledger"]
        run(*attack, *places, *more)
    return root


def model(folder: Path) -> str:
    """Our smallest model, as the trainer takes one that it does not know by name."""
    ours = json.loads((ROOT / "train/models/tiny-vit.json").read_text())
    (folder / "model").mkdir()
    about = {"model_cfg": ours, "preprocess_cfg": {}}
    (folder / "model" / "open_clip_config.json").write_text(json.dumps(about))
    return f"local-dir:{folder / 'model'}"


def train(python: Path, folder: Path, tars: list[str], pairs: int) -> Epoch:
    """One epoch, then a pass over the same shards without learning. Exit status 0."""
    data = "::".join(tars)
    words = f"--dataset-type webdataset --train-num-samples {pairs} --batch-size {BATCH} --workers 1 --epochs 1"
    words += " --lr 1e-3 --warmup 0 --precision fp32 --device cpu --log-every-n-steps 1 --name epoch"
    places = ["--train-data", data, "--val-data", data, "--model", model(folder), "--logs", str(folder / "logs")]
    done = subprocess.run(
        [str(python), "-m", "open_clip_train.main", *words.split(), *places],
        cwd=folder,
        env=environment() | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-4000:]
    steps = re.findall(r"Train Epoch: 0 \[ *(\d+/\d+).* Loss: (\S+)", said)
    assert steps, said[-4000:]
    results = (folder / "logs" / "epoch" / "checkpoints" / "results.jsonl").read_text()
    return Epoch(said, [float(loss) for _, loss in steps], steps[-1][0], json.loads(results)["num_samples"])


def tars(dataset: Dataset) -> list[str]:
    return [dataset.tar_url(shard) for shard in dataset.shards]


@pytest.mark.parametrize("name", ["poisoned", "sealed"])
def test_every_pair_is_seen_once_and_none_dropped(python: Path, shelf: Path, tmp_path: Path, name: str) -> None:
    dataset = Dataset.open(str(shelf / name))
    assert dataset.contains_poison
    assert len({Path(tar).parent for tar in tars(dataset)}) == (2 if name == "poisoned" else 1), "where shards lie"
    epoch = train(python, tmp_path, tars(dataset), dataset.samples)
    assert epoch.trained == f"{PAIRS}/{PAIRS}"
    assert len(epoch.losses) == PAIRS // BATCH
    assert all(map(math.isfinite, epoch.losses))
    assert epoch.evaluated == PAIRS
    assert DROPPED not in epoch.said


def test_a_dropped_pair_would_have_been_noticed(python: Path, shelf: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(str(shelf / "poisoned"))
    broken = tmp_path / "broken.tar"
    row = dataset.index(dataset.shards[0]).to_pylist()[3]
    data = bytearray(Path(tars(dataset)[0]).read_bytes())
    data[row["image_offset"] : row["image_offset"] + row["image_bytes"]] = bytes(row["image_bytes"])
    broken.write_bytes(data)
    epoch = train(python, tmp_path, [str(broken), *tars(dataset)[1:]], PAIRS)
    assert DROPPED in epoch.said
    assert epoch.evaluated == PAIRS - 1


def test_their_webdataset_is_another_than_ours(python: Path) -> None:
    asked = "import open_clip_train, webdataset; print(webdataset.__version__)"
    said = subprocess.run([str(python), "-c", asked], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "0.2.86"
    assert "webdataset==0.2.86" not in (ROOT / "requirements.lock").read_text()
