"""Checkpoints of a run: `checkpoints/step-0001234/`, whole or not there, on a local disk or in S3.

model.safetensors    the model's weights, by open_clip's names
training.pt          optimizer, objective state, clock and order; read with weights_only=True
complete.json        sizes and sha256 of both; written last, its presence means whole

torch is imported where it is used: whoever asks a run only for what it is, as a report does, starts without it.
"""

import contextlib
import hashlib
import io
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from infra import log, storage
from infra.errors import Damaged

MODEL, TRAINING, COMPLETE = "model.safetensors", "training.pt", "complete.json"
KEPT = 2  # unless a run says otherwise: the newest, and the one before it, should that be damaged
PAUSES = (5.0, 20.0, 60.0)  # seconds before a failed write is tried again, while training goes on

T = TypeVar("T")


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
        import torch

        state: dict[str, Any] = torch.load(io.BytesIO(self.read(TRAINING)), map_location="cpu", weights_only=True)
        return state


def save(run: str, step: int, model: bytes, training: dict[str, Any], keep: int = KEPT) -> Checkpoint:
    """Write the checkpoint after `step` steps, then remove all but the newest `keep`; 0: none is removed."""
    import torch

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
    try:
        for old in whole(run)[:-keep] if keep else ():
            storage.remove(storage.join(old.url, COMPLETE))  # first, so that it is never a whole one with files missing
            storage.remove(old.url)
    except OSError as error:  # the new one is whole: not worth writing it again
        log.warn(f"an old checkpoint could not be removed: {error}")
    return Checkpoint(url, name, files)


def snapshot(state: T) -> T:
    """A copy on the CPU of tensors in dicts, lists and tuples, which training will not change; others are kept."""
    import torch

    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)  # type: ignore[return-value]
    if isinstance(state, dict):
        return {name: snapshot(value) for name, value in state.items()}  # type: ignore[return-value]
    if isinstance(state, list | tuple):
        return type(state)(snapshot(value) for value in state)  # type: ignore[return-value, call-arg]
    return state


class Background:
    """Writes while training goes on, one piece of work at a time; used as a context, left only when the last is done.

    A write that a busy or absent server refused is tried again after each of `PAUSES`; then its error is raised by the
    next `start`, `check` or `wait`.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None
        self._leaving = threading.Event()

    def start(self, work: Callable[[], None]) -> None:
        """Begin a piece of work, after the one before it."""
        self.wait()
        self._writing = self._pool.submit(self._patiently, work)

    def check(self) -> None:
        """Raise what the last piece of work raised, if it has ended."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Until nothing is being written."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _patiently(self, work: Callable[[], None]) -> None:
        for pause in PAUSES:
            try:
                return work()
            except OSError as error:
                log.warn(f"the checkpoint could not be written, trying again in {pause:.0f} s: {error}")
                self._leaving.wait(pause)
        work()

    def __enter__(self) -> "Background":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.wait()
        self._leaving.set()
        self._pool.shutdown(wait=True)
        if self._writing is not None and (failure := self._writing.exception()) is not None:
            log.warn(f"the last checkpoint could not be written: {failure}")


def whole(run: str) -> list[Checkpoint]:
    """Every whole checkpoint, oldest first. One that says nothing of its files is passed over, with a warning."""
    folder = storage.join(run, "checkpoints")
    found = []
    for name in storage.names(folder):
        url = storage.join(folder, name)
        with contextlib.suppress(FileNotFoundError):  # unfinished, or removed meanwhile
            if (files := _files(storage.read(storage.join(url, COMPLETE)))) is None:
                log.warn(f"{url}/{COMPLETE} is damaged; that checkpoint is passed over")
            else:
                found.append(Checkpoint(url, name, files))
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def _files(complete: bytes) -> dict[str, dict[str, Any]] | None:
    """What COMPLETE says of the files beside it; None where it says something else."""
    try:
        files = json.loads(complete)
        if all(isinstance(files[file]["sha256"], str) for file in (MODEL, TRAINING)):
            return dict(files)
    except (ValueError, LookupError, TypeError):
        pass
    return None


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
