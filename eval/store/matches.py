"""What a run's pairs were matched with, as a folder of scores keeps it: `about/matches-ATTACK-RUN.json`.

By what was matched (`captions`, `images`), then of poisoned and of clean pairs.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from eval.store.runs import Run
from infra import storage

Kinds = Mapping[str, "Partners"]  # by "poisoned" and "clean"


@dataclass(frozen=True)
class Partners:
    """number: of matches. naming: how many of them have a stored caption that names the target. poisoned: how many are
    another poisoned pair."""

    number: int
    naming: int
    poisoned: int


def exist(folder: str, run: Run, attack: str) -> bool:
    """attack: its key."""
    return storage.exists(_url(folder, run, attack))


def write(folder: str, run: Run, attack: str, found: Mapping[str, Kinds]) -> None:
    told = {what: {kind: asdict(each) for kind, each in kinds.items()} for what, kinds in found.items()}
    storage.write_json(_url(folder, run, attack), told)


def read(folder: str, run: Run, attack: str) -> dict[str, dict[str, Partners]]:
    """Empty where nothing was kept of that run and attack."""
    if not exist(folder, run, attack):
        return {}
    told: dict[str, dict[str, Any]] = storage.read_json(_url(folder, run, attack))
    return {what: {kind: Partners(**each) for kind, each in kinds.items()} for what, kinds in told.items()}


def _url(folder: str, run: Run, attack: str) -> str:
    digest = hashlib.sha256(f"{run.key} {run.version}".encode()).hexdigest()[:8]
    return storage.join(folder, f"about/matches-{attack}-{digest}.json")
