import json
import platform
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from defense.objectives.cleanclip import CleanClip
from defense.objectives.mmcl import Mmcl
from defense.objectives.roclip import RoClip
from defense.objectives.safeclip import SafeClip
from infra import config, plugins, rundir, storage
from infra.errors import Damaged
from pipeline import leaving
from pipeline.dataset import Dataset
from poison.attacks.badnet import BadNet
from poison.writing.injection import Injection
from tests.support.drawn import drawn, labelled
from tests.support.learning import objective
from train import checkpoint, entry, finetune, model, online, presets, pretrain
from train.objective import Objective
from train.objectives.clip import Clip
from train.presets import PRESETS, Recipe
from train.training import Finetuning, Pretraining

TINY = PRESETS["tiny"].recipe


@pytest.fixture
def data(tmp_path) -> str:
    drawn(str(tmp_path / "data"), 40, 2)
    return str(tmp_path / "data")


def pretraining(data: str, **changed: object) -> Pretraining:
    out = str(Path(data).parent / "run")
    fields = {"objective": Clip(), "dataset": data, "out": out, "model": "tiny-vit", "recipe": TINY, "workers": 0}
    return Pretraining(**(fields | changed))  # type: ignore[arg-type]


# Configuration


def test_a_run_is_its_configuration_read_back(data):
    run = pretraining(data, objective=CleanClip(inmodal_weight=2.0), checkpoint_steps=3)
    run.run()
    assert config.from_json(Pretraining, rundir.config(run.out)) == run
    cure = Finetuning(objective=Mmcl(), pretrained=run.out, dataset=data, out=run.out + "2", recipe=TINY, workers=0)
    cure.run()
    assert config.from_json(Finetuning, rundir.config(cure.out)) == cure


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_names_a_model_that_exists_and_a_recipe_that_holds(name):
    preset = presets.pick(name)
    assert preset.model is None or model.architecture(preset.model)
    assert config.from_json(Recipe, config.to_json(preset.recipe)) == preset.recipe
    assert presets.for_finetuning(name) == {"preset": name, "recipe": preset.recipe}


def test_the_papers_numbers_are_in_the_presets():
    """Defaults of CleanCLIP's code for RN50 on CC3M, and its finetuning with a warm-up that really takes place."""
    assert presets.pick("rn50-cc3m").model == "RN50-quickgelu"
    assert presets.pick("rn50-cc3m").recipe == Recipe(batch=128, epochs=64, lr=5e-4, warmup_steps=10_000)
    assert presets.pick("rn50-finetune").recipe == Recipe(batch=64, epochs=10, lr=1e-5, warmup_steps=50)
    classifier = Recipe(batch=80, epochs=10, lr=1e-4, warmup_steps=500, weight_decay=0.01)
    assert presets.pick("rn50-supervised").recipe == classifier


