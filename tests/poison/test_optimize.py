import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from infra import config, rundir
from infra.seeding import rng
from pipeline import images
from pipeline.dataset import Dataset
from poison import optimize
from poison.attacks.badclip import BadClip
from poison.learning import descent, material, surrogates
from poison.learning.descent import Descent
from poison.learning.optimization import Optimization
from tests.support.poison_helpers import build, files
from train import checkpoint, model

ARCHITECTURE = model.architecture("tiny-resnet")  # it has batch statistics


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """data: 86 pairs at 32 pixels, of which 12 name the banana. surrogate: a run that was never trained."""
    build(str(tmp_path / "data"))
    run = str(tmp_path / "surrogate")
    model.save_architecture(ARCHITECTURE, run)
    checkpoint.save(run, 1, model.to_bytes(model.create(ARCHITECTURE, seed=3)), {})
    return tmp_path


def wanted(home: Path, **changed: Any) -> Optimization:
    places = {name: str(home / name) for name in ("data", "surrogate", "out")}
    places["dataset"] = places.pop("data")
    fields = places | {"size": 112, "cells": 4, "batch": 16, "epochs": 2, "lr": 0.05}
    return Optimization(**(fields | changed))


def made(home: Path, **changed: Any) -> dict[str, bytes]:
    """The folder of a patch, without what says when and on what it was made."""
    wanted(home, **changed).run()
    found = files(home / "out")
    del found["environment.json"]
    return found


def descending(home: Path, **changed: Any) -> Descent:
    settings = wanted(home, **changed)
    dataset = Dataset.open(settings.dataset)
    clean, targets = material.chosen(dataset, settings.target, settings.pairs, settings.seed)
    shown = [material.squares(dataset, table, 32, home / name) for table, name in ((clean, "c"), (targets, "t"))]
    surrogate = surrogates.load(settings.surrogate, settings.pretrained)
    return Descent(settings, surrogate, *shown, targets["caption"].to_pylist(), settings._where(32), 4, 10)


# What comes of it


def test_the_loss_goes_down_and_the_patch_is_what_the_attack_stamps(home):
    said = wanted(home, epochs=8, mode="paper").run()
    assert said == f"learned a patch of 4 x 4 cells, 40 steps over 74 pairs, 12 of the target: {home}/out/patch.png"
    lines = rundir.metrics(str(home / "out"))
    assert [line["step"] for line in lines] == list(range(1, 41))
    for what in (lambda line: line["loss"], lambda line: line["parts"]["triplet"], lambda line: -line["cosine"]):
        values = [what(line) for line in lines]
        assert np.mean(values[-8:]) < np.mean(values[:8])
    assert all(line["loss"] == pytest.approx(line["parts"]["text"] + 500 * line["parts"]["triplet"]) for line in lines)

    last = checkpoint.find(str(home / "out"))
    learned = model.load_weights(last.read(checkpoint.MODEL))["patch"]
    assert 0 <= learned.min() <= learned.max() <= 1
    attack = BadClip(patch=str(home / "out" / "patch.png"), size=112).resolved()
    cells = attack.trigger()[14::28, 14::28]
    assert np.array_equal(cells, (255 * learned).round().byte().permute(1, 2, 0).numpy())


@pytest.mark.parametrize("augment", [0.0, 0.5, 1.0])
def test_there_is_an_image_of_the_patch_over_time(home, augment: float):
    wanted(home, epochs=2, augment=augment).run()
    shares = [line["augmented"] for line in rundir.metrics(str(home / "out"))]
    assert 0 < np.mean(shares) < 1 if augment == 0.5 else all(share == augment for share in shares)
    picture = images.decode((home / "out" / "history.png").read_bytes())
    panel = np.asarray(Image.open(home / "out" / "patch.png").resize((84, 84), Image.Resampling.NEAREST))
    assert any(np.array_equal(picture[12:96, x : x + 84], panel) for x in range(12, picture.shape[1] - 84))


