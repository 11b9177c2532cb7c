"""Weights of others: which files are read, which are refused, and in what words."""

import json
from pathlib import Path

import open_clip
import pytest
import safetensors.torch
import torch

from tests.train.test_model import TINY, same
from train import model, weights


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "weights.pt"
    torch.save(model.create(TINY, 9).state_dict(), path)
    return path


@pytest.mark.parametrize("layout", ["plain", "cleanclip", "safetensors"])
def test_weights_in_any_layout_open_clip_knows_are_loaded(tmp_path, layout):
    wanted, path = model.create(TINY, 9), tmp_path / ("w.safetensors" if layout == "safetensors" else "w.pt")
    state = wanted.state_dict()
    if layout == "safetensors":
        safetensors.torch.save_file(state, path)
    elif layout == "plain":
        torch.save(state, path)
    else:
        named = {f"module.{name}": value for name, value in state.items()}
        torch.save(
            {"epoch": 64, "name": "run", "state_dict": named, "optimizer": {"state": {}, "param_groups": []}}, path
        )
    clip = model.create(TINY, 0)
    weights.load(clip, "tiny-vit", str(path))
    assert same(clip, wanted)


def test_openais_weights_are_refused_by_a_model_without_quickgelu(tmp_path):
    """They load into it without complaint, and every text embedding is off by 0.05."""
    config = model.architecture("ViT-B-32")
    assert not config["model_cfg"].get("quick_gelu")
    path = tmp_path / "openai.pt"
    torch.save(
        {"input_resolution": torch.tensor(224), "context_length": torch.tensor(77), "vocab_size": torch.tensor(1)}, path
    )
    with pytest.raises(ValueError, match="trained with QuickGELU: use --model ViT-B-32-quickgelu"):
        weights.load(torch.nn.Module(), "ViT-B-32", str(path))


def test_a_config_beside_the_weights_says_which_activation_they_need(file):
    beside = file.with_name("open_clip_config.json")
    beside.write_text(json.dumps({"model_cfg": {"quick_gelu": True}}))
    with pytest.raises(ValueError, match="use --model tiny-vit-quickgelu"):
        weights.load(model.create(TINY), "tiny-vit", str(file))
    beside.write_text(json.dumps({"model_cfg": {}}))
    weights.load(model.create(TINY), "tiny-vit", str(file))


@pytest.mark.parametrize(("name", "says"), [("RN50", "without"), ("RN50-quickgelu", "with")])
def test_of_weights_that_say_nothing_the_model_decides_and_it_is_said(file, name, says):
    told = weights.activation(name, str(file))
    assert told == f"{file} does not say whether it was trained with QuickGELU: --model {name} says {says}"


def test_weights_of_another_model_are_refused(tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"visual.proj": torch.zeros(3, 3)}, path)
    with pytest.raises(ValueError, match="does not fit model tiny-vit"):
        weights.load(model.create(TINY), "tiny-vit", str(path))


def test_a_file_with_more_than_tensors_is_not_unpickled(tmp_path):
    path = tmp_path / "evil.pt"
    torch.save({"state_dict": Path("/etc")}, path)
    with pytest.raises(ValueError, match="not a plain file of weights"):
        weights.load(model.create(TINY), "tiny-vit", str(path))


def test_a_missing_file_is_named():
    with pytest.raises(ValueError, match="no weights file at /nowhere"):
        weights.load(model.create(TINY), "tiny-vit", "/nowhere")


# Files that are damaged, or hold something else


def cut(name: str, share: float):  # type: ignore[no-untyped-def]
    def make(folder: Path) -> Path:
        data = (folder / f"good.{name}").read_bytes()
        (folder / f"cut.{name}").write_bytes(data[: int(len(data) * share)])
        return folder / f"cut.{name}"

    return make


def holding(value: object):  # type: ignore[no-untyped-def]
    def make(folder: Path) -> Path:
        torch.save(value, folder / "held.pt")
        return folder / "held.pt"

    return make


def written(name: str, data: bytes):  # type: ignore[no-untyped-def]
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