def test_the_entries_defaults_are_those_of_their_default_presets():
    for kind, given in ((Pretraining, presets.for_pretraining), (Finetuning, presets.for_finetuning)):
        defaults = kind.__dataclass_fields__
        wanted = given(defaults["preset"].default)
        assert defaults["recipe"].default_factory() == wanted["recipe"]
        assert kind is Finetuning or defaults["model"].default == wanted["model"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "tiny-vitt"}, "no model is named 'tiny-vitt': perhaps you meant tiny-vit"),
        ({"workers": -1}, "workers cannot be negative, it is -1"),
        ({"cache_gib": 0.0}, "cache_gib must be above 0, not 0.0"),
        ({"checkpoint_steps": 0}, "checkpoint_steps must be above 0"),
        ({"micro_batch": 0}, "micro_batch must be above 0, not 0"),
        ({"recipe": replace(TINY, batch=1)}, "a batch of 1 has no other pair to tell its own from: set --batch to at "),
        ({"model": "local-dir:there"}, "--model is the name of an architecture, not 'local-dir:there': name the archi"),
        ({"model": "hf-hub:a/b"}, "not 'hf-hub:a/b': nothing is downloaded; fetch the file of weights yourself, name"),
    ],
)
def test_settings_that_make_no_sense_are_refused_when_they_are_made(data, changed, message):
    with pytest.raises(ValueError, match=message):
        pretraining(data, **changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch": 0}, "batch must be above 0, not 0"),
        ({"epochs": -1}, "epochs must be above 0"),
        ({"lr": float("nan")}, "lr must be above 0, not nan"),
        ({"warmup_steps": -1}, "warmup_steps cannot be negative"),
        ({"weight_decay": -0.1}, "weight_decay cannot be negative"),
        ({"grad_clip": 0.0}, "grad_clip must be above 0, not 0.0"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changed)


# Bad input: one line, nothing written


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dataset": "nowhere/at/all"}, "no dataset at .*nowhere/at/all"),
        ({"recipe": replace(TINY, batch=64)}, "40 samples, less than one batch of 64: set --batch lower"),
        ({"recipe": replace(TINY, warmup_steps=4)}, "warmup_steps is 4 of 4 steps in all: set --warmup-steps lower"),
        ({"pretrained": "nowhere.pt"}, "no weights file at nowhere.pt"),
        ({"pretrained": __file__}, "test_training.py is not a plain file of weights"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(data, changed, message):
    run = pretraining(data, **changed)
    with pytest.raises(ValueError, match=message) as found:
        run.run()
    assert "\n" not in str(found.value)
    assert not Path(run.out).exists()


@pytest.mark.parametrize(
    ("what", "short", "message"),
    [
        (RoClip(match_every=3), 2, "first matches in epoch 3 .*, and the run has 2: .*--match-every lower"),
        (SafeClip(inmodal_epochs=2, slow_epochs=1), 3, "divides the pairs after 3 epochs .*, and the run has 3"),
    ],
)
def test_a_run_that_would_end_before_its_defence_begins_is_refused(data, what, short, message):
    with pytest.raises(ValueError, match=message):
        pretraining(data, objective=what, recipe=replace(TINY, epochs=short))
    pretraining(data, objective=what, recipe=replace(TINY, epochs=short + 1))


def test_shards_that_do_not_fit_the_cache_are_refused_before_anything_is_written(data):
    url = f"memory://training-{Path(data).parent.name}"
    drawn(url, 40, 2)
    run = pretraining(data, dataset=url, cache_gib=1e-9)
    with pytest.raises(ValueError, match=r"set --cache-gib to at least 0\.1"):
        run.run()
    assert not Path(run.out).exists()


def test_an_incomplete_dataset_is_refused(data):
    Path(data, "dataset.json").unlink()
    with pytest.raises(ValueError, match="is not complete"):
        pretraining(data).run()


def test_a_batch_that_the_ranks_do_not_divide_is_refused_before_anything_is_written(data, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="batch of 16 cannot be divided among 3 ranks: set --batch to a multiple of 3"):
        pretraining(data, dry_run=True).run()


RESNET = {"model": "tiny-resnet"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"micro_batch": 5},
            r"--micro-batch 5 does not divide a rank's 16 pairs \(a batch of 16 on 1 ranks\): set it to 4",
        ),
        (RESNET | {"micro_batch": 8}, "--micro-batch would give the BatchNorm of the image tower other statistics"),
        (
            RESNET | {"micro_batch": 8, "recipe": replace(TINY, lock="text")},
            r"keep that tower at rest \(--lock image\)",
        ),
        ({"precision": "float16"}, "--precision float16 needs a GPU: set float32 or bfloat16"),
        ({"sync_batchnorm": True}, "--sync-batchnorm is for a BatchNorm that learns, and this run has none"),
        (RESNET | {"sync_batchnorm": True, "recipe": replace(TINY, lock="image")}, "a BatchNorm that learns"),
        (
            {"objective": RoClip(), "recipe": replace(TINY, lock="image")},
            "with --lock image no tower would learn in epoch 2 of this objective: leave it out",
        ),
        ({"wandb": "project"}, "--wandb needs a package that is not installed: pip install wandb"),
    ],
)
def test_ways_of_training_that_cannot_be_had_are_one_line_and_leave_nothing(data, changed, message, monkeypatch):
    monkeypatch.setattr(online.importlib.util, "find_spec", lambda _: None)
    for dry_run in (True, False):
        run = pretraining(data, dry_run=dry_run, **changed)
        with pytest.raises(ValueError, match=message) as found:
            run.run()
        assert "\n" not in str(found.value)
        assert not Path(run.out).exists()


def test_a_micro_batch_may_be_had_where_a_batchnorm_is_at_rest(data):
    line = pretraining(data, model="tiny-resnet", micro_batch=8, recipe=replace(TINY, lock="image"), dry_run=True).run()
    assert line.startswith("dry run: would take 4 steps")


