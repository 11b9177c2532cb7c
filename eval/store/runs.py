"""A finished run as an evaluation sees it: what its folder says of its weights, its data and its lineage."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from eval.store.records import relative
from infra import rundir
from infra.errors import Damaged
from train import checkpoint as checkpoints
from train.architecture import Architecture, load_architecture

UNKNOWN = "unknown"  # digest and place of the data that weights from elsewhere learned from
ADOPTED = "adopted"  # in the place of an objective: no step was taken here


@dataclass(frozen=True)
class Ancestor:
    """A run, or a file of weights, that another began with, by content. name: of its folder, where that is known.
    filtered_from, part_of: as of Run."""

    name: str
    weights_sha256: str
    dataset_digest: str
    dataset_samples: int
    filtered_from: tuple[str, ...] = ()
    part_of: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Whether it is known what it learned from."""
        return self.dataset_digest != UNKNOWN


@dataclass(frozen=True)
class Run:
    """key: how scores name it, by its folder. ancestors: the runs it was finetuned from, the nearest first.

    dataset: as the run's command named it. losses: (steps taken, training loss), as they were logged. classes: of a
    classifier, by label: their names, or numbers where its images came without; () for a run that answers by prompts.
    source: of weights from elsewhere: their file, and its sha256; of those UNKNOWN stands for the dataset, and ADOPTED
    for the objective. architecture: the same weights are another model in another one (QuickGELU has none of its own).
    filtered_from: digests of the datasets of which a filter left the one that it learned from, the nearest first.
    part_of: the same, where pairs were left out for another reason, as damaged ones are.
    """

    url: str
    key: str
    name: str
    checkpoint: str
    weights_sha256: str
    objective: str
    seed: int
    dataset: str
    dataset_digest: str
    dataset_samples: int
    ancestors: tuple[Ancestor, ...]
    losses: tuple[tuple[float, float], ...]
    config: dict[str, Any]
    attempts: tuple[dict[str, Any], ...]
    classes: tuple[str, ...] = ()
    source: str = ""
    architecture: Architecture = field(default_factory=dict)
    filtered_from: tuple[str, ...] = ()
    part_of: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Whether it is known what it learned from; where it was finetuned, what its last steps did."""
        return self.dataset_digest != UNKNOWN

    @property
    def version(self) -> str:
        """What scores call the weights: `step-0001234@` and 12 digits of their sha256."""
        return f"{self.checkpoint}@{self.weights_sha256[:12]}"


def read_all(url: str, folder: str, checkpoint: str) -> list[Run]:
    """A run at one of its checkpoints, or, where `checkpoint` is "all", at every one that was kept, in their order.

    Raises ValueError as `read` does.
    """
    names = [found.name for found in checkpoints.whole(url)] if checkpoint == "all" else []
    return [read(url, folder, name) for name in names or [checkpoint]]


def read(url: str, folder: str, checkpoint: str = "latest") -> Run:
    """A run at one of its checkpoints; "latest" is the one it ended with. folder: of the scores.

    Raises ValueError if there is no such run, if it is not finished, or if it has no such checkpoint; Damaged if the
    checkpoint that it ended with is another one by now.
    """
    config, done = rundir.config(url), rundir.ended(url)
    known = {found.name: found.sha256(checkpoints.MODEL) for found in checkpoints.whole(url)}
    name = done["checkpoint"] if checkpoint == "latest" else checkpoint
    if name not in known:
        raise ValueError(f"{url} has no checkpoint {name!r}; it has: {', '.join(known) or 'none'}")
    if known.get(done["checkpoint"], done["sha256"]) != done["sha256"]:
        raise Damaged(
            f"{url}: the checkpoint {done['checkpoint']} is not the one that the run ended with (sha256 differs)"
        )
    environment = rundir.environment(url)
    inputs = environment["inputs"]
    learned = inputs["dataset"] or {"digest": UNKNOWN, "samples": 0}
    adopted = inputs["dataset"] is None
    return Run(
        url=url,
        key=relative(url, folder),
        name=url.rstrip("/").rsplit("/", 1)[-1],
        checkpoint=name,
        weights_sha256=known[name],
        objective=ADOPTED if adopted else config["objective"]["plugin"],
        seed=config.get("seed", 0),
        dataset=UNKNOWN if adopted else config["dataset"],
        dataset_digest=learned["digest"],
        dataset_samples=learned["samples"],
        ancestors=() if adopted else _ancestors(config.get("pretrained"), inputs["pretrained"]),
        losses=tuple((line["step"], line["loss"]) for line in rundir.metrics(url) if "loss" in line),
        config=config,
        attempts=tuple(environment["attempts"]),
        classes=tuple(learned.get("classes", ())),
        source=f"{config['source']} (sha256 {inputs['pretrained']['sha256']})" if adopted else "",
        architecture=load_architecture(url),
        filtered_from=tuple(learned.get("filtered_from", ())),
        part_of=tuple(learned.get("part_of", ())),
    )


def named_apart(runs: Sequence[Run]) -> list[Run]:
    """The same runs, those of one name called by their folder, and checkpoints of one run, but the last of them, by
    their step as well."""
    last = {run.key: run.checkpoint for run in sorted(runs, key=lambda run: run.checkpoint)}
    count = Counter(name for _, name in {(run.key, run.name) for run in runs})
    found = []
    for run in runs:
        name = run.key.replace("../", "") if count[run.name] > 1 else run.name
        found.append(replace(run, name=name if run.checkpoint == last[run.key] else f"{name} {run.checkpoint}"))
    return found


def _ancestors(url: str | None, lineage: dict[str, Any] | None) -> tuple[Ancestor, ...]:
    found = []
    name = (url or "").rstrip("/").rsplit("/", 1)[-1]
    while lineage is not None:
        inputs = lineage.get("inputs", {"dataset": None})  # without inputs it is a file of weights, not a run
        learned = inputs["dataset"] or {"digest": UNKNOWN, "samples": 0}
        left_of, part_of = (tuple(learned.get(name, ())) for name in ("filtered_from", "part_of"))
        found.append(Ancestor(name, lineage["sha256"], learned["digest"], learned["samples"], left_of, part_of))
        name, lineage = "an earlier run", inputs["pretrained"] if inputs["dataset"] else None
    return tuple(found)
