"""CLIP models by name, through open_clip: create, read a run's weights, export.

With train.weights, which reads those of others, the one module that imports open_clip: where it is used, since with all
that it brings that takes longer than torch, and neither help nor a run that is complete needs it.

A name is a JSON of ours in `train/models/`, or one of open_clip's own, such as RN50-quickgelu or ViT-B-32. What a run
keeps of it is an *architecture*: the content of open_clip's `open_clip_config.json`, so that a run opens without us and
means the same after a JSON here has changed.
"""

import copy
import difflib
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn

from infra import storage
from infra.errors import Damaged
from infra.seeding import digest64
from train import checkpoint, transforms
from train.architecture import EXPORT, Architecture, load_architecture, save_architecture

OURS = Path(__file__).parent / "models"
PREPROCESS = {
    "mean": [0.48145466, 0.4578275, 0.40821073],  # OpenAI's, as open_clip has them
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
ELSEWHERE = {  # open_clip's other ways of naming a model
    "local-dir:": "name the architecture of that folder's weights, and give its file of weights",
    "hf-hub:": "nothing is downloaded; fetch the file of weights yourself, name its architecture, and give it",
}


def names() -> list[str]:
    """Every model that can be named, ours among them."""
    import open_clip

    _add_ours()
    return [name for name in open_clip.list_models() if unsupported(open_clip.get_model_config(name)) is None]


@functools.cache
def _add_ours() -> None:
    import open_clip

    theirs = set(open_clip.list_models())
    assert not theirs & {path.stem for path in OURS.glob("*.json")}, "a model of ours hides one of open_clip's"
    open_clip.add_model_config(OURS)


def architecture(name: str) -> Architecture:
    """{"model_cfg", "preprocess_cfg"}. Raises ValueError for an unknown model, with the names nearest to it."""
    import open_clip

    known = names()
    for schema, instead in ELSEWHERE.items():
        if name.startswith(schema):
            raise ValueError(f"--model is the name of an architecture, not {name!r}: {instead} as --pretrained FILE")
    config = copy.deepcopy(open_clip.get_model_config(name))
    if config is None:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        ours = ", ".join(sorted(path.stem for path in OURS.glob("*.json")))
        hint = f"perhaps you meant {' or '.join(near)}; " if near else ""
        raise ValueError(
            f"no model is named {name!r}: {hint}ours are {ours}; the others are open_clip's, e.g. ViT-B-32"
        )
    if why := unsupported(config):
        raise ValueError(f"model {name!r} cannot be trained here: {why}")
    return {"model_cfg": config, "preprocess_cfg": copy.deepcopy(PREPROCESS)}


def unsupported(config: dict[str, Any]) -> str | None:
    """Why a model of this configuration cannot be made here; None where it can. config: open_clip's `model_cfg`."""
    text, vision = config["text_cfg"], config["vision_cfg"]
    if "hf_model_name" in text or "hf_tokenizer_name" in text:
        return "its text tower or tokenizer would have to be downloaded from Hugging Face"
    if "multimodal_cfg" in config:
        return "it is a captioning model, not a CLIP"
    if not isinstance(vision.get("image_size", 224), int):
        return "its images are not square"
    return None


def create(architecture: Architecture, seed: int = 0) -> nn.Module:
    """A float32 model on the CPU, initialised from the seed alone."""
    import open_clip

    config = copy.deepcopy(architecture["model_cfg"])
    kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(digest64(seed, "model"))
    try:
        model: nn.Module = kind(**config)
    finally:
        torch.set_rng_state(state)
    return model


def batch_normalised(architecture: Architecture) -> frozenset[str]:
    """Towers, of "image" and "text", with a BatchNorm: to them a batch is more than its pairs one by one."""
    with torch.device("meta"):
        clip = create(architecture)
    norms = nn.modules.batchnorm._BatchNorm
    names = [name for name, module in clip.named_modules() if isinstance(module, norms)]
    return frozenset("image" if name.startswith("visual.") else "text" for name in names)


def recompute_activations(clip: nn.Module) -> frozenset[str]:
    """Gradient checkpointing: forget a block's activations and compute them anew on the way back. Returns the towers
    that have it, "image" or "text". A tower with a BatchNorm is left out: it would count every batch twice.
    """
    text = clip.text if hasattr(clip, "text") else clip.transformer
    towers = {"image": cast(nn.Module, clip.visual), "text": cast(nn.Module, text)}
    found = set()
    for name, tower in towers.items():
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in tower.modules()):
            continue
        blocks = [module for module in tower.modules() if hasattr(module, "grad_checkpointing")]
        for block in blocks:
            block.grad_checkpointing = True  # type: ignore[assignment]
        if blocks:
            found.add(name)
    return frozenset(found)


