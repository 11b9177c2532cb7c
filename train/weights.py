"""Weights of others: a local file, in any layout that open_clip reads, put into a model.

Nothing but tensors is unpickled. Whatever is wrong with a file is a ValueError of one line that names it.
"""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from train import model

SHOWN = 3  # names in a message; more are counted
MARKS = {"input_resolution", "context_length", "vocab_size"}  # beside the weights, in files of OpenAI's own


def load(clip: nn.Module, name: str, path: str) -> None:
    """Fill the model of that name from a file. Raises ValueError for a file that is damaged, not one of weights, of
    another model, or `activation`'s."""
    activation(name, path)
    clip.load_state_dict(_fitting(clip, f"model {name}", path, resized=True))


def untouched(clip: nn.Module, called: str, path: str, device: str = "cpu") -> dict[str, Tensor]:
    """The file's tensors by the model's names: every number, and its type, as it lies there; none resized, none added.

    clip: of the shapes that are wanted; it may be on "meta". called: what to call it in a message. device: "meta" for
    their shapes alone. Raises ValueError as `load`, and for a file whose positions are of other sizes.
    """
    return _fitting(clip, called, path, resized=False, device=device)


def beside(path: str) -> list[str]:
    """What the file holds besides the weights, by name: the optimiser's state, the epoch. Raises ValueError."""
    content = _content(path, "meta")
    return sorted(map(str, content.keys() - {"state_dict"})) if _is_nested(content) else []


def activation(name: str, path: str) -> str | None:
    """None if the file says that it was trained with the activation of model `name`; else that it does not say.

    Weights trained with QuickGELU load into a model without it, and the reverse, without complaint and to slightly
    wrong features. Few files say which: those of OpenAI's own, by values beside the weights, and those with an
    open_clip_config.json in the same folder. One that was trained on from OpenAI's, or by CleanCLIP's code, does not.
    Raises ValueError if the file says the other one, or cannot be read.
    """
    quick = bool(model.architecture(name)["model_cfg"].get("quick_gelu", False))
    said = _says_quick_gelu(path)
    if said is not None and said != quick:
        twin = f"{name}-quickgelu" if said else name.removesuffix("-quickgelu")
        raise ValueError(f"{path} was trained {'with' if said else 'without'} QuickGELU: use --model {twin}")
    if said is not None:
        return None
    taken = "with" if quick else "without"
    return f"{path} does not say whether it was trained with QuickGELU: --model {name} says {taken}"


def _says_quick_gelu(path: str) -> bool | None:
    """What the file, or the configuration beside it, says; None if neither does."""
    content = _read(path, "meta")
    beside = Path(path).with_name("open_clip_config.json")
    if beside.is_file():
        try:
            return bool(json.loads(beside.read_bytes())["model_cfg"].get("quick_gelu", False))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{beside} is not a configuration of open_clip's: mend it, or move it away") from error
    return True if set(content) >= MARKS else None


def _fitting(clip: nn.Module, called: str, path: str, *, resized: bool, device: str = "cpu") -> dict[str, Tensor]:
    complaint = f"{path} does not fit {called}"
    found = _converted(clip, _read(path, device), complaint, resized)
    if misfits := _misfits(found, clip.state_dict()):
        raise ValueError(f"{complaint}: {'; '.join(misfits)}")
    return found


def _content(path: str, device: str) -> Any:
    if not Path(path).is_file():
        raise ValueError(f"no weights file at {path}; name a local .safetensors or .pt file (nothing is downloaded)")
    try:
        return _unpacked(path, device)
    except Exception as error:  # of a parser of a stranger's file: of many kinds, whatever it was damaged by
        raise ValueError(f"{path} is not a plain file of weights: {_reason(path, error)}") from error


def _is_nested(content: Any) -> bool:
    return isinstance(content, dict) and "state_dict" in content


