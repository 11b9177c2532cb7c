"""CLIP models by name, through open_clip: create, read weights, export. The one module here that imports open_clip.

A name is a JSON of ours in `train/models/`, or one of open_clip's own, such as RN50-quickgelu or ViT-B-32. What a run
keeps of it is an *architecture*: the content of open_clip's `open_clip_config.json`, so that a run opens without us and
means the same after a JSON here has changed.
"""

import copy
import difflib
import functools
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import open_clip
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn

from infra import log, storage
from infra.seeding import digest64
from train import checkpoint, transforms

OURS = Path(__file__).parent / "models"
EXPORT = "open_clip"  # folder in a run
Architecture = dict[str, Any]


def names() -> list[str]:
    """Every model that can be named, ours among them."""
    _add_ours()
    return [name for name in open_clip.list_models() if _unsupported(open_clip.get_model_config(name)) is None]


@functools.cache
def _add_ours() -> None:
    theirs = set(open_clip.list_models())
    assert not theirs & {path.stem for path in OURS.glob("*.json")}, "a model of ours hides one of open_clip's"
    open_clip.add_model_config(OURS)


def architecture(name: str) -> Architecture:
    """{"model_cfg", "preprocess_cfg"}. Raises ValueError for an unknown model, with the names nearest to it."""
    known = names()
    config = copy.deepcopy(open_clip.get_model_config(name))
    if config is None:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        ours = ", ".join(sorted(path.stem for path in OURS.glob("*.json")))
        hint = f"perhaps you meant {' or '.join(near)}; " if near else ""
        raise ValueError(
            f"no model is named {name!r}: {hint}ours are {ours}; the others are open_clip's, e.g. ViT-B-32"
        )
    if why := _unsupported(config):
        raise ValueError(f"model {name!r} cannot be trained here: {why}")
    preprocess = {
        "mean": list(open_clip.OPENAI_DATASET_MEAN),
        "std": list(open_clip.OPENAI_DATASET_STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    return {"model_cfg": config, "preprocess_cfg": preprocess}


def _unsupported(config: dict[str, Any]) -> str | None:
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
    config = copy.deepcopy(architecture["model_cfg"])
    kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(digest64(seed, "model"))
    try:
        model: nn.Module = kind(**config)
    finally:
        torch.set_rng_state(state)
    return model


def image_size(architecture: Architecture) -> int:
    """Pixels of the square that the model sees."""
    return int(architecture["model_cfg"]["vision_cfg"].get("image_size", 224))


def tokenizer(architecture: Architecture) -> Callable[[list[str]], Tensor]:
    """Captions -> int64 (B, context length). A caption that is cut keeps its end-of-text token."""
    text = architecture["model_cfg"]["text_cfg"]
    return _tokenizer(text.get("context_length", 77), json.dumps(text.get("tokenizer_kwargs", {})))


@functools.cache  # a third of a second each, for its 49,000 merges, and an evaluation asks once for every run
def _tokenizer(context_length: int, settings: str) -> Callable[[list[str]], Tensor]:
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
    """Fill a model from what `to_bytes` made."""
    model.load_state_dict(load_weights(data))


def load_weights(data: bytes) -> dict[str, Tensor]:
    return safetensors.torch.load(data)


def export(model: nn.Module, architecture: Architecture, run: str) -> str:
    """Write `open_clip/` of a run: `open_clip.create_model("local-dir:RUN/open_clip")` gives this model."""
    url = storage.join(run, EXPORT)
    save_architecture(architecture, run)
    storage.write(storage.join(url, "open_clip_model.safetensors"), to_bytes(model))
    return url


def save_architecture(architecture: Architecture, run: str) -> None:
    storage.write_json(storage.join(run, EXPORT, "open_clip_config.json"), architecture)


def load_architecture(run: str) -> Architecture:
    """Raises ValueError if the folder is not a run."""
    place = storage.join(run, EXPORT, "open_clip_config.json")
    if not storage.exists(place):
        raise ValueError(f"no run at {run}: it has no {EXPORT}/open_clip_config.json")
    found: Architecture = storage.read_json(place)
    return found


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


def load_open_clip_weights(model: nn.Module, name: str, path: str) -> None:
    """Fill a model from a local weights file in any layout open_clip reads. Nothing is unpickled but tensors.

    Raises ValueError if the file does not fit, or is known to belong to the other activation: weights of OpenAI's
    lineage (CleanCLIP's too) need NAME-quickgelu, and load into NAME without complaint, to slightly wrong features.
    """
    place = Path(path)
    if not place.is_file():
        raise ValueError(f"no weights file at {path}; name a local .safetensors or .pt file (nothing is downloaded)")
    quick = bool(architecture(name)["model_cfg"].get("quick_gelu", False))
    wanted = _uses_quick_gelu(place)
    if wanted is not None and wanted != quick:
        twin = f"{name}-quickgelu" if wanted else name.removesuffix("-quickgelu")
        raise ValueError(f"{path} was trained {'with' if wanted else 'without'} QuickGELU: use --model {twin}")
    if wanted is None:
        log.warn(
            f"{path} does not say whether it was trained with QuickGELU; {name} is {'with' if quick else 'without'}"
        )
    quiet = logging.getLogger().manager.disable
    logging.disable(logging.WARNING)  # open_clip reports its conversions on the root logger
    try:
        open_clip.load_checkpoint(model, path, strict=True, weights_only=True)
    except (RuntimeError, KeyError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} does not fit model {name}: {str(error).splitlines()[0]}") from error
    finally:
        logging.disable(quiet)


def _uses_quick_gelu(path: Path) -> bool | None:
    """What the file or the config beside it says; None if neither does."""
    beside = path.with_name("open_clip_config.json")
    if beside.is_file():
        return bool(json.loads(beside.read_text())["model_cfg"].get("quick_gelu", False))
    if path.suffix == ".safetensors":
        keys = set(safetensors.safe_open(path, "pt").keys())
    else:
        try:
            content = torch.load(path, map_location="meta", weights_only=True)
        except (RuntimeError, OSError, UnpicklingError) as error:
            raise ValueError(f"{path} is not a plain file of weights (TorchScript archives are not read)") from error
        keys = set(content.get("state_dict", content))
    return True if {"input_resolution", "context_length", "vocab_size"} <= keys else None