BAD = {
    "an empty .pt": (written("a.pt", b""), "it is empty"),
    "an empty .safetensors": (written("a.safetensors", b""), "it is empty"),
    "a .pt cut at its start": (cut("pt", 0.0003), "."),
    "a .pt cut in the middle": (cut("pt", 0.5), "failed finding central directory"),
    "a .pt without its last byte": (cut("pt", 0.999999), "failed finding central directory"),
    "a .safetensors cut at its start": (cut("safetensors", 0.0003), "header"),
    "a .safetensors cut in the middle": (cut("safetensors", 0.5), "file not fully covered"),
    "an old .pt cut in the middle": (cut("old", 0.5), "unexpected EOF"),
    "text": (written("a.pt", b"not weights\n" * 9), "it is damaged, or holds more than tensors"),
    "text as .safetensors": (written("a.safetensors", b"not weights\n" * 9), "header too large"),
    "a list": (holding([torch.zeros(1)]), "it holds a list, not tensors by name"),
    "a list as its state_dict": (holding({"state_dict": [1, 2]}), "it holds a list, not tensors by name"),
    "numbers": (holding({"a": 1, "b": 2, "c": 3}), "'a' is a int, not a tensor and 2 more"),
    "one tensor": (holding(torch.zeros(2)), "it holds a Tensor"),
    "nothing": (holding({}), "it holds nothing"),
    "tensors by number": (holding({1: torch.zeros(2)}), "it holds a dict, not tensors by name"),
    "what would have to be unpickled": (holding({"state_dict": Path("/etc")}), "it is damaged, or holds more than"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_is_not_one_of_weights_is_refused_in_one_line_that_names_it(case, tmp_path):
    state = model.create(TINY, 9).state_dict()
    torch.save(state, tmp_path / "good.pt")
    torch.save(state, tmp_path / "good.old", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, tmp_path / "good.safetensors")
    make, reason = BAD[case]
    path = make(tmp_path)
    with pytest.raises(ValueError, match=f"^{path} is not a plain file of weights: .*{reason}") as refusal:
        weights.load(model.create(TINY), "tiny-vit", str(path))
    assert "\n" not in str(refusal.value)


def test_what_does_not_fit_is_named_a_few_and_how_many_more(tmp_path):
    state = model.create(TINY, 9).state_dict()
    few = {name: value for name, value in state.items() if not name.startswith(("visual", "transformer"))}
    few |= {"token_embedding.weight": torch.zeros(3, 4)} | {f"head.{number}": torch.zeros(1) for number in range(5)}
    torch.save(few, tmp_path / "few.pt")
    with pytest.raises(ValueError, match="does not fit model tiny-vit") as refusal:
        weights.load(model.create(TINY), "tiny-vit", str(tmp_path / "few.pt"))
    missing = [name for name in state if name.startswith(("visual", "transformer"))]
    assert str(refusal.value) == (
        f"{tmp_path}/few.pt does not fit model tiny-vit: "
        f"it lacks {', '.join(missing[:3])} and {len(missing) - 3} more; "
        "it has besides head.0, head.1, head.2 and 2 more; of another shape token_embedding.weight "
        f"(3 x 4 for {' x '.join(map(str, state['token_embedding.weight'].shape))})"
    )


@pytest.mark.parametrize("shape", [(3,), (3, 3), (2, 2, 2)])
@pytest.mark.parametrize("name", ["positional_embedding", "visual.positional_embedding", "logit_scale"])
def test_positions_of_an_impossible_shape_are_refused_by_name(tmp_path, name, shape):
    """open_clip resizes them, and takes it for granted that it can."""
    torch.save(model.create(TINY).state_dict() | {name: torch.zeros(shape)}, tmp_path / "w.pt")
    with pytest.raises(
        ValueError, match=f"does not fit model tiny-vit: of another shape {name} \\(3|2 x 2 x 2"
    ) as refusal:
        weights.load(model.create(TINY), "tiny-vit", str(tmp_path / "w.pt"))
    assert "\n" not in str(refusal.value)


def test_positions_of_another_number_are_resized_as_open_clip_does(tmp_path):
    wanted, path = model.create(TINY, 9), tmp_path / "w.pt"
    state = wanted.state_dict()
    torch.save(state | {"visual.positional_embedding": torch.randn(1 + 8 * 8, 16)}, path)
    clip, theirs = model.create(TINY), model.create(TINY)
    weights.load(clip, "tiny-vit", str(path))
    open_clip.load_checkpoint(theirs, str(path))
    assert same(clip, theirs)
    assert not same(clip, wanted)


def test_openais_own_values_beside_the_weights_are_passed_over(tmp_path):
    architecture = model.architecture("tiny-resnet")
    wanted = model.create(architecture, 9)
    marks = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(16), "vocab_size": torch.tensor(1)}
    torch.save(wanted.state_dict() | marks, tmp_path / "w.pt")
    clip = model.create(architecture)
    weights.load(clip, "tiny-resnet", str(tmp_path / "w.pt"))
    assert same(clip, wanted)
    assert weights.activation("tiny-resnet", str(tmp_path / "w.pt")) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model_cfg": 3}'])
def test_a_config_beside_the_weights_that_is_none_is_named(file, content):
    file.with_name("open_clip_config.json").write_text(content)
    with pytest.raises(ValueError, match=r"open_clip_config\.json is not a configuration of open_clip's"):
        weights.load(model.create(TINY), "tiny-vit", str(file))