def _read(path: str, device: str = "cpu") -> dict[str, Tensor]:
    """The file's tensors by their names in it; on "meta" their shapes alone."""
    content = _content(path, device)
    weights = content["state_dict"] if _is_nested(content) else content
    if not isinstance(weights, dict) or not all(isinstance(key, str) for key in weights):
        kind = type(weights).__name__
        raise ValueError(f"{path} is not a plain file of weights: it holds a {kind}, not tensors by name")
    if other := [key for key, value in weights.items() if not isinstance(value, Tensor)]:
        kinds = f"{other[0]!r} is a {type(weights[other[0]]).__name__}"
        raise ValueError(f"{path} is not a plain file of weights: {kinds}, not a tensor{_more(len(other) - 1)}")
    if not weights:
        raise ValueError(f"{path} is not a plain file of weights: it holds nothing")
    return {key.removeprefix("module."): value for key, value in weights.items()}


def _unpacked(path: str, device: str) -> Any:
    if not path.endswith(".safetensors"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is a TorchScript archive is said by the error that follows
            return torch.load(path, map_location=device, weights_only=True)
    if device != "meta":
        return safetensors.torch.load_file(path, device)
    with safetensors.safe_open(path, "pt") as file:
        return {key: torch.empty(file.get_slice(key).get_shape(), device="meta") for key in file.keys()}  # noqa: SIM118


def _reason(path: str, error: Exception) -> str:
    if not Path(path).stat().st_size:
        return "it is empty"
    said = str(error).strip()
    if "TorchScript" in said:
        return (
            "it is a TorchScript archive, which is not read, for opening one runs the code in it; where you trust it, "
            "torch.save(torch.jit.load(FILE).state_dict(), NEW) and give NEW"
        )
    if isinstance(error, (RuntimeError, safetensors.SafetensorError, OSError)):
        return said.splitlines()[0].split(". ")[0]
    return "it is damaged, or holds more than tensors"  # torch would advise to unpickle it all the same


def _converted(clip: Any, weights: dict[str, Tensor], complaint: str, resized: bool) -> dict[str, Tensor]:
    """By the model's names and, where `resized`, in its sizes, as open_clip.load_checkpoint does it."""
    import open_clip.convert
    import open_clip.model

    found = {key: value for key, value in weights.items() if key not in MARKS}
    try:
        found = open_clip.convert.convert_state_dict(clip, found)
        if "positional_embedding" in found and not hasattr(clip, "positional_embedding"):
            found = open_clip.model.convert_to_custom_text_state_dict(found)
        for scalar in ("logit_scale", "logit_bias"):
            wanted = getattr(clip, scalar, None)
            if scalar in found and wanted is not None and found[scalar].numel() == wanted.numel():
                found[scalar] = found[scalar].reshape(wanted.shape)
        found.pop("text.transformer.embeddings.position_ids", None)
        if resized:
            if getattr(clip, "logit_bias", None) is not None and "logit_scale" in found:
                found.setdefault("logit_bias", torch.zeros_like(found["logit_scale"]))
            open_clip.model.resize_pos_embed(found, clip)
            open_clip.model.resize_text_pos_embed(found, clip)
    except Exception as error:  # it looks for layouts by a few names, and takes the shapes of the rest for granted
        if misfits := _misfits(found, clip.state_dict()):
            raise ValueError(f"{complaint}: {'; '.join(misfits)}") from error
        raise ValueError(f"{complaint}: {(str(error) or type(error).__name__).splitlines()[0]}") from error
    return found


def _misfits(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    """What keeps these weights from being those of a model, in words; [] where nothing does."""
    missing = [key for key in wanted if key not in found]
    unexpected = [key for key in found if key not in wanted]
    shaped = [
        f"{key} ({_shape(found[key])} for {_shape(value)})"
        for key, value in wanted.items()
        if key in found and found[key].shape != value.shape
    ]
    kinds = (("it lacks", missing), ("it has besides", unexpected), ("of another shape", shaped))
    return [f"{what} {_few(names)}" for what, names in kinds if names]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + _more(len(names) - SHOWN)


def _more(count: int) -> str:
    return f" and {count:,} more" if count > 0 else ""


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"
