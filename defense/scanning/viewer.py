"""The run through whose eyes a dataset is scanned: which weights they are, and whether they ever saw these pairs."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from infra import log, rundir
from pipeline import leaving
from pipeline.dataset import Dataset
from train import checkpoint as checkpoints
from train import embedding
from train.embedding import Embedder


@dataclass(frozen=True)
class Viewer:
    """A finished run that embeds images and captions. width: of its embeddings; size: pixels of the square it sees.

    learned: digests of the datasets that it and the runs it started from learned from, () where that is unknown.
    """

    url: str
    checkpoint: str
    weights_sha256: str
    width: int
    size: int
    learned: tuple[str, ...]

    @property
    def identity(self) -> dict[str, Any]:
        """What its embeddings depend on, wherever it lies."""
        return {"checkpoint": self.checkpoint, "weights_sha256": self.weights_sha256, "width": self.width}

    def saw(self, dataset: Dataset) -> bool | None:
        """Whether it learned from these pairs, be it with more of them; None: nobody knows what it learned from."""
        return not {dataset.digest, *leaving.ancestry(dataset.url)}.isdisjoint(self.learned) if self.learned else None

    def tell(self, dataset: Dataset) -> None:
        """What is lost where it never saw them."""
        saw = self.saw(dataset)
        if saw is not True:
            known = "what it learned from is unknown" if saw is None else "it learned from other pairs"
            log.warn(
                f"{self.url}: {known}. To a model that never saw these pairs a trigger means nothing, and its poisons "
                "may not stand out: for a full scan, train on them first"
            )

    def embedder(self, number: int) -> Embedder:
        """Ready to embed. number: of the task; tasks take the GPUs of a machine in turn. Raises Damaged."""
        return _embedder(self, embedding.device(number))


@lru_cache(maxsize=1)  # a worker does many shards
def _embedder(viewer: Viewer, device: torch.device) -> Embedder:
    return embedding.embedder(viewer.url, viewer.checkpoint, viewer.weights_sha256, device)


def read(url: str, checkpoint: str = "latest") -> Viewer:
    """Raises ValueError if there is no such run or checkpoint, if it is not finished, or if it is a classifier."""
    from train import model  # open_clip takes six seconds to import

    rundir.config(url)  # is it a run?
    done, environment = rundir.ended(url), rundir.environment(url)
    learned: Any = environment["inputs"].get("dataset") or {}
    if learned.get("classes"):
        raise ValueError(f"the run at {url} is a classifier, which reads no captions: scan with a CLIP run")
    known = {found.name: found.sha256(checkpoints.MODEL) for found in checkpoints.whole(url)}
    name = done["checkpoint"] if checkpoint == "latest" else checkpoint
    if name not in known:
        raise ValueError(f"{url} has no checkpoint {name!r}; it has: {', '.join(known) or 'none'}")
    architecture = model.load_architecture(url)
    return Viewer(
        url=url,
        checkpoint=name,
        weights_sha256=known[name],
        width=int(architecture["model_cfg"]["embed_dim"]),
        size=model.image_size(architecture),
        learned=tuple(_learned({"inputs": environment["inputs"]})),
    )


def _learned(lineage: dict[str, Any] | None) -> list[str]:
    """Digests of the datasets of a run and of those before it."""
    found: list[str] = []
    while lineage is not None and "inputs" in lineage:
        learned = lineage["inputs"].get("dataset") or {}
        found += [learned["digest"]] if "digest" in learned else []
        lineage = lineage["inputs"].get("pretrained")
    return found