@pytest.mark.parametrize("kind", [Pretraining, Finetuning])
def test_help_shows_a_dozen_flags_beside_the_objectives_own(kind, capsys):
    def shown(flag: str) -> tuple[set[str], str]:
        assert (pretrain if kind is Pretraining else finetune).main(["clip", flag]) == 0
        said = capsys.readouterr().out
        return set(re.findall(r"^[│| ]+(--[a-z][a-z-]+)", said, re.MULTILINE)) - {"--help"}, said

    few, said = shown("--help")
    assert {"--dataset", "--batch", "--micro-batch", "--lr", "--workers", "--dry-run"} <= few
    assert len(few) <= 12
    every, _ = shown("--help-all")
    assert few < every and {"--precision", "--lock", "--grad-clip", "--compile", "--warmup-steps", "--wandb"} <= every
    assert f"{len(every - few)} more flags, seldom needed: --help-all" in said
    assert shown("--help")[0] == few


def test_a_flag_that_help_leaves_out_is_a_flag(data):
    words = ["--dataset", data, "--out", data + "-run", "--preset", "tiny", "--workers", "0"]
    more = ["--grad-clip", "1", "--lock", "text", "--precision", "bfloat16", "--local-loss", "--warmup-steps", "2"]
    assert pretrain.main(["clip", *words, *more]) == 0
    found = rundir.config(data + "-run")
    assert (found["precision"], found["local_loss"]) == ("bfloat16", True)
    assert (found["recipe"]["lock"], found["recipe"]["grad_clip"], found["recipe"]["warmup_steps"]) == ("text", 1.0, 2)


