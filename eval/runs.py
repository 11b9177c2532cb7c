"""A finished run as an evaluation sees it: what its folder says, and the lineage that its folder leads to."""

from dataclasses import dataclass
from typing import Any

from eval.records import place as place_of
from infra import rundir, storage
from train import checkpoint as checkpoints


@dataclass(frozen=True)
class Run:
    """place: how scores name it. version: of the weights, `step-0001234@` and 12 digits of their sha256.

    ancestors: the runs it was finetuned from, the nearest first. losses: (step, training loss) as it was logged.
    """

    url: str
    place: str
    name: str
    checkpoint: str
    weights_sha256: str
    objective: str
    seed: int
    dataset: str
    dataset_digest: str
    dataset_samples: int
    config: dict[str, Any]
    environment: dict[str, Any]
    ancestors: tuple["Run", ...]
    losses: tuple[tuple[float, float], ...]

    @property
    def version(self) -> str:
        return f"{self.checkpoint}@{self.weights_sha256[:12]}"