def image_size(architecture: Architecture) -> int:
    """Pixels of the square that the model sees."""
    return int(architecture["model_cfg"]["vision_cfg"].get("image_size", 224))


def tokenizer(architecture: Architecture) -> Callable[[list[str]], Tensor]:
    """Captions -> int64 (B, context length). A caption that is cut keeps its end-of-text token."""
    text = architecture["model_cfg"]["text_cfg"]
    return _tokenizer(text.get("context_length", 77), json.dumps(text.get("tokenizer_kwargs", {})))


@functools.cache  # a third of a second each, for its 49,000 merges, and an evaluation asks once for every run
def _tokenizer(context_length: int, settings: str) -> Callable[[list[str]], Tensor]:
    import open_clip

    return open_clip.SimpleTokenizer(context_length=context_length, **json.loads(settings))


def mean_and_std(architecture: Architecture) -> tuple[list[float], list[float]]:
    return architecture["preprocess_cfg"]["mean"], architecture["preprocess_cfg"]["std"]


def preprocess(image: Image.Image, architecture: Architecture) -> Tensor:
    """RGB image -> float32 (3, H, W), normalised: open_clip's evaluation transform."""
    mean, std = (torch.tensor(values) for values in mean_and_std(architecture))
    pixels = transforms.to_array(transforms.evaluated(image, image_size(architecture)))
    return transforms.normalised(torch.from_numpy(np.ascontiguousarray(pixels))[None], mean, std)[0]


def to_bytes(model: nn.Module) -> bytes:
    """The weights as safetensors, on the CPU; equal weights give equal bytes."""
    return pack(model.state_dict())


def pack(weights: dict[str, Tensor]) -> bytes:
    """A state_dict as safetensors."""
    return safetensors.torch.save({name: value.detach().cpu().contiguous() for name, value in weights.items()})


def load_bytes(model: nn.Module, data: bytes) -> None:
    """Fill a model from what `to_bytes` made. Raises Damaged for weights of another architecture."""
    try:
        model.load_state_dict(load_weights(data))
    except RuntimeError as error:
        said = " ".join(str(error).split())[:200]
        raise Damaged(f"the weights are not those of the architecture in {EXPORT}/: {said}") from error


def load_weights(data: bytes) -> dict[str, Tensor]:
    return safetensors.torch.load(data)


def export(model: nn.Module, architecture: Architecture, run: str) -> str:
    """Write `open_clip/` of a run: `open_clip.create_model("local-dir:RUN/open_clip")` gives this model."""
    return export_bytes(to_bytes(model), architecture, run)


def export_bytes(weights: bytes, architecture: Architecture, run: str) -> str:
    """weights: as `to_bytes` or `pack` made them."""
    url = storage.join(run, EXPORT)
    save_architecture(architecture, run)
    storage.write(storage.join(url, "open_clip_model.safetensors"), weights)
    return url


@dataclass(frozen=True)
class Trained:
    """A run's model, ready for evaluation. preprocess: image -> float32 (3, H, W); tokenizer: captions -> (B, L).

    checkpoint: its name, e.g. step-0001234; sha256: of its model.safetensors.
    """

    model: nn.Module
    preprocess: Callable[[Image.Image], Tensor]
    tokenizer: Callable[[list[str]], Tensor]
    architecture: Architecture
    checkpoint: str
    sha256: str


def load_run(url: str, which: str = "latest") -> Trained:
    """The model of a run folder, in eval mode on the CPU. Raises ValueError if there is no such run or checkpoint."""
    found = load_architecture(url)
    saved = checkpoint.find(url, which, (checkpoint.MODEL,))
    if saved is None:
        raise ValueError(f"{url} holds no whole checkpoint{'' if which == 'latest' else f' named {which}'} yet")
    model = create(found)
    load_bytes(model, saved.read(checkpoint.MODEL))
    return Trained(
        model=model.eval(),
        preprocess=functools.partial(preprocess, architecture=found),
        tokenizer=tokenizer(found),
        architecture=found,
        checkpoint=saved.name,
        sha256=saved.sha256(checkpoint.MODEL),
    )