def test_what_is_measured_is_told_to_weights_and_biases_where_that_is_asked_for(data, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = pretraining(data, wandb="antidote")
    run.run()
    assert len(rundir.metrics(run.out)) == 4
    (kept,) = Path(run.out, "wandb").glob("offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 60  # a process of theirs writes it
    while (told := kept.read_bytes()).count(b"train/loss") < 4 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert told.count(b"train/loss") >= 4 and b"antidote" in told
    for word in (sys.executable, platform.release()):
        assert word.encode() not in told


def test_an_output_that_exists_and_differs_is_refused(data):
    run = pretraining(data)
    run.run()
    before = storage.read(f"{run.out}/config.json")
    for changed, message in (
        ({"seed": 1}, "its seed is 0, not 1"),
        ({"objective": CleanClip()}, "its objective.caption_views is None, not 'fresh'"),
        ({"recipe": replace(TINY, lr=1.0)}, "its recipe.lr is 0.001, not 1.0"),
    ):
        with pytest.raises(ValueError, match=f"exists and differs: {message}"):
            replace(run, **changed).run()
    drawn(data + "2", 40, 2, seed=7)
    with pytest.raises(ValueError, match=r"its dataset\.digest is"):
        replace(run, dataset=data + "2").run()
    assert storage.read(f"{run.out}/config.json") == before
    assert "nothing to do" in replace(run, workers=1, checkpoint_steps=1).run()
    with pytest.raises(ValueError, match="not a run of ours"):
        replace(run, out=data + "2").run()


def test_a_run_keeps_as_many_checkpoints_as_it_is_told_to_and_may_be_told_otherwise_later(data):
    run = pretraining(data, checkpoint_steps=1, keep_checkpoints=0)
    run.run()
    steps = [found.step for found in checkpoint.whole(run.out)]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) > 2
    assert rundir.config(run.out)["keep_checkpoints"] == 0
    assert "nothing to do" in replace(run, keep_checkpoints=2).run()
    plain = pretraining(data, out=run.out + "2", checkpoint_steps=1)
    plain.run()
    assert [found.step for found in checkpoint.whole(plain.out)] == steps[-2:]
    assert "keep_checkpoints" not in rundir.config(plain.out), "a run of before there was such a flag goes on"
    with pytest.raises(ValueError, match=r"^keep_checkpoints is a number of checkpoints, or 0 for all, not -1$"):
        pretraining(data, keep_checkpoints=-1)


def test_out_may_not_be_the_dataset_or_the_start(data):
    with pytest.raises(ValueError, match="out and dataset are the same folder"):
        pretraining(data, out=data + "/")
    with pytest.raises(ValueError, match="out and pretrained are the same folder"):
        Finetuning(objective=Mmcl(), pretrained="runs/a", dataset=data, out="runs/../runs/a/", recipe=TINY)


def test_a_dry_run_says_the_plan_and_touches_nothing(data, capsys, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    line = pretraining(data, dry_run=True).run()
    assert line.startswith("dry run: would take 4 steps of 16 pairs (2 epochs of 40) with 801,313 parameters, into ")
    assert json.loads(capsys.readouterr().out)["model"] == "tiny-vit"
    assert sorted(tmp_path.rglob("*")) == before


def test_a_batch_of_one_labelled_image_may_be_learned_from(data):
    first = pretraining(data)
    first.run()
    pictures, recipe = labelled(data + "-labelled", 4), replace(TINY, batch=1, epochs=1)
    what = {"objective": objective("supervised"), "dataset": pictures, "pretrained": first.out}
    assert "4 steps" in Finetuning(**what, out=first.out + "2", recipe=recipe, workers=0).run()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["lr", "weight_decay", "beta1", "eps", "cache_gib", "checkpoint_seconds"])
def test_a_number_that_is_not_finite_is_refused_before_anything_is_written(data, name, value):
    changed = {name: value} if name not in Recipe.__dataclass_fields__ else {}
    recipe = {name: value} if name in Recipe.__dataclass_fields__ else {}
    with pytest.raises(ValueError, match=f"{name} .*{value}"):
        pretraining(data, recipe=replace(TINY, **recipe), **changed).run()
    assert not Path(data).with_name("run").exists()


# Starting points


def test_a_dry_run_looks_at_the_weights_too(data, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"x": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=f"{path} does not fit model tiny-vit: it lacks"):
        pretraining(data, pretrained=str(path), dry_run=True).run()
    first = pretraining(data)
    first.run()
    cure = {"objective": Mmcl(), "pretrained": first.out, "dataset": data, "recipe": TINY, "workers": 0}
    Finetuning(**cure, out=data + "-cured", dry_run=True).run()
    damaged = max(Path(first.out, "checkpoints").glob("step-*")) / checkpoint.MODEL
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(Damaged, match="is damaged"):
        Finetuning(**cure, out=data + "-cured", dry_run=True).run()


def test_what_the_weights_do_not_say_is_in_the_last_line(data, tmp_path, capsys):
    torch.save(model.create(model.architecture("tiny-vit"), 9).state_dict(), tmp_path / "weights.pt")
    run = pretraining(data, pretrained=str(tmp_path / "weights.pt"))
    told = f"{run.pretrained} does not say whether it was trained with QuickGELU: --model tiny-vit says without"
    assert replace(run, dry_run=True).run().endswith(f"; {told}")
    assert run.run().endswith(f"; {told}")
    assert capsys.readouterr().err.count(f"warning: {told}\n") == 1


@pytest.mark.parametrize("content", [{}, [], {"model_cfg": {}}])
def test_a_run_whose_architecture_is_damaged_is_damage(data, content):
    run = pretraining(data)
    run.run()
    storage.write_json(f"{run.out}/open_clip/open_clip_config.json", content)
    with pytest.raises(Damaged, match=r"open_clip_config\.json is damaged"):
        model.load_run(run.out)


def test_weights_of_another_architecture_than_the_runs_are_damage(data):
    run = pretraining(data)
    run.run()
    model.save_architecture(model.architecture("tiny-resnet"), run.out)
    with pytest.raises(Damaged, match=r"not those of the architecture in open_clip/: .*Missing key") as found:
        model.load_run(run.out)
    assert "\n" not in str(found.value)


def test_pretraining_starts_from_weights_of_open_clip(data, tmp_path):
    torch.save(model.create(model.architecture("tiny-vit"), 9).state_dict(), tmp_path / "weights.pt")
    run = pretraining(data, pretrained=str(tmp_path / "weights.pt"), recipe=replace(TINY, lr=1e-12, weight_decay=0.0))
    run.run()
    wanted = model.create(model.architecture("tiny-vit"), 9).state_dict()
    found = model.load_run(run.out).model.state_dict()
    assert all(torch.allclose(found[name], wanted[name], atol=1e-6) for name in wanted)
    assert len(rundir.environment(run.out)["inputs"]["pretrained"]["sha256"]) == 64


def test_finetuning_starts_from_the_runs_weights_with_a_fresh_optimiser(data):
    first = pretraining(data)
    first.run()
    still = replace(TINY, lr=1e-12, weight_decay=0.0, epochs=1)
    cure = Finetuning(
        objective=Mmcl(), pretrained=first.out, dataset=data, out=first.out + "2", recipe=still, workers=0
    )
    assert "2 steps" in cure.run()
    one, two = (model.load_run(url).model.state_dict() for url in (first.out, cure.out))
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)
    optimizer = checkpoint.find(cure.out).read_training()["optimizer"]
    assert {float(state["step"]) for state in optimizer["state"].values()} == {2.0}
    start = rundir.environment(cure.out)["inputs"]["pretrained"]
    assert start["sha256"] == rundir.done(first.out)["sha256"]
    assert start["inputs"]["dataset"]["digest"] == Dataset.open(data).digest


