"""Ctrl-C: one line, status 130, and the same command goes on from there."""

import os
import signal
from pathlib import Path

import pytest

from infra import storage
from pipeline.dataset import Dataset
from tests.support.drawn import drawn
from tests.support.ports import free_port
from tests.support.story import Running, gone, last_line, run

SAID = "interrupted: what is done is kept; the same command again does the rest"


def ctrl_c(running: Running) -> list[str]:
    """What a terminal does at Ctrl-C: SIGINT for the whole group. Returns what was said from then on, in lines."""
    before = len(running.text())
    os.killpg(running.process.pid, signal.SIGINT)
    assert running.status() == 130, running.text()[-3000:]
    gone(running.family())
    return running.text()[before:].splitlines()


def some(folder: Path) -> bool:
    return len(storage.names(str(folder / "commits"))) >= 2


@pytest.mark.parametrize("backend", ["local", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow])])
def test_prepare_ends_in_one_line_and_goes_on_where_it_was(tmp_path: Path, backend: str):
    drawing = ("picturebook", "--rows", 120, "--rows-per-shard", 4, "--faults", 0, "--picture-size", 32)
    out = tmp_path / "book"
    words = ["pipeline/prepare.py", *drawing, "--port", free_port(), "--out", out, "--backend", backend]
    with Running(words, tmp_path / "said") as running:
        running.until(lambda: some(out))
        assert ctrl_c(running) == [SAID]
    there = storage.names(str(out / "commits"))
    assert len(there) < 30, "it was done before Ctrl-C"
    done = run(*words)
    assert f"{len(there)} are there already" in done.stderr
    assert last_line(done).startswith("120 pairs of 120 rows in 30 shards")


@pytest.mark.parametrize("backend", ["local", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow])])
def test_poison_ends_in_one_line_and_goes_on_where_it_was(tmp_path: Path, backend: str):
    drawn(str(tmp_path / "clean"), 1200, 120, size=64)
    folders = ("--dataset", tmp_path / "clean", "--out", tmp_path / "out", "--ledger", tmp_path / "ledger")
    words = ["poison/inject.py", "badnet", "--target", "car", *folders, "--budget", 600, "--backend", backend]
    with Running(words, tmp_path / "said") as running:
        running.until(lambda: some(tmp_path / "out"))
        assert ctrl_c(running) == [SAID]
    assert not storage.exists(str(tmp_path / "out" / "dataset.json")), "it was done before Ctrl-C"
    assert last_line(run(*words)).startswith("poisoned 600 of 1,200 pairs")
    assert Dataset.open(str(tmp_path / "out")).samples == 1200


def test_training_ends_in_one_line_and_resumes(tmp_path: Path):
    drawn(str(tmp_path / "clean"), 64, 2)
    words = ["train/pretrain.py", "clip", "--preset", "tiny", "--epochs", 2000, "--dataset", tmp_path / "clean",
             "--out", tmp_path / "run", "--workers", 1, "--checkpoint-steps", 5]  # fmt: skip
    for _ in range(2):
        checkpoints = tmp_path / "run" / "checkpoints"
        before = storage.names(str(checkpoints))
        with Running(words, tmp_path / "said") as running:
            running.until(lambda: [name for name in storage.names(str(checkpoints)) if name not in before])  # noqa: B023
            assert ctrl_c(running) == [SAID]
    assert not (tmp_path / "run" / "DONE").exists()


@pytest.mark.slow
def test_a_rank_says_it_once_and_the_others_are_silent(tmp_path: Path):
    drawn(str(tmp_path / "clean"), 64, 2)
    words = ["torchrun", "--standalone", "--nproc-per-node", 2, "train/pretrain.py", "clip", "--preset", "tiny",
             "--epochs", 2000, "--dataset", tmp_path / "clean", "--out", tmp_path / "run", "--workers", 0,
             "--checkpoint-steps", 5]  # fmt: skip
    with Running(words, tmp_path / "said") as running:
        running.until(lambda: storage.names(str(tmp_path / "run" / "checkpoints")))
        before = len(running.text())
        ranks = [pid for pid in running.family() if pid != running.process.pid]
        for pid in ranks:
            os.kill(pid, signal.SIGINT)
        assert running.status() != 0
        gone(ranks)
    ours = running.text()[before:].split("torch/distributed")[0]  # torchrun has a report of its own
    assert ours.count("interrupted: ") == 1
    assert "KeyboardInterrupt" not in running.text()
