"""A run that learns from labelled images: its labels, what moves, and that stopping changes nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from defense.objectives.supervised import Supervised
from infra import rundir
from pipeline.dataset import Dataset
from tests.support.drawn import drawn, labelled
from tests.support.learning import stream
from tests.support.stopping import stop
from train import checkpoint, model
from train.objectives.clip import Clip
from train.presets import PRESETS
from train.training import Finetuning, Pretraining

RECIPE = replace(PRESETS["tiny"].recipe, epochs=3, lr=3e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Pairs, labelled images, and a run on the pairs."""
    found = tmp_path_factory.mktemp("classifier")
    drawn(str(found / "pairs"), 20, 1)
    labelled(str(found / "labelled"), 40, first=20)
    fields = {"dataset": str(found / "pairs"), "out": str(found / "start"), "model": "tiny-vit", "workers": 0}
    Pretraining(objective=Clip(), recipe=replace(RECIPE, epochs=1), **fields).run()  # type: ignore[arg-type]
    return found


def supervised(folder: Path, out: Path, **changed: object) -> Finetuning:
    fields = {
        "objective": Supervised(),
        "dataset": str(folder / "labelled" / "train"),
        "pretrained": str(folder / "start"),
        "out": str(out),
        "recipe": RECIPE,
        "workers": 0,
        "checkpoint_steps": 2,
    }
    return Finetuning(**(fields | changed))  # type: ignore[arg-type]


def end(out: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(weights of the model, of the head) at a run's end."""
    found = checkpoint.find(str(out))
    return model.load_weights(found.read(checkpoint.MODEL)), found.read_training()["objective"]


def test_every_image_comes_with_its_label_and_pairs_have_none(folder):
    place = str(folder / "labelled" / "train")
    index = Dataset.open(place, labelled=True).index_of_samples(["row", "label"]).to_pylist()
    known = {line["row"]: line["label"] for line in index}
    assert set(known.values()) == {0, 1, 2, 3}
    seen = 0
    for batch in stream(place, Supervised(), batch=8).epoch(0):
        assert batch["labels"].tolist() == [known[row] for row in batch["rows"].tolist()]
        assert batch["texts"] == {}
        seen += len(batch["rows"])
    assert seen == 40
    assert {
        label for batch in stream(str(folder / "pairs"), Clip(), batch=4).epoch(0) for label in batch["labels"].tolist()
    } == {-1}


def test_a_run_that_was_stopped_ends_with_the_same_tower_and_head_bit_for_bit(folder, tmp_path):
    whole, broken = supervised(folder, tmp_path / "whole"), supervised(folder, tmp_path / "broken")
    whole.run()
    stop(broken, 4)
    broken.run()
    assert [attempt["step"] for attempt in rundir.environment(broken.out)["attempts"]] == [0, 2]
    for ours, theirs in zip(end(tmp_path / "whole"), end(tmp_path / "broken"), strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_the_image_tower_and_the_head_learn_and_nothing_else_moves(folder, tmp_path):
    supervised(folder, tmp_path / "run").run()
    (before, _), (after, head) = end(folder / "start"), end(tmp_path / "run")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith("visual.") for name in moved)
    assert {name: tuple(value.shape) for name, value in head.items()} == {"weight": (4, 16), "bias": (4,)}
    losses = [line["loss"] for line in rundir.metrics(str(tmp_path / "run"))]
    assert losses[-1] < losses[0]
    assert rundir.environment(str(tmp_path / "run"))["inputs"]["dataset"]["classes"] == ["car", "house", "fish", "cup"]


def test_pairs_are_refused_before_anything_is_written(folder, tmp_path):
    with pytest.raises(ValueError, match="no labelled images at"):
        supervised(folder, tmp_path / "run", dataset=str(folder / "pairs")).run()
    assert not (tmp_path / "run").exists()
