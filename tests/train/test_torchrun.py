"""The entries under a real torchrun, on two ranks: told to end, started again by torchrun, and refused.

Killed, and the same command given again: tests/stories/test_killed.py."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from infra import rundir
from tests.support.drawn import drawn
from tests.support.story import (
    ROOT,
    Running,
    command,
    descendants,
    environ,
    environment,
    gone,
    last_line,
    parent,
    run,
)
from train import checkpoint, model

pytestmark = pytest.mark.slow

TORCHRUN = ["torchrun", "--standalone", "--nproc-per-node", 2]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    url = tmp_path_factory.mktemp("torchrun") / "data"
    drawn(str(url), 640, 4)
    return url


def training(data: Path, out: Path, *more: object) -> list[object]:
    """8 epochs of 40 steps on two ranks."""
    recipe = ["--preset", "tiny", "--epochs", 8, "--workers", 1, "--seed", 5]
    return [*TORCHRUN, "train/pretrain.py", "clip", "--dataset", data, "--out", out, *recipe, *more]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    """A run that nothing disturbs."""
    out = tmp_path_factory.mktemp("torchrun") / "whole"
    run(*training(data, out, "--checkpoint-steps", 40))
    return out


def errors(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("error: ")]


def weights(out: Path) -> bytes:
    return checkpoint.find(str(out)).read(checkpoint.MODEL)


def test_a_run_that_is_told_to_end_saves_its_step_first(data, whole, tmp_path):
    out = tmp_path / "told"
    words = training(data, out)  # no checkpoint is due before the end
    process = subprocess.Popen(command(*words), cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True)
    while len(rundir.metrics(str(out))) < 10:
        assert process.poll() is None
        time.sleep(0.01)
    family = list(descendants(process.pid))
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert [line.split(" after")[0] for line in errors(said)] == ["error: told to end (SIGTERM)"]
    gone(family)
    saved = checkpoint.find(str(out))
    assert 10 <= saved.step < 320
    assert f"step {saved.step}, which is saved" in said
    assert f"resuming at step {saved.step}" in run(*words).stderr
    assert weights(out) == weights(whole)


def test_bad_input_on_two_ranks_is_one_line_and_nobody_hangs(data, tmp_path):
    start = time.monotonic()
    words = [*TORCHRUN, "train/pretrain.py", "clip", "--dataset", data, "--preset", "tiny", "--out", tmp_path / "run"]
    for more, message in (
        (["--batch", 15], "a batch of 15 cannot be divided among 2 ranks"),
        (["--model", "x"], "no model"),
    ):
        done = run(*words, *more, status=1)  # torchrun's own; the rank's is 2
        assert len(errors(done.stderr)) == 1
        assert message in errors(done.stderr)[0]
        assert "exitcode  : 2" in done.stderr
    assert not (tmp_path / "run").exists()
    assert time.monotonic() - start < 120


def test_a_damaged_shard_ends_both_ranks_with_one_line(tmp_path):
    drawn(str(tmp_path / "data"), 40, 2)
    tar = min((tmp_path / "data" / "shards").iterdir())
    tar.write_bytes(tar.read_bytes()[:-1])
    words = [*TORCHRUN, "train/pretrain.py", "clip", "--dataset", tmp_path / "data", "--preset", "tiny"]
    done = run(*words, "--out", tmp_path / "run", status=1)
    assert len(errors(done.stderr)) == 1
    assert "shard 0 has" in errors(done.stderr)[0]
    assert "traceback : error: shard 0 has" in done.stderr, "torchrun's report repeats it"


def test_two_steps_of_the_papers_model_at_224_pixels_on_two_ranks(tmp_path):
    drawn(str(tmp_path / "data"), 8, 2, size=224)
    training = ["--preset", "rn50-cc3m", "--batch", 4, "--epochs", 1, "--warmup-steps", 1, "--workers", 0]
    words = [
        *TORCHRUN,
        "train/pretrain.py",
        "clip",
        "--dataset",
        tmp_path / "data",
        "--out",
        tmp_path / "run",
        *training,
    ]
    assert "2 steps; run at" in last_line(run(*words, timeout=900))
    lines = rundir.metrics(str(tmp_path / "run"))
    assert [line["step"] for line in lines] == [1, 2]
    assert all(0 < line["loss"] < 20 for line in lines)
    architecture = model.load_architecture(str(tmp_path / "run"))
    assert architecture["model_cfg"]["quick_gelu"] is True
    assert model.image_size(architecture) == 224


@pytest.mark.parametrize("rank", [0, 1])
def test_torchrun_starts_all_ranks_again_when_one_is_killed_and_the_weights_are_the_same_bit_for_bit(
    data, whole, tmp_path, rank
):
    out = tmp_path / "killed"
    words = [*TORCHRUN, "--max-restarts", 1, *training(data, out, "--checkpoint-steps", 40)[len(TORCHRUN) :]]

    def victims(running: Running) -> list[int]:
        started = [pid for pid in running.family() if parent(pid) == running.process.pid]
        return [pid for pid in started if f"\0RANK={rank}\0" in environ(pid)]

    with Running(words, tmp_path / "said") as running:
        running.until(lambda: any(found.step >= 80 for found in checkpoint.whole(str(out))))
        os.kill(running.until(lambda: victims(running))[0], signal.SIGKILL)
        assert running.status() == 0, running.text()[-4000:]
        assert "resuming at step " in running.text()
    assert weights(out) == weights(whole)
    attempts = rundir.environment(str(out))["attempts"]
    assert len(attempts) == 2
    assert attempts[1]["step"] >= 80
