"""A model that was trained elsewhere: where its weights lie, and which architecture they are of."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra import rundir, storage
from infra.errors import Damaged
from train import model, weights
from train.architecture import CONFIG, EXPORT, Architecture

LOCAL = "local-dir:"  # open_clip's way to name a folder
WEIGHTS = (  # of a folder, in the order in which open_clip takes them
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)


@dataclass(frozen=True)
class Elsewhere:
    """weights: their file. called: the architecture, in a message. note: what cannot be known of the weights, and was
    taken from the command."""

    weights: str
    architecture: Architecture
    called: str
    note: str | None


def find(source: str, name: str | None) -> Elsewhere:
    """What a file, or a folder of open_clip's, holds. name: of the model, where the folder does not say it.

    Raises ValueError if it holds no model that is known here.
    """
    place = storage.local(source.removeprefix(LOCAL))
    if place is None:
        raise ValueError(f"{source} lies elsewhere: fetch it, and give the local file or folder")
    file = _in_folder(place) if place.is_dir() else place
    if not file.is_file():
        raise ValueError(f"no file of weights at {file}, and no folder")
    told = place.is_dir() or name is None
    if told and (config := file.with_name(CONFIG)).is_file():
        architecture = _told(config)
        if name is not None and model.architecture(name)["model_cfg"] != architecture["model_cfg"]:
            raise ValueError(f"{config} is of another model than --model {name}: leave --model out to take it")
        return Elsewhere(str(file), architecture, f"the model of {config}", None)
    if name is None:
        raise ValueError(f"{file} does not say of which architecture it is: name that, e.g. --model RN50-quickgelu")
    return Elsewhere(str(file), model.architecture(name), f"model {name}", weights.activation(name, str(file)))


def check(file: str, sha256: str) -> None:
    """Raises Damaged for the exported weights of a run of ours, if they are no longer those that it ended with."""
    folder = Path(file).absolute().parent
    done = rundir.done(str(folder.parent)) if folder.name == EXPORT else None
    if done is not None and done.get("sha256") != sha256:
        raise Damaged(f"{file} is damaged: the run at {folder.parent} ended with other weights (sha256 differs)")


def _in_folder(folder: Path) -> Path:
    if (folder / "config.json").is_file() and (folder / "checkpoints").is_dir():
        raise ValueError(f"{folder} is a run of ours already: give it as it is")
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} holds no {CONFIG}: give its file of weights, and --model NAME")
    found = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise ValueError(f"{folder} holds no weights (none of {', '.join(WEIGHTS)}): give their file, and --model NAME")
    return found


def _told(place: Path) -> Architecture:
    """The architecture of an open_clip_config.json, if it is one that can be made here."""
    try:
        config = json.loads(place.read_bytes())
        found, prepared = config["model_cfg"], config.get("preprocess_cfg") or {}
        vision = found["vision_cfg"]
        why = model.unsupported(found) or _downloads(vision) or _other_images(prepared, vision)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{place} is not a configuration of open_clip's: mend it, or move it away") from error
    if why:
        raise ValueError(f"the model of {place} cannot be taken: {why}")
    kept = {name: prepared[name] for name in model.PREPROCESS if prepared.get(name) is not None}
    return {"model_cfg": found, "preprocess_cfg": model.PREPROCESS | kept}


def _downloads(vision: dict[str, Any]) -> str | None:
    named = ":" in str(vision.get("timm_model_name", ""))
    return "its image tower would be downloaded" if named or vision.get("timm_model_pretrained") else None


def _other_images(prepared: dict[str, Any], vision: dict[str, Any]) -> str | None:
    """Why images would be shown to it otherwise than where it was trained."""
    side = vision.get("image_size", 224)
    for name, allowed in (
        ("interpolation", ("bicubic",)),
        ("resize_mode", ("shortest",)),
        ("size", (side, [side, side])),
        ("mode", ("RGB",)),
    ):
        if prepared.get(name) not in (None, *allowed):
            return f"it wants images with {name} {prepared[name]!r}, and here they have {allowed[0]!r}"
    return None
