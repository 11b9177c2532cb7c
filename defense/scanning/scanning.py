"""Run and dataset -> scan folder: how suspicious every pair is, which clusters look planted, what to remove.

Shards are encoded where there is room (Ray, or this process); then the whole set is searched and scored at once.
"""

import hashlib
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from defense import detector, verdict
from defense.detector import Detector
from defense.detectors.panel import Panel
from defense.neighbours import How
from defense.scanning import exhibits, folder, gathering, viewer
from defense.scanning.encoding import Encode, source
from defense.scanning.folder import ScanFolder
from defense.scanning.gathering import Pairs
from defense.scanning.viewer import Viewer
from defense.verdict import Cluster, Verdict
from infra import config, log, plugins, rundir, storage
from infra.spread import Backend, spread
from pipeline import dataset as datasets
from pipeline import leaving
from pipeline.dataset import Dataset


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One dataset to be scanned through the eyes of one run."""

    run: str
    """A finished CLIP run, best one that learned from these very pairs; one made by adopt will do."""
    dataset: str
    """Folder of the dataset: a path or s3://bucket/folder."""
    out: str
    """Folder of the scan."""
    checkpoint: str = "latest"
    """Which checkpoint of the run, e.g. step-0001234."""
    search: How = "auto"
    """How neighbours are found: all pairs compared, or by an index, which auto takes for more than 200,000 on a CPU."""
    cpus: int = 1
    """CPU cores for each shard; they decode and change images."""
    backend: Backend = "ray"
    """Where shards are encoded: on a Ray cluster, or in this process."""
    dry_run: bool = False
    """Print the resolved configuration and the plan; touch nothing."""

    def __post_init__(self) -> None:
        if self.cpus < 1:
            raise ValueError(f"--cpus is at least 1, not {self.cpus}")

    def start(self) -> str:
        """Scan what is not scanned yet. Returns the entry's last line."""
        dataset, eyes = Dataset.open(self.dataset), viewer.read(storage.real(self.run), self.checkpoint)
        out = storage.absolute(self.out)
        detectors = {name: detector.named(name) for name in plugins.names(Detector.FOLDERS)}
        needs = detector.needs(list(detectors.values()))
        plan = (
            f"{dataset.samples:,} pairs in {len(dataset.shards)} shards at {dataset.url}, each image plain and under "
            f"{len(needs.views)} changes ({', '.join(needs.views)}), through {eyes.url} ({eyes.checkpoint})"
        )
        if self.dry_run:
            print(storage.dump_json(config.to_json(self)).decode(), end="")
            eyes.tell(dataset)
            return f"dry run: would scan {plan}, into {out}"
        datasets.claim(out, self._recipe(dataset, eyes, detectors, needs.views))
        if folder.is_complete(out):
            storage.remove(storage.join(out, folder.PARTS))  # of a scan that was killed right after its last word
            return f"nothing to do: {_said(ScanFolder.open(out))}"
        begun = time.monotonic()
        dataset.tell_left_out()
        eyes.tell(dataset)
        log.say(f"scanning {plan}")
        encode = Encode(dataset, eyes, needs.views, storage.join(out, folder.PARTS), self.cpus)
        self._encode(encode)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        with tempfile.TemporaryDirectory(prefix="antidote-") as scratch:
            pairs = Pairs.of(dataset)
            gathered = gathering.gather(dataset, encode, pairs, eyes.width, Path(scratch))
            evidence, recall = gathering.evidence(gathered, pairs, needs, encode.parts, self.search, device)
            log.say(f"scoring by {', '.join(detectors)}")
            scores = {name: one.score(evidence) for name, one in detectors.items()}
            panel, suspicion = detectors["panel"], scores.pop("panel")
            assert isinstance(panel, Panel)
            found = verdict.judge(panel, suspicion, evidence, pairs.table["caption"].to_pylist())
            members = [each.rows[np.argsort(-suspicion[each.rows], kind="stable")] for each in found.clusters]
            shown = exhibits.draw(dataset, eyes, needs.views, pairs, members, gathered.mean, out)
        about = {
            "dataset": {
                "url": storage.relative(dataset.url, out),
                "digest": dataset.digest,
                "samples": dataset.samples,
                "part_of": list(leaving.ancestry(dataset.url)),
            },
            "run": {"url": storage.relative(eyes.url, out), "saw_these_pairs": eyes.saw(dataset)} | eyes.identity,
            "detectors": {name: config.to_json(one) for name, one in detectors.items()},
            "changes": list(needs.views),
            "recall": recall,
            "clusters": [_facts(one) | seen for one, seen in zip(found.clusters, shown, strict=True)],
            "proposed": int(found.proposed.sum()),
            "seconds": round(time.monotonic() - begun, 1),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": rundir.versions(),
            "hardware": rundir.hardware(),
        }
        made = folder.write(out, pairs.table, scores, suspicion, found, about)
        storage.remove(encode.parts)
        return _said(made)

    def _recipe(
        self, dataset: Dataset, eyes: Viewer, detectors: dict[str, Detector], views: tuple[str, ...]
    ) -> dict[str, Any]:
        """What the result depends on."""
        return {
            "scan": {
                "dataset": dataset.digest,
                "run": eyes.identity,
                "search": self.search,
                "detectors": {name: config.to_json(one) for name, one in detectors.items()},
                "identity": {f"{name}_sha256": source(name) for name in views}
                | {"detectors_sha256": _code([type(one) for one in detectors.values()])},
            }
        }

    def _encode(self, encode: Encode) -> None:
        there = set(storage.names(encode.parts))
        tasks = [(number, shard) for number, shard in enumerate(encode.dataset.shards) if shard.samples]
        missing = [task for task in tasks if encode.name(task[1]) not in there]
        spread(
            encode,
            missing,
            backend=self.backend,
            what="encoding",
            unit="pairs",
            weight=int,
            total=encode.dataset.samples,
            done=encode.dataset.samples - sum(shard.samples for _, shard in missing),
            describe=lambda task: f"shard {task[1].id}",
            num_cpus=self.cpus,
        )


def _code(detectors: list[type[Detector]]) -> str:
    """sha256 of the code that scores and judges: fields stay equal while what is done with them changes."""
    digest = hashlib.sha256()
    for text in sorted({path.read_bytes() for one in (*detectors, Verdict) for path in plugins.sources(one)}):
        digest.update(text)
    return digest.hexdigest()


def _facts(cluster: Cluster) -> dict[str, Any]:
    facts: dict[str, Any] = {name: value for name, value in asdict(cluster).items() if name != "rows"}
    return facts


def _said(scan: ScanFolder) -> str:
    return f"{folder.told(scan.about['clusters'])}; scan of {scan.table.num_rows:,} pairs at {scan.url}"