def test_a_run_that_is_missing_or_unfinished_is_no_start(data):
    cure = Finetuning(
        objective=Mmcl(), pretrained=data + "-none", dataset=data, out=data + "-cured", recipe=TINY, workers=0
    )
    with pytest.raises(ValueError, match="no run at"):
        cure.run()
    first = pretraining(data)
    first.run()
    Path(first.out, "DONE").unlink()
    with pytest.raises(ValueError, match="is not finished: run its command again"):
        replace(cure, pretrained=first.out).run()
    assert not Path(cure.out).exists()


# The entries


def test_the_commands_make_a_run_and_a_run_from_it(data, capsys):
    runs = [str(Path(data).parent / name) for name in ("r1", "r2")]
    words = ["--dataset", data, "--preset", "tiny", "--workers", "0"]
    assert pretrain.main(["clip", *words, "--out", runs[0]]) == 0
    assert capsys.readouterr().out.strip().startswith(f"4 steps; run at {runs[0]}")
    cure = ["cleanclip", *words, "--pretrained", runs[0], "--out", runs[1], "--inmodal-weight", "2", "--lr", "1e-4"]
    assert finetune.main(cure) == 0
    found = rundir.config(runs[1])
    wanted = {"plugin": "cleanclip", "inmodal_weight": 2.0, "clip_weight": 1.0, "caption_views": "fresh"}
    assert found["objective"] == wanted
    assert (found["recipe"]["lr"], found["recipe"]["batch"]) == (1e-4, 16)
    assert pretrain.main(["clip", *words, "--out", runs[0]]) == 0
    assert "nothing to do" in capsys.readouterr().out


def commands(url: str) -> list[list[str] | None]:
    return [attempt.get("command") for attempt in rundir.environment(url)["attempts"]]


def test_a_run_keeps_the_command_of_every_start_word_for_word(data, monkeypatch):
    out = str(Path(data).parent / "run")
    words = ["clip", "--dataset", data, "--preset=tiny", "--workers", "0", "--out", out]
    assert pretrain.main(words) == 0
    assert commands(out) == [["antidote", "pretrain", *words]], "as `antidote pretrain` calls it"
    Path(out, "DONE").unlink()
    more = [*words, "--checkpoint-steps", "2"]
    monkeypatch.setattr(sys, "argv", ["/a/place/on/this/machine/train/pretrain.py", *more])
    assert pretrain.main() == 0
    assert commands(out) == [["antidote", "pretrain", *words], ["train/pretrain.py", *more]], "as a script"
    assert "/a/place" not in Path(out, "environment.json").read_text()
    cure = ["mmcl", "--pretrained", out, "--dataset", data, "--preset", "tiny", "--workers", "0", "--out", out + "2"]
    assert finetune.main(cure) == 0
    assert commands(out + "2") == [["antidote", "finetune", *cure]]


def test_a_run_that_no_command_started_keeps_none(data):
    run = pretraining(data)
    run.run()
    assert commands(run.out) == [None]