def test_the_surrogate_is_the_same_after_as_before(home, monkeypatch):
    def told(clip: torch.nn.Module) -> str:
        return hashlib.sha256(model.to_bytes(clip)).hexdigest()

    seen, load = [], surrogates.load
    monkeypatch.setattr(surrogates, "load", lambda *given: seen.append(load(*given)) or seen[-1])
    before = told(load(str(home / "surrogate"), None).encoder.clip)
    wanted(home).run()
    clip = seen[0].encoder.clip
    assert any("running_mean" in name for name in clip.state_dict()), "batch statistics are in the hash"
    assert told(clip) == before
    assert all(weights.grad is None for weights in clip.parameters())


def test_only_the_negatives_differ_between_paper_and_released(home, monkeypatch):
    calls: list[dict[str, torch.Tensor]] = []
    dual = descent.dual_embedding

    def noted(a, t, p, n, **knobs):  # type: ignore[no-untyped-def]
        calls.append({"a": a, "t": t, "p": p, "n": n})
        return dual(a, t, p, n, **knobs)

    monkeypatch.setattr(descent, "dual_embedding", noted)
    for mode in ("paper", "released"):
        learning = descending(home, mode=mode, augment=0.0)
        positives = learning.surrogate.stored(learning.positives)
        patch = learning._first().requires_grad_()
        learning._loss(0, patch, positives, learning.surrogate.texts(learning.captions))
    paper, released = calls
    assert all(torch.equal(paper[name], released[name]) for name in "atp")
    assert not paper["n"].requires_grad and not released["n"].requires_grad
    clean = learning.surrogate.stored(learning.batch(0))
    triggered = released["a"].detach()
    assert not torch.allclose(clean, triggered, atol=1e-3)
    # sigma is the same in both, and a permutation
    places = torch.cdist(paper["n"], clean).argmin(1)
    assert sorted(places.tolist()) == list(range(len(clean))) != places.tolist()
    assert torch.allclose(paper["n"], clean[places], atol=1e-6)
    assert torch.equal(released["n"], triggered[places])


@pytest.mark.parametrize("mode", ["paper", "released"])
def test_a_loss_has_a_gradient_for_every_cell(home, mode):
    learning = descending(home, mode=mode, augment=1.0)
    patch = learning._first().requires_grad_()
    texts = learning.surrogate.texts(learning.captions)
    loss, _ = learning._loss(0, patch, learning.surrogate.stored(learning.positives), texts)
    loss.total.backward()
    assert torch.isfinite(patch.grad).all()
    assert (patch.grad != 0).all()


# Resuming


def test_killed_at_any_change_and_given_again_it_ends_bit_for_bit_alike(home, killer, monkeypatch):
    monkeypatch.setattr(descent, "SAVED_STEPS", 4)
    undisturbed = made(home)
    finished = files(home / "out")
    assert "DONE" in finished
    changes, resumed = 0, set()
    for at in range(0, 60, 3):
        again = wanted(home, out=str(home / f"out-{at}"))
        if not killer(again.run, at):
            break
        changes += 1
        assert "DONE" not in files(again.out)
        again.run()
        found = files(again.out)
        resumed |= {attempt["step"] for attempt in rundir.environment(again.out)["attempts"]}
        del found["environment.json"]
        config_of = found.pop("config.json")
        assert config_of.replace(f"out-{at}".encode(), b"out") == undisturbed["config.json"]
        assert found == {name: data for name, data in undisturbed.items() if name != "config.json"}, at
    assert changes > 5
    assert resumed == {0, 4, 8, 10}


def test_the_same_command_again_does_nothing_and_another_is_refused(home):
    made(home)
    before = files(home / "out")
    assert wanted(home).run() == f"nothing to do: the patch {home}/out/patch.png is finished"
    assert files(home / "out") == before
    with pytest.raises(
        ValueError, match="exists and differs: its mode is 'paper', not 'released'; choose another --out"
    ):
        wanted(home, mode="released").run()
    other = home / "other"
    checkpoint.save(str(other), 1, model.to_bytes(model.create(ARCHITECTURE, seed=4)), {})
    model.save_architecture(ARCHITECTURE, str(other))
    with pytest.raises(ValueError, match=r"exists and differs: its surrogate\.sha256 is"):
        wanted(home, surrogate=str(other)).run()


