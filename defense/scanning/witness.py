"""A second run as a witness: one that learned from the pairs of a dataset less some. What it says: `testimony`.

Which pairs it learned from is read of its lineage: whether it may be asked about a cluster hangs on that.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from defense import neighbours
from defense.judging import testimony
from defense.scanning import viewer
from defense.scanning.gathering import Pairs
from defense.scanning.viewer import Viewer
from infra import rundir, storage
from pipeline.dataset import Dataset


@dataclass(frozen=True)
class Witness:
    """eyes: the run; dataset: what it learned from."""

    eyes: Viewer
    dataset: Dataset

    @property
    def identity(self) -> dict[str, Any]:
        """What it says depends on, beside the verdict that it is asked about, wherever it lies."""
        code = b"".join(Path(str(module.__file__)).read_bytes() for module in (testimony, neighbours))
        asked = {"dataset": self.dataset.digest, "testimony_sha256": hashlib.sha256(code).hexdigest()}
        return self.eyes.identity | asked

    def about(self, out: str) -> dict[str, Any]:
        """For scan.json in `out`."""
        own = self.dataset
        learned = {"url": storage.relative(own.url, out), "digest": own.digest, "samples": own.samples}
        return {"url": storage.relative(self.eyes.url, out), "dataset": learned} | self.eyes.identity

    def learned(self, pairs: Pairs) -> np.ndarray:
        """Which of these pairs it learned from: bool (N,). By row id and key: a pair that was added has a key of its
        own. Raises Damaged."""
        kept = self.dataset.index_of_samples(["row", "key"])
        known = set(zip(kept["row"].to_pylist(), kept["key"].to_pylist(), strict=True))
        lines = zip(pairs.table["row"].to_pylist(), pairs.table["key"].to_pylist(), strict=True)
        return np.array([line in known for line in lines], bool)


def read(url: str, dataset: Dataset, place: str | None = None) -> Witness:
    """The witness at a run's folder for a scan of `dataset`. place: of what it learned from, if not where it says.

    Raises ValueError unless it is a finished CLIP run that began with nothing learned and learned from a part of
    `dataset`, which is still there.
    """
    eyes = viewer.read(storage.real(url))
    inputs = rundir.environment(eyes.url)["inputs"]
    own = inputs["dataset"] or {}
    if inputs["pretrained"] is not None or "digest" not in own:
        raise ValueError(
            f"the witness {url} began with weights that may know the clusters already: a witness is pretrained anew"
        )
    way = "on the dataset that `antidote filter --remove suspects` makes"
    if own["digest"] == dataset.digest:
        raise ValueError(f"the witness {url} learned from all pairs of {dataset.url}: pretrain one {way}")
    if dataset.digest not in (*own.get("filtered_from", ()), *own.get("part_of", ())):
        raise ValueError(
            f"the witness {url} learned from another dataset, of digest {own['digest'][:12]}, and not from a part of "
            f"{dataset.url}: pretrain one {way}"
        )
    named = place if place is not None else str(rundir.config(eyes.url)["dataset"])
    try:
        found = Dataset.open(named)
    except ValueError as error:
        raise ValueError(
            f"what the witness {url} learned from is not at {named} ({error}): give its --witness-dataset"
        ) from error
    if found.digest != own["digest"]:
        raise ValueError(
            f"the witness {url} learned from a dataset of digest {own['digest'][:12]}, and the one at {named} has "
            f"{found.digest[:12]}: give its --witness-dataset"
        )
    return Witness(eyes, found)
