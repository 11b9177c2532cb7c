"""Weights from elsewhere become a run: which are taken, which are refused and in what words, and what is kept."""

import hashlib
import json
from pathlib import Path

import open_clip
import pytest
import safetensors.torch
import torch

from infra import config, rundir, storage
from tests.support.elsewhere import MODEL, cleanclip_layout, trained
from tests.train.test_model import same
from train import adopt, checkpoint, model
from train.adoption import Adoption


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return cleanclip_layout(trained(MODEL), tmp_path / "epoch_64.pt")


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    found = checkpoint.find(str(run))
    assert found is not None
    return model.load_weights(found.read(checkpoint.MODEL))


def refused(words: list[str], capsys: pytest.CaptureFixture[str], out: Path) -> str:
    """The one line of a refusal, after which nothing was written."""
    with pytest.raises(SystemExit) as end:
        adopt.main([*words, "--out", str(out)])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert not out.exists()
    return line.removeprefix("error: ")


def test_a_cleanclip_checkpoint_becomes_a_run_with_every_number_as_it_was(tmp_path, file, capsys):
    clip, run = trained(MODEL), tmp_path / "run"
    assert adopt.main([str(file), "--model", MODEL, "--out", str(run)]) == 0
    said = capsys.readouterr().out
    assert "left out what else is in the file: epoch, name, optimizer" in said
    assert f"--model {MODEL} says with" in said, "what the file does not say is told"
    loaded = model.load_run(str(run))
    assert loaded.checkpoint == "step-0000000"
    assert same(loaded.model, clip)
    assert any("running_mean" in name for name in clip.state_dict())
    opened = open_clip.create_model(f"local-dir:{run}/open_clip", pretrained=None)
    assert same(opened, clip)
    about = rundir.environment(str(run))
    assert about["inputs"]["dataset"] is None
    assert about["inputs"]["pretrained"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert about["attempts"][0]["command"][:2] == ["antidote", "adopt"]
    read = config.from_json(Adoption, rundir.config(str(run)))
    assert (read.source, read.model) == (str(file), MODEL)


def test_the_type_of_every_number_is_kept_and_shared_memory_is_no_obstacle(tmp_path):
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in trained(MODEL).state_dict().items()
    }
    state["ln_final.bias"] = state["ln_final.weight"] = torch.arange(200).half()[: len(state["ln_final.weight"])]
    torch.save(state, tmp_path / "half.pt")
    Adoption(source=str(tmp_path / "half.pt"), model=MODEL, out=str(tmp_path / "run")).run()
    found = weights_of(tmp_path / "run")
    assert {name: (value.dtype, value.tolist()) for name, value in found.items()} == {
        name: (value.dtype, value.tolist()) for name, value in state.items()
    }


@pytest.mark.parametrize("place", ["folder", "local-dir:", "file"])
def test_a_folder_of_open_clips_says_its_architecture_itself(tmp_path, place):
    clip, theirs = trained(MODEL), tmp_path / "theirs"
    architecture = model.architecture(MODEL)
    architecture["preprocess_cfg"]["mean"] = [0.5, 0.5, 0.5]
    theirs.mkdir()
    (theirs / "open_clip_config.json").write_text(json.dumps(architecture | {"more": 1}))
    safetensors.torch.save_file(clip.state_dict(), theirs / "open_clip_model.safetensors")
    sources = {
        "folder": str(theirs),
        "local-dir:": f"local-dir:{theirs}",
        "file": f"{theirs}/open_clip_model.safetensors",
    }
    last = Adoption(source=sources[place], out=str(tmp_path / "run")).run()
    assert last.endswith("what it learned from unknown")
    loaded = model.load_run(str(tmp_path / "run"))
    assert same(loaded.model, clip)
    assert loaded.architecture["preprocess_cfg"]["mean"] == [0.5, 0.5, 0.5]


def test_the_same_command_again_does_nothing_and_other_weights_are_refused(tmp_path, file):
    out = f"memory://adopted/{tmp_path.name}"
    assert "dry run" in Adoption(source=str(file), model=MODEL, out=out, dry_run=True).run()
    assert not storage.names(out)
    Adoption(source=str(file), model=MODEL, out=out).run()
    assert Adoption(source=str(file), model=MODEL, out=out).run().startswith("nothing to do")
    moved = file.rename(tmp_path / "other name.pt")
    assert Adoption(source=str(moved), model=MODEL, out=out).run().startswith("nothing to do")
    other = cleanclip_layout(trained(MODEL, seed=1), tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"exists and differs: its pretrained.sha256 is .*; choose another --out"):
        Adoption(source=str(other), model=MODEL, out=out).run()