@pytest.mark.parametrize("flag", ["--dataset", "--out"])
@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("url", ["s3://key:hidden@bucket/x", "https://key:hidden@host/x"])
def test_a_command_that_holds_credentials_is_refused_unsaid_and_kept_nowhere(data, capsys, flag, joined, url):
    """Of a flag that is given twice the last value counts, and nothing opens the first."""
    out = str(Path(data).parent / "run")
    first = [f"{flag}={url}"] if joined else [flag, url]
    assert pretrain.main(["clip", *first, "--dataset", data, "--preset", "tiny", "--workers", "0", "--out", out]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert "hidden" not in said.out + said.err
    assert not Path(out).exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["clup"], "no objective is named 'clup' (perhaps you meant 'clip'); there are: "),
        (["clip", "--preset", "dmo"], "no preset is named 'dmo' (perhaps you meant 'demo'); there are: tiny, "),
        (["clip", "--preset", "rn50-finetune"], "preset rn50-finetune names no model: it is for finetuning"),
        (["clip", "--preset", "tiny", "--model", "ViT-B32"], "no model is named 'ViT-B32': perhaps you meant ViT-B-32"),
        (["clip", "--preset", "tiny", "--weight-decay", "nan"], "weight_decay must be a finite number, not nan"),
        (["clip", "--preset", "tiny", "--lr", "inf"], "lr must be a finite number, not inf"),
        (
            ["cleanclip", "--preset", "tiny", "--inmodal-weight", "nan"],
            "inmodal_weight must be a finite number, not nan",
        ),
        (["clip", "--preset", "tiny", "--batch", "1"], "a batch of 1 has no other pair to tell its own from"),
        (["clip", "--preset", "tiny", "--batch", "1000"], "less than one batch of 1,000: set --batch lower"),
    ],
)
def test_bad_words_are_answered_in_one_line_with_status_2(data, capsys, words, message):
    out = str(Path(data).parent / "new")
    assert pretrain.main([*words, "--dataset", data, "--out", out]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert not Path(out).exists()


def test_damage_is_one_line_with_status_1(data, capsys):
    tar = min(Path(data, "shards").iterdir())
    tar.write_bytes(tar.read_bytes()[:-1])
    assert pretrain.main(["clip", "--preset", "tiny", "--dataset", data, "--out", data + "-run"]) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("error: shard 0 has ")


def test_only_rank_0_speaks(data, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(entry, "PATIENCE", 0.0)
    assert pretrain.main(["clup", "--dataset", data, "--out", data + "-run"]) == 2
    said = capsys.readouterr()
    assert said.out + said.err == ""


def test_a_run_says_of_which_datasets_its_own_is_a_part_and_whether_a_filter_left_it(data):
    parent = Dataset.open(data)
    pairs = pa.table({"shard": [0], "row": [parent.index_of_samples(["row"])["row"][0].as_py()], "reason": ["x"]})
    pairs = pairs.set_column(0, "shard", pairs["shard"].cast(pa.int32()))
    others = pairs.set_column(1, "row", pa.array([parent.index_of_samples(["row"])["row"][1].as_py()]))
    for by, told in (("filter", "filtered_from"), ("verify", "part_of")):
        made = leaving.leave_out(parent, pairs, f"{data}-{by}", {by: {}})
        learned = pretraining(made.url).job().inputs["dataset"]
        assert {name: learned[name] for name in ("filtered_from", "part_of") if name in learned} == {
            told: [parent.digest]
        }
        mended = leaving.leave_out(made, others, f"{data}-{by}-mended", {"verify": {}})
        assert pretraining(mended.url).job().inputs["dataset"][told] == [made.digest, parent.digest]


# No training run sees a ledger


def test_pretraining_and_finetuning_by_any_objective_never_touch_a_ledger(data, tmp_path, watched):
    places = {"dataset": data, "out": str(tmp_path / "poisoned"), "ledger": str(tmp_path / "ledger")}
    Injection(attack=BadNet(target="car"), **places, budget=8, backend="local").run()
    drawn(str(tmp_path / "clean"), 32, 2, first=100)
    watched.forbidden.append(str(tmp_path / "ledger"))
    with pytest.raises(AssertionError, match="the ledger was opened"):
        (tmp_path / "ledger" / "attack.json").read_text()
    with pytest.raises(AssertionError, match="the ledger was opened"):
        storage.read(str(tmp_path / "ledger" / "attack.json"))
    first = pretraining(str(tmp_path / "poisoned"))
    first.run()
    assert rundir.environment(first.out)["inputs"]["dataset"]["contains_poison"]
    pictures = labelled(str(tmp_path / "pictures"), 32, first=200)
    (weights := tmp_path / "weights.safetensors").write_bytes(checkpoint.find(first.out).read(checkpoint.MODEL))
    recipe = replace(TINY, epochs=7)  # through all phases of any of them
    for name in plugins.names(Objective.FOLDERS):
        what = objective(name)
        places = {"pretrained": first.out, "dataset": pictures if what.classifies else str(tmp_path / "clean")}
        Finetuning(objective=what, **places, out=str(tmp_path / f"cured by {name}"), recipe=recipe, workers=0).run()
        if not what.classifies:
            began = {"pretrained": str(weights)} if what.from_start else {}
            out = str(tmp_path / f"pretrained by {name}")
            pretraining(str(tmp_path / "poisoned"), objective=what, recipe=recipe, out=out, **began).run()
    places = {"pretrained": first.out, "dataset": str(tmp_path / "clean"), "out": str(tmp_path / "cured by workers")}
    Finetuning(objective=CleanClip(), **places, recipe=TINY, workers=1).run()  # a forked worker inherits the hook
    assert any("poisoned" in path for path in watched.opened)
    assert any("clean" in path for path in watched.opened)
