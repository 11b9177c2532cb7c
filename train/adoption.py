"""Weights from elsewhere become a run folder, as training would have left it, of no step and of unknown data."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import tyro
from torch import Tensor, nn

from infra import config, rundir, storage
from train import checkpoint, elsewhere, model, weights
from train.elsewhere import Elsewhere


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """A run folder to be made of weights from elsewhere."""

    # The digests in environment.json stand for them.
    FREE: ClassVar[frozenset[str]] = frozenset({"source", "model", "out", "dry_run"})

    source: Annotated[str, tyro.conf.Positional]
    """A local file of weights (.pt or .safetensors), or a folder with open_clip_config.json and its weights."""
    model: str | None = None
    """The architecture of a file's weights: a model of train/models/ or of open_clip, such as RN50-quickgelu. A folder
    says it itself."""
    out: str
    """Folder of the run."""
    dry_run: bool = False
    """Print the resolved configuration and the plan; touch nothing."""

    def run(self, command: Sequence[str] | None = None) -> str:
        """Make the run, or say that it is there. Returns the last line to print. command: the words that started it."""
        out, found = storage.absolute(self.out), elsewhere.find(self.source, self.model)
        clip = _shapes(found)
        beside = weights.beside(found.weights)
        shapes = weights.untouched(clip, found.called, found.weights, "meta")
        sha256 = _sha256(found.weights)
        elsewhere.check(found.weights, sha256)
        inputs = {"dataset": None, "pretrained": {"sha256": sha256, "architecture": _digest(found)}}
        rundir.check(out, config.to_json(self), self.FREE, inputs)
        what = f"{sum(value.numel() for value in shapes.values()):,} numbers of {found.weights}"
        notes = [f"left out what else is in the file: {', '.join(beside)}"] if beside else []
        notes += [found.note] if found.note else []
        told = "".join(f"; {note}" for note in notes)
        if self.dry_run:
            print(storage.dump_json(config.to_json(self)).decode(), end="")
            return f"dry run: would make a run of {what} at {out}{told}"
        if (done := rundir.done(out)) is not None:
            return f"nothing to do: {out} is made of these weights ({done['checkpoint']})"

        rundir.claim(out, config.to_json(self), self.FREE, inputs)
        attempt: dict[str, Any] = {"step": 0, "ranks": 1}
        rundir.record_attempt(out, attempt | ({} if command is None else {"command": list(command)}))
        tensors = weights.untouched(clip, found.called, found.weights)
        data = model.pack(_apart(tensors))
        saved = checkpoint.save(out, 0, data, {})
        model.export_bytes(data, found.architecture, out)
        rundir.finish(out, {"checkpoint": saved.name, "sha256": saved.sha256(checkpoint.MODEL), "steps": 0})
        return f"run of {what} at {out} ({saved.name}), what it learned from unknown{told}"


def _shapes(found: Elsewhere) -> nn.Module:
    """The model without numbers. Raises ValueError for a configuration of which open_clip makes none."""
    try:
        with torch.device("meta"):
            return model.create(found.architecture)
    except Exception as error:  # open_clip takes a configuration apart in many places
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"open_clip makes no model of {found.called}: {said}") from error


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(found: Elsewhere) -> str:
    """Of the architecture: the same weights in another one are another model."""
    return hashlib.sha256(json.dumps(found.architecture, sort_keys=True).encode()).hexdigest()


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same, none sharing memory with another: torch.save keeps that, safetensors refuses it."""
    places, found = set(), {}
    for name, value in tensors.items():
        storage_of = value.untyped_storage()
        alone = storage_of.nbytes() == value.nbytes and storage_of.data_ptr() not in places
        found[name] = value if alone else value.clone()
        places.add(storage_of.data_ptr())
    return found
