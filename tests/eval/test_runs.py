import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from eval.judging.roles import role
from eval.reporting import provenance
from eval.store import runs
from infra import storage
from tests.support.drawn import drawn
from tests.support.eval_helpers import finished_run, some_run
from train import checkpoint, pretrain


def test_a_run_is_read_with_its_lineage_of_digests(tmp_path: Path) -> None:
    train, clean = drawn(f"{tmp_path}/train", 12, 1), drawn(f"{tmp_path}/clean", 12, 1, first=12)
    first = finished_run(f"{tmp_path}/runs/first", train)
    second = finished_run(f"{tmp_path}/runs/second", clean, start=first, objective="cleanclip")
    third = finished_run(f"{tmp_path}/runs/third", clean, start=second, objective="mmcl", seed=4)
    run = runs.read(third, f"{tmp_path}/scores")
    assert (run.name, run.key, run.objective, run.seed) == ("third", "../runs/third", "mmcl", 4)
    assert [step.name for step in run.ancestors] == ["second", "an earlier run"]
    assert [step.dataset_digest for step in run.ancestors] == [clean.digest, train.digest]
    assert run.ancestors[1].weights_sha256 == runs.read(first, str(tmp_path)).weights_sha256
    assert run.losses == tuple((float(step), 3.0 / step) for step in range(1, 6))
    assert run.version == f"step-0000005@{run.weights_sha256[:12]}"


def test_a_file_of_weights_that_a_run_began_with_is_one_of_unknown_data(tmp_path: Path) -> None:
    train, weights = drawn(f"{tmp_path}/train", 12, 1), f"{tmp_path}/theirs.safetensors"
    base = ["clip", "--preset", "tiny", "--model", "tiny-vit", "--epochs", "1", "--batch", "4", "--workers", "0"]
    assert pretrain.main([*base, "--dataset", train.url, "--out", f"{tmp_path}/first"]) == 0
    Path(weights).write_bytes(checkpoint.find(f"{tmp_path}/first").read(checkpoint.MODEL))
    assert pretrain.main([*base, "--dataset", train.url, "--out", f"{tmp_path}/on", "--pretrained", weights]) == 0
    run = runs.read(f"{tmp_path}/on", f"{tmp_path}/scores")
    assert run.known
    assert [(step.name, step.known) for step in run.ancestors] == [("theirs.safetensors", False)]
    assert role(run, None).kind == "unknown"


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    url = finished_run(f"{tmp_path}/run", drawn(f"{tmp_path}/train", 12, 1))
    storage.remove(f"{url}/DONE")
    with pytest.raises(ValueError, match="is not finished"):
        runs.read(url, str(tmp_path))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no run at"):
        runs.read(f"{tmp_path}/nothing", str(tmp_path))


def test_a_missing_checkpoint_is_refused_with_those_there_are(tmp_path: Path) -> None:
    url = finished_run(f"{tmp_path}/run", drawn(f"{tmp_path}/train", 12, 1))
    with pytest.raises(ValueError, match="no checkpoint 'step-0000001'; it has: step-0000005"):
        runs.read(url, str(tmp_path), "step-0000001")


def test_runs_of_one_name_are_told_apart_by_place_and_checkpoint() -> None:
    first, second, other = some_run("a", "x"), some_run("a", "x"), some_run("b", "x")
    first = replace(first, key="../seed0/a")
    second = replace(second, key="../seed1/a")
    later = replace(second, checkpoint="step-0000009")
    names = [run.name for run in runs.named_apart([first, second, later, other])]
    assert names == ["seed0/a", "seed1/a step-0000005", "seed1/a", "b"]


def test_the_command_shown_is_the_one_that_the_last_start_kept() -> None:
    first = {"step": 0, "command": ["train/pretrain.py", "clip", "--out", "runs/a"]}
    last = {"step": 3, "command": ["train/finetune.py", "mmcl", "--dataset", "data/clean set", "--out", "runs/b"]}
    run = replace(some_run("b", "x"), attempts=(first, last))
    assert (
        dict(provenance.run_facts(run))["command"] == "train/finetune.py mmcl --dataset 'data/clean set' --out runs/b"
    )


def test_of_a_run_that_kept_no_command_none_is_made_up() -> None:
    for attempts in ((), ({"step": 0, "ranks": 1},)):
        run = replace(some_run("b", "x"), attempts=attempts)
        assert dict(provenance.run_facts(run))["command"] == "not recorded"


def test_the_command_that_training_keeps_is_the_one_that_a_report_shows(tmp_path: Path) -> None:
    drawn(f"{tmp_path}/data", 40, 2)
    words = ["clip", "--dataset", f"{tmp_path}/data", "--preset", "tiny", "--workers", "0", "--out", f"{tmp_path}/run"]
    assert pretrain.main(words) == 0
    shown = dict(provenance.run_facts(runs.read(f"{tmp_path}/run", f"{tmp_path}/scores")))["command"]
    assert shlex.split(shown) == ["antidote", "pretrain", *words]
