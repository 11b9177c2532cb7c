"""The numbers of CLIP_benchmark, by its own code in an environment of its own, beside ours."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from eval.measuring.evaluation import Evaluation
from eval.store import scores
from infra.seeding import rng
from pipeline import captioned, images, testsets
from tests.support import clip_benchmark, uv
from tests.support.eval_helpers import CLASSES, TEMPLATES, world
from train import model

pytestmark = pytest.mark.slow
COLOURS = np.array([[200, 40, 40], [40, 160, 60], [40, 80, 200], [200, 180, 60], [150, 60, 170], [90, 90, 90]])


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of an environment with clip_benchmark, made by uv."""
    return uv.environment(tmp_path_factory.mktemp("clip_benchmark") / "environment", uv.CLIP_BENCHMARK)


def drawn(number: int) -> np.ndarray:
    """uint8 (32, 32, 3): an image of class `number` % 6, in its colour more or less."""
    draw = rng(5, "coloured", number)
    corners = COLOURS[number % len(COLOURS)] + draw.normal(scale=50, size=(2, 1, 3))
    noise = draw.normal(scale=10, size=(32, 32, 3))
    return (np.linspace(corners[0], corners[1], 32).repeat(32, axis=1) + noise).clip(0, 255).astype(np.uint8)


def test_zero_shot_and_retrieval_are_equal_to_the_last_sample_and_the_probe_within_its_interval(
    python: str, tmp_path: Path
) -> None:
    small = world(tmp_path)
    labelled, said = small.url("labelled"), small.url("said")
    for split, first, count in (("train", 0, 240), ("validation", 6000, 60), ("test", 12000, 300)):
        coloured = [(images.encode(drawn(first + n), "png"), "png", n % 6) for n in range(count)]
        testsets.write(labelled, coloured, CLASSES, TEMPLATES, split=split)
    words = [f"a {name} {place} a {other}" for name in CLASSES for place in ("on", "by", "under") for other in CLASSES]
    pairs = [(drawn(3000 + n), [words[n], f"{words[n]}, number {n}"][: 1 + n % 2]) for n in range(30)]
    captioned.write(said, [(images.encode(image, "png"), "png", some) for image, some in pairs])
    run = small.run("run", small.dataset, seed=8)
    model.export(model.create(model.architecture("tiny-vit"), 8), model.architecture("tiny-vit"), run)
    out = small.url("scores")
    Evaluation(
        runs=(run,),
        testsets=(labelled, said),
        out=out,
        backend="local",
        tasks=("zeroshot", "linear_probe", "retrieval"),
    ).run()
    ours = {(row.task, row.metric, row.k): row for row in scores.read_all(out)}
    driver = [python, str(clip_benchmark.__file__), f"{run}/open_clip", labelled, said, str(tmp_path)]
    done = subprocess.run(driver, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = json.loads(done.stdout.splitlines()[-1])

    def same(task: str, metric: str, k: int, name: str) -> None:
        row = ours[task, metric, k]
        assert round(row.value * row.n) == pytest.approx(theirs[name] * row.n, abs=1e-3), (name, row, theirs[name])
        if k >= 5:
            assert 0.02 < row.value < 0.98, "a model that knows nothing is right by chance, and the order shows"

    for k in (1, 5):
        same("zeroshot", "accuracy", k, f"acc{k}")
    for k in (1, 5, 10):
        same("retrieval", "image_to_text_recall", k, f"text_retrieval_recall@{k}")
        same("retrieval", "text_to_image_recall", k, f"image_retrieval_recall@{k}")
    probe = ours["linear_probe", "accuracy", 1]
    assert probe.low <= theirs["lp_acc1"] <= probe.high
    assert 0.4 < probe.value < 0.98
