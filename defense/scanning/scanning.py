"""Run and dataset -> scan folder: how suspicious every pair is, which clusters look planted, what to remove.

Shards are encoded where there is room (Ray, or this process); then the whole set is searched and scored at once.
"""

import hashlib
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from defense import detector
from defense.changing.views import KEYHOLES
from defense.detector import Detector
from defense.detectors import clipscore
from defense.detectors.panel import Panel
from defense.judging import testimony, verdict
from defense.judging.testimony import Sight
from defense.judging.verdict import Cluster, Verdict
from defense.neighbours import How
from defense.scanning import exhibits, folder, gathering, viewer, witness
from defense.scanning.encoding import PLAIN, TEXTS, Encode, source
from defense.scanning.folder import ScanFolder
from defense.scanning.gathering import Pairs
from defense.scanning.viewer import Viewer
from defense.scanning.witness import Witness
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
    witness: str | None = None
    """A second run, pretrained anew on these pairs without the suspicious clusters: whether captions are true is asked
    of it. For what it learns from: filter --remove suspects."""
    witness_dataset: str | None = None
    """Folder of what the witness learned from, where that no longer lies where it did."""
    keyholes: bool = True
    """Look at nine parts of each image too, where a learned patch shows: nine of the 14 embeddings of a pair."""
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
        if self.witness_dataset is not None and self.witness is None:
            raise ValueError("--witness-dataset says what a witness learned from: give --witness too")

    def start(self) -> str:
        """Scan what is not scanned yet. Returns the entry's last line."""
        dataset, eyes = Dataset.open(self.dataset), viewer.read(storage.real(self.run), self.checkpoint)
        second = None if self.witness is None else witness.read(self.witness, dataset, self.witness_dataset)
        out = storage.absolute(self.out)
        detectors = self._detectors()
        needs = detector.needs(list(detectors.values()))
        parts = [name for name in KEYHOLES if name in needs.views]
        changes = tuple(name for name in needs.views if name not in parts)
        plan = (
            f"{dataset.samples:,} pairs in {len(dataset.shards)} shards at {dataset.url}, each image plain and under "
            f"{len(changes)} changes ({', '.join(changes)}){f', and {len(parts)} parts of it' if parts else ''}, "
            f"through {eyes.url} ({eyes.checkpoint})"
        )
        if second is not None:
            plan += f", and its clusters through the witness {second.eyes.url} ({second.eyes.checkpoint})"
        if self.dry_run:
            print(storage.dump_json(config.to_json(self)).decode(), end="")
            eyes.tell(dataset)
            return f"dry run: would scan {plan}, into {out}"
        datasets.claim(out, self._recipe(dataset, eyes, second, detectors, needs.views))
        if folder.is_complete(out):
            storage.remove(storage.join(out, folder.PARTS))  # of a scan that was killed right after its last word
            return f"nothing to do: {_said(ScanFolder.open(out))}"
        begun = time.monotonic()
        dataset.tell_left_out()
        eyes.tell(dataset)
        log.say(f"scanning {plan}")
        encode = Encode(dataset, eyes, needs.views, storage.join(out, folder.PARTS), self.cpus)
        self._encode(encode, "encoding")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        with tempfile.TemporaryDirectory(prefix="antidote-") as scratch:
            pairs = Pairs.of(dataset)
            gathered = gathering.gather(dataset, encode, pairs, eyes.width, Path(scratch))
            evidence, recall = gathering.evidence(gathered, pairs, needs, encode.parts, self.search, device)
            log.say(f"scoring by {', '.join(detectors)}")
            scores = {name: one.score(evidence) for name, one in detectors.items()}
            panel, suspicion = detectors["panel"], scores.pop("panel")
            assert isinstance(panel, Panel)
            captions = pairs.table["caption"].to_pylist()
            found = verdict.judge(panel, suspicion, evidence, captions)
            if second is not None:
                sight = self._asked(second, encode, pairs, found, Path(scratch, "witness"))
                found = testimony.heard(found, sight, captions, panel.k, device)
                scores["witness"] = sight.unfit
                suspicion = panel.and_witness(suspicion, sight.unfit)
            found = verdict.with_kin(found, suspicion, evidence, captions)
            suspects = verdict.suspects(found, suspicion, captions)
            members = [each.rows[np.argsort(-suspicion[each.rows], kind="stable")] for each in found.clusters]
            keyholes = [each.keyhole for each in found.clusters]
            shown = exhibits.draw(dataset, eyes, changes, pairs, members, keyholes, gathered.mean, out)
        about = {
            "dataset": {
                "url": storage.relative(dataset.url, out),
                "digest": dataset.digest,
                "samples": dataset.samples,
                "part_of": list(leaving.ancestry(dataset.url)),
            },
            "run": {"url": storage.relative(eyes.url, out), "saw_these_pairs": eyes.saw(dataset)} | eyes.identity,
            "detectors": {name: config.to_json(one) for name, one in detectors.items()},
            "changes": list(changes),
            "parts": parts,
            "recall": recall,
            "clusters": [_facts(one) | seen for one, seen in zip(found.clusters, shown, strict=True)],
            "proposed": int(found.proposed.sum()),
            "seconds": round(time.monotonic() - begun, 1),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": rundir.versions(),
            "hardware": rundir.hardware(),
        }
        if second is not None:
            about["witness"] = second.about(out) | {"learned_of_proposed": int((sight.learned & found.proposed).sum())}
        made = folder.write(out, pairs.table, scores, suspicion, found, suspects, about)
        storage.remove(encode.parts)
        return _said(made)

    def _detectors(self) -> dict[str, Detector]:
        """By name, all there are."""
        found = {name: detector.named(name) for name in plugins.names(Detector.FOLDERS)}
        if self.keyholes:
            return found
        panel = found["panel"]
        assert isinstance(panel, Panel)
        whole = {name: one for name, one in found.items() if one is panel or not set(one.views) & set(KEYHOLES)}
        return whole | {"panel": replace(panel, keyholes=())}

    def _recipe(
        self,
        dataset: Dataset,
        eyes: Viewer,
        second: Witness | None,
        detectors: dict[str, Detector],
        views: tuple[str, ...],
    ) -> dict[str, Any]:
        """What the result depends on."""
        asked = {} if second is None else {"witness": second.identity}
        return {
            "scan": {
                "dataset": dataset.digest,
                "run": eyes.identity,
                **asked,
                "search": self.search,
                "detectors": {name: config.to_json(one) for name, one in detectors.items()},
                "identity": {f"{name}_sha256": source(name) for name in views}
                | {"detectors_sha256": _code([type(one) for one in detectors.values()])},
            }
        }

    def _asked(self, second: Witness, encode: Encode, pairs: Pairs, found: Verdict, scratch: Path) -> Sight:
        learned = second.learned(pairs)
        log.say(
            f"the witness learned from {learned.sum():,} of {len(learned):,} pairs, and may be asked about "
            f"{sum(testimony.may_be_asked(found, learned))} of {len(found.clusters)} clusters"
        )
        parts = storage.join(encode.parts, "witness")
        seen = replace(encode, viewer=second.eyes, changes=(), parts=parts)
        self._encode(seen, "encoding for the witness")
        scratch.mkdir()
        arrays = gathering.gather(encode.dataset, seen, pairs, second.eyes.width, scratch).arrays
        return Sight(arrays[PLAIN], clipscore.unfit(arrays[PLAIN], arrays[TEXTS]), learned)

    def _encode(self, encode: Encode, what: str) -> None:
        there = set(storage.names(encode.parts))
        tasks = [(number, shard) for number, shard in enumerate(encode.dataset.shards) if shard.samples]
        missing = [task for task in tasks if encode.name(task[1]) not in there]
        spread(
            encode,
            missing,
            backend=self.backend,
            what=what,
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
    facts: dict[str, Any] = {name: value for name, value in asdict(cluster).items() if name not in ("rows", "core")}
    return facts | {"aims": [word.text for word in cluster.aims]}


def _said(scan: ScanFolder) -> str:
    return f"{folder.told(scan.about['clusters'])}; scan of {scan.table.num_rows:,} pairs at {scan.url}"
