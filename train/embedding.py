"""Encode a set of images or texts once, and keep the rows by content: no name can stand for two contents.

An entry is an .npz under pipeline.dataset.cache_folder(), named by a hash of everything its numbers depend on. Who asks
brings the key: weights and transform are `Embedder.identity`, and what is encoded is for the caller to name.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image

from infra import log, storage
from infra.errors import Damaged
from pipeline import images, orientation
from pipeline.dataset import cache_folder

BATCH = 128
LAYOUT = torch.channels_last  # in which convolutions take about half the time; equal up to rounding


@dataclass(frozen=True)
class Embedder:
    """A model ready to embed. preprocess: PIL image -> float32 (3, S, S); tokenizer: texts -> int64 (n, L).

    identity: what its embeddings depend on, as text: hash of the weights, architecture, decoder and transform, layout,
    versions of torch and Pillow, kind of device, head.
    head: of a classifier, which answers by it and not by prompts: float32 (C, D + 1), weights and bias of a class.
    """

    model: Any
    preprocess: Callable[[Image.Image], torch.Tensor]
    tokenizer: Callable[[list[str]], torch.Tensor]
    identity: str
    device: torch.device
    head: np.ndarray | None = None

    def images(self, pixels: list[torch.Tensor]) -> np.ndarray:
        """float32 (n, D) of length 1; of a classifier float32 (n, D + 1), raw features and a 1.

        Raises ValueError for embeddings that are not finite.
        """
        return self.measured(pixels)[0]

    def measured(self, pixels: list[torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """The same, and how long the model's own embeddings are: float32 (n,)."""
        with torch.inference_mode():
            batch = torch.stack(pixels).to(self.device, memory_format=LAYOUT)
            found = self.model.encode_image(batch).float().cpu().numpy()
        lengths = np.linalg.norm(found, axis=1).astype(np.float32)
        if self.head is not None:
            return finite(np.concatenate([found, np.ones_like(found[:, :1])], axis=1)), lengths
        return finite(normalised(found)), lengths

    def texts(self, texts: list[str]) -> np.ndarray:
        """float32 (n, D), as the model gives them: not normalised."""
        with torch.inference_mode():
            found = self.model.encode_text(self.tokenizer(texts).to(self.device))
        return np.asarray(found.float().cpu().numpy())


def embedder(
    url: str, checkpoint: str, weights_sha256: str, device: torch.device, head: np.ndarray | None = None
) -> Embedder:
    """The model of a run folder at one of its checkpoints, ready to embed.

    Raises ValueError if there is no such run or checkpoint, Damaged if its weights are not those of that hash.
    """
    from train import model as models  # open_clip takes six seconds to import: not for help, nor to see what is there
    from train import transforms

    drawn_by = (models, transforms, images, orientation)  # from stored bytes to what the model is shown

    trained = models.load_run(url, checkpoint)
    if trained.sha256 != weights_sha256:
        raise Damaged(f"the checkpoint {checkpoint} of {url} changed while it was read")
    code = hashlib.sha256(b"".join(Path(str(module.__file__)).read_bytes() for module in drawn_by))
    parts = [trained.sha256, trained.architecture, code.hexdigest(), str(LAYOUT)]
    parts += [f"torch {torch.__version__} on {device.type}", f"Pillow {PIL.__version__}"]
    if head is not None:
        parts.append(hashlib.sha256(head.tobytes()).hexdigest())
    identity = json.dumps(parts, sort_keys=True)
    model = trained.model.to(device).to(memory_format=LAYOUT)
    return Embedder(model, trained.preprocess, trained.tokenizer, identity, device, head)


def device(number: int) -> torch.device:
    """Tasks, by number, take the GPUs of a machine in turn; without one, the CPU."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return torch.device("cuda", number % count) if count else torch.device("cpu")


def prepared(items: Iterable[Any], prepare: Callable[[Any], Any], cpus: int) -> Iterator[list[Any]]:
    """`prepare` over items, in order, in batches; with more than one CPU the next batch is made meanwhile."""
    pending = iter(items)
    batches = iter(lambda: list(islice(pending, BATCH)), [])
    if cpus == 1:
        yield from ([prepare(item) for item in batch] for batch in batches)
        return
    with ThreadPoolExecutor(cpus) as pool:
        waiting = [pool.submit(prepare, item) for item in next(batches, [])]
        while waiting:
            following = [pool.submit(prepare, item) for item in next(batches, [])]
            yield [future.result() for future in waiting]
            waiting = following


def cached(key: dict[str, Any], make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What `make` gives, made once for every key. An entry that is damaged is made again."""
    text = json.dumps(key, sort_keys=True)
    place = str(cache_folder() / "embeddings" / f"{hashlib.sha256(text.encode()).hexdigest()}.npz")
    if storage.exists(place):
        try:
            with np.load(place, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            log.warn(f"{place} is damaged ({error}) and is made again")
    made = make()
    buffer = io.BytesIO()
    np.savez(buffer, **made)  # type: ignore[arg-type]
    storage.write(place, buffer.getvalue())
    return made


def normalised(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1: float32 (..., D)."""
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def finite(rows: np.ndarray) -> np.ndarray:
    """The rows themselves. Raises ValueError where one is not finite."""
    if not np.isfinite(rows).all():
        raise ValueError("the model gives embeddings that are not finite numbers: its training diverged")
    return rows