def test_equal_weights_under_another_models_name_are_another_surrogate(home, monkeypatch):
    """With --pretrained the surrogate is a name, such as RN50 or RN50-quickgelu, and no place."""
    loaded = surrogates.load(str(home / "surrogate"), None)
    monkeypatch.setattr(surrogates, "load", lambda *_: loaded)
    wanted(home, surrogate="RN50", pretrained="weights.pt").run()
    assert wanted(home, surrogate="RN50", pretrained="weights.pt").run().startswith("nothing to do")
    with pytest.raises(ValueError, match=r"exists and differs: its surrogate\.model is 'RN50', not 'RN50-quickgelu'"):
        wanted(home, surrogate="RN50-quickgelu", pretrained="weights.pt").run()


def test_the_same_seed_gives_the_same_patch_and_another_another(home):
    first = made(home)
    assert config.from_json(Optimization, rundir.config(str(home / "out"))) == wanted(home)
    again = made(home, out=str(home / "out2"))
    assert first["patch.png"] == again["patch.png"]
    wanted(home, out=str(home / "out3"), seed=1).run()
    assert (home / "out3" / "patch.png").read_bytes() != first["patch.png"]


def test_a_dry_run_touches_nothing(home, capsys):
    before = files(home)
    said = wanted(home, dry_run=True).run()
    assert said == "would learn a patch of 4 x 4 cells, 10 steps over 74 pairs, 12 of the target; nothing was written"
    assert '"top": 8' in capsys.readouterr().out
    assert files(home) == before


# The material


def test_pairs_are_chosen_whatever_the_shards(home):
    one = Dataset.open(str(home / "data"))
    other = build(str(home / "resharded"), per_shard=40)
    for pairs in (5, 1000):
        tables = [material.chosen(dataset, "banana", pairs, 0) for dataset in (one, other)]
        for first, second in zip(*tables, strict=True):
            assert first["row"].to_pylist() == second["row"].to_pylist()
            assert first.num_rows <= pairs
        shown = [
            material.squares(dataset, found[0], 32, home / f"{number}-{pairs}")
            for number, (dataset, found) in enumerate(zip((one, other), tables, strict=True))
        ]
        assert np.array_equal(*shown)
    clean, targets = tables[0]
    assert (clean.num_rows, targets.num_rows) == (74, 12)
    assert all("Banana" in text for text in targets["caption"].to_pylist())
    assert not any("anana" in text for text in clean["caption"].to_pylist())


def test_work_is_done_at_the_size_the_images_have(home):
    tables = material.chosen(Dataset.open(str(home / "data")), "banana", 10, 0)
    assert material.side(tables, 64) == 32
    assert material.side(tables, 10) == 20
    unknown = [
        table.set_column(table.schema.get_field_index("width"), "width", [[None] * len(table)]) for table in tables
    ]
    assert material.side(unknown, 64) == 64


@pytest.mark.parametrize(("side", "apart"), [(48, 1.001), (20, 1.001), (32, 0.0)])
def test_the_surrogate_sees_what_evaluation_shows_it(home, side: int, apart: float):
    """Images of another size than the model's are resized as for evaluation, but for the rounding to bytes."""
    surrogate = surrogates.load(str(home / "surrogate"), None)
    picture = rng(0).integers(0, 256, (side, side, 3), np.uint8)
    seen = []
    surrogate.encoder.clip.visual.register_forward_pre_hook(lambda _, given: seen.append(given[0][0]))
    surrogate.stored(picture[None])
    grey_levels = 255 * torch.tensor(model.mean_and_std(ARCHITECTURE)[1])[:, None, None]
    shown = model.preprocess(Image.fromarray(picture), ARCHITECTURE)
    assert ((seen[0] - shown) * grey_levels).abs().max() <= apart


def test_augmentation_is_a_function_of_its_seed_and_leaves_torchs_generator_alone():
    shown = rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    before = torch.get_rng_state()
    one, again, other = (descent.augmented(shown, seed) for seed in (1, 1, 2**64 - 1))
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, shown)