def test_an_interrupted_one_is_no_run_and_the_same_command_completes_it(tmp_path, file, monkeypatch):
    adoption = Adoption(source=str(file), model=MODEL, out=str(tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr(model, "export_bytes", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            adoption.run()
    assert rundir.done(str(tmp_path / "run")) is None
    adoption.run()
    assert same(model.load_run(str(tmp_path / "run")).model, trained(MODEL))


def test_what_cannot_be_adopted_is_one_line_that_says_why(tmp_path, file, capsys):
    out, plain = tmp_path / "run", [str(file), "--model"]
    assert "does not fit model tiny-vit: it lacks visual.class_embedding" in refused([*plain, "tiny-vit"], capsys, out)
    assert "no model is named 'tiny-resnt'" in refused([*plain, "tiny-resnt"], capsys, out)
    assert "does not say of which architecture it is" in refused([str(file)], capsys, out)
    assert "no file of weights at /nowhere.pt" in refused(["/nowhere.pt", "--model", MODEL], capsys, out)
    assert "lies elsewhere: fetch it" in refused(["s3://bucket/a.pt", "--model", MODEL], capsys, out)
    cut = tmp_path / "cut.pt"
    cut.write_bytes(file.read_bytes()[:-1000])
    assert f"{cut} is not a plain file of weights" in refused([str(cut), "--model", MODEL], capsys, out)
    script = tmp_path / "script.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), script)
    assert "it is a TorchScript archive, which is not read" in refused([str(script), "--model", MODEL], capsys, out)


def test_positions_of_other_sizes_are_refused_for_they_would_have_to_be_resized(tmp_path, capsys):
    state = model.create(model.architecture("tiny-vit"), 0).state_dict()
    state["positional_embedding"] = state["positional_embedding"][:-1]
    torch.save(state, tmp_path / "short.pt")
    said = refused([str(tmp_path / "short.pt"), "--model", "tiny-vit"], capsys, tmp_path / "run")
    assert "of another shape positional_embedding" in said


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"preprocess_cfg": {"resize_mode": "squash"}}, "wants images with resize_mode 'squash'"),
        ({"text_cfg": {"hf_model_name": "roberta-base"}}, "would have to be downloaded"),
        ({"vision_cfg": {"timm_model_name": "hf-hub:someone/theirs"}}, "its image tower would be downloaded"),
        ({"vision_cfg": {"surprise": 1}}, "open_clip makes no model of"),
        ({"vision_cfg": 7}, "is not a configuration of open_clip's"),
        ({"weights": None}, "holds no weights"),
        ({"config": None}, "holds no open_clip_config.json: give its file of weights"),
        ({"run": None}, "is a run of ours already"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_folder_that_cannot_be_taken_says_why(tmp_path, capsys, changed, complaint):
    theirs, architecture = tmp_path / "theirs", model.architecture(MODEL)
    theirs.mkdir()
    for name, value in changed.items():
        if name == "preprocess_cfg":
            architecture[name] |= value
        elif name in ("text_cfg", "vision_cfg"):
            whole = architecture["model_cfg"]
            whole[name] = whole[name] | value if isinstance(value, dict) else value
        elif name == "run":
            (theirs / "config.json").write_text("{}")
            (theirs / "checkpoints").mkdir()
    if "config" not in changed:
        (theirs / "open_clip_config.json").write_text(json.dumps(architecture))
    if "weights" not in changed:
        safetensors.torch.save_file(trained(MODEL).state_dict(), theirs / "model.safetensors")
    assert complaint in refused([str(theirs)], capsys, tmp_path / "run")


def test_a_folder_and_another_model_are_refused(tmp_path, file, capsys):
    Adoption(source=str(file), model=MODEL, out=str(tmp_path / "run")).run()
    said = refused([f"{tmp_path}/run/open_clip", "--model", "tiny-vit"], capsys, tmp_path / "other")
    assert "is of another model than --model tiny-vit: leave --model out" in said


def test_the_export_of_a_run_is_held_against_what_the_run_ended_with(tmp_path, file, capsys):
    Adoption(source=str(file), model=MODEL, out=str(tmp_path / "run")).run()
    export = tmp_path / "run" / "open_clip"
    Adoption(source=str(export), out=str(tmp_path / "again")).run()
    assert rundir.done(str(tmp_path / "again")) == rundir.done(str(tmp_path / "run"))
    place = export / "open_clip_model.safetensors"
    data = bytearray(place.read_bytes())
    data[-100] ^= 1
    place.write_bytes(data)
    assert adopt.main([str(export), "--out", str(tmp_path / "flipped")]) == 1
    assert "is damaged: the run at" in capsys.readouterr().err
    assert not (tmp_path / "flipped").exists()


def test_a_run_may_lie_in_a_bucket(s3, tmp_path):
    file, out = cleanclip_layout(trained(MODEL), tmp_path / "epoch_64.pt"), f"{s3}/runs/theirs"
    adoption = Adoption(source=str(file), model=MODEL, out=out)
    assert f"at {out} (step-0000000)" in adoption.run()
    assert adoption.run().startswith("nothing to do")
    assert same(model.load_run(out).model, trained(MODEL))
