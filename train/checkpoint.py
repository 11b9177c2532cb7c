"""Checkpoints of a run: `checkpoints/step-0001234/`, whole or not there, on a local disk or in S3.

model.safetensors    the model's weights, by open_clip's names
training.pt          optimizer, objective state, clock and order; read with weights_only=True
complete.json        sizes and sha256 of both; written last, its presence means whole
"""

import hashlib
import io
from dataclasses import dataclass
from typing import Any

import torch

from infra import log, storage
from pipeline.shards import Damaged

MODEL, TRAINING, COMPLETE = "model.safetensors", "training.pt", "complete.json"
KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """One whole checkpoint. name: e.g. step-0001234; files: {file name: {"bytes", "sha256"}}."""

    url: str
    name: str
    files: dict[str, dict[str, Any]]

    @property
    def step(self) -> int:
        """Steps taken when it was written."""
        return int(self.name.removeprefix("step-"))

    def sha256(self, file: str) -> str:
        return str(self.files[file]["sha256"])

    def read(self, file: str) -> bytes:
        """Raises Damaged if the file is not the one that was written."""
        try:
            data = storage.read(storage.join(self.url, file))
        except FileNotFoundError as error:
            raise Damaged(f"{self.url}/{file} is missing") from error
        if hashlib.sha256(data).hexdigest() != self.sha256(file):
            raise Damaged(f"{self.url}/{file} is damaged (sha256 differs)")
        return data

    def read_training(self) -> dict[str, Any]:
        state: dict[str, Any] = torch.load(io.BytesIO(self.read(TRAINING)), map_location="cpu", weights_only=True)
        return state


def save(run: str, step: int, model: bytes, training: dict[str, Any]) -> Checkpoint:
    """Write the checkpoint after `step` steps, then remove all but the last `KEPT`."""
    buffer = io.BytesIO()
    torch.save(training, buffer)
    name = f"step-{step:07d}"
    url = storage.join(run, "checkpoints", name)
    files = {}
    for file, data in ((MODEL, model), (TRAINING, buffer.getvalue())):
        storage.write(storage.join(url, file), data)
        files[file] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        if storage.size(storage.join(url, file)) != len(data):
            raise ConnectionError(f"{url}/{file} has another size after an upload of {len(data):,} bytes")
    storage.write_json(storage.join(url, COMPLETE), files)
    for old in whole(run)[:-KEPT]:
        storage.remove(storage.join(old.url, COMPLETE))  # first, so that it is never a whole one with files missing
        storage.remove(old.url)
    return Checkpoint(url, name, files)


def whole(run: str) -> list[Checkpoint]:
    """Every whole checkpoint, oldest first."""
    folder = storage.join(run, "checkpoints")
    found = []
    for name in storage.names(folder):
        url = storage.join(folder, name)
        if storage.exists(storage.join(url, COMPLETE)):
            found.append(Checkpoint(url, name, storage.read_json(storage.join(url, COMPLETE))))
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def named(run: str, name: str) -> Checkpoint | None:
    """The whole checkpoint of that name; what it holds is verified when it is read."""
    return next((checkpoint for checkpoint in whole(run) if checkpoint.name == name), None)


def find(run: str, which: str = "latest", files: tuple[str, ...] = (MODEL, TRAINING)) -> Checkpoint | None:
    """The newest whole checkpoint of which `files` are undamaged, or the one of that name; None if there is none.

    Raises Damaged for a named one that is damaged; the latest is passed over with a warning.
    """
    for checkpoint in reversed(whole(run)):
        if which not in ("latest", checkpoint.name):
            continue
        try:
            for file in files:
                checkpoint.read(file)
            return checkpoint
        except Damaged as error:
            if which != "latest":
                raise
            log.warn(f"{error}; taking the checkpoint before it")
    return None