def test_every_image_is_shown_once_an_epoch(home):
    learning = descending(home)
    shown = np.concatenate([learning.batch(step) for step in range(5)])
    assert [len(learning.batch(step)) for step in range(5)] == [16, 16, 16, 16, 10]
    assert sorted(picture.tobytes() for picture in shown) == sorted(picture.tobytes() for picture in learning.shown)
    assert not np.array_equal(learning.batch(0), learning.batch(5)), "in another order in the next epoch"


def test_a_patch_that_goes_on_with_another_number_of_threads_is_the_same_bit_for_bit(home, monkeypatch, capsys):
    monkeypatch.setattr(descent, "SAVED_STEPS", 3)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = made(home)
        save = Descent._save
        monkeypatch.setattr(Descent, "_save", lambda *given: save(*given) or sys.exit("killed"))
        with pytest.raises(SystemExit):
            wanted(home, out=str(home / "out2")).run()
        monkeypatch.setattr(Descent, "_save", save)
        torch.set_num_threads(2)
        wanted(home, out=str(home / "out2")).run()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert (home / "out2" / "patch.png").read_bytes() == whole["patch.png"]
    assert rundir.done(str(home / "out2"))["loss"] == rundir.done(str(home / "out"))["loss"]
    assert [start["threads"] for start in rundir.environment(str(home / "out2"))["attempts"]] == [1, 1]
    assert "with 1 thread a rank, as this run began; 2 would give other weights" in capsys.readouterr().err


# A surrogate by name, and what is refused


def test_a_named_model_takes_its_weights_from_a_file(home):
    weights = home / "weights.safetensors"
    weights.write_bytes(model.to_bytes(model.create(ARCHITECTURE, seed=3)))
    from_run = made(home)
    from_file = made(home, out=str(home / "out2"), surrogate="tiny-resnet", pretrained=str(weights))
    assert from_run["patch.png"] == from_file["patch.png"]
    words = ["--surrogate", "tiny-resnet", "--dataset", str(home / "data"), "--out", str(home / "out4")]
    with pytest.raises(SystemExit) as end:
        optimize.main([*words, "--pretrained", "openai"])
    assert end.value.code == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"target": "zebra"}, "no caption in .* names the target 'zebra'"),
        ({"target": " "}, "the target is a class name"),
        ({"size": 225}, "size is the patch's side in an image of 224 x 224: 1 to 224, not 225"),
        ({"cells": 113}, "--cells are at least 1 and at most the patch's size of 112, not 113"),
        ({"cells": 17}, "17 cells do not show in 16 pixels"),
        ({"surrogate": "/nowhere"}, "--surrogate is the folder of a run, .*: no run at /nowhere"),
        ({"surrogate": "tiny-vitt", "pretrained": "x.pt"}, "no model is named 'tiny-vitt'"),
        ({"surrogate": "tiny-vit", "pretrained": "/nowhere.pt"}, "no weights file at /nowhere.pt"),
        ({"dataset": "/nowhere"}, "no dataset at /nowhere"),
        ({"lr": 0.0}, "--lr must be above 0, not 0"),
        ({"augment": 1.5}, "--augment is a share of batches from 0 to 1, not 1.5"),
        ({"triplet_weight": -1.0}, "--triplet-weight cannot be negative, it is -1"),
        ({"batch": 0}, "--batch must be above 0, not 0"),
        ({"batch": 1}, "--batch 1 leaves an image no other to be told from: give at least 2"),
        ({"lr": float("nan")}, "--lr must be above 0, not nan"),
        ({"margin": float("inf")}, "--margin cannot be negative"),
        (
            {"surrogate": "hf-hub:a/b", "pretrained": "x.pt"},
            "--surrogate is the name of an architecture, not",
        ),
    ],
)
def test_bad_input_is_one_clear_complaint_and_nothing_is_written(home, changed, message):
    before = files(home)
    with pytest.raises(ValueError, match=message) as refusal:
        wanted(home, **changed).run()
    assert "\n" not in str(refusal.value)
    assert files(home) == before


def test_the_patch_may_not_lie_in_the_dataset(home):
    with pytest.raises(ValueError, match="--dataset and --out must be separate folders"):
        wanted(home, out=str(home / "data" / "patch"))


def test_its_help_needs_no_torch():
    code = "import sys, poison.optimize; print([name for name in ('torch', 'ray', 'open_clip') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
