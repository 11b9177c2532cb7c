"""Scans made by hand: what one may have found, without a model that looked."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from defense.scanning.folder import ScanFolder
from infra import storage
from pipeline.images import encode


def cluster(number: int, planted: bool, captions: list[str], witness: float | None = None) -> dict[str, Any]:
    """witness: what it says of the word."""
    said = None if witness is None else ("untrue" if planted else "true")
    return {
        "number": number, "pairs": 106 - number, "planted": planted, "suspicion": 5.0, "witness": said,
        "better": None if said is None else 0.999 if planted else 0.41,
        "lost": {"blur": 0.61, "crop": 0.1},
        "words": [{
            "text": "banana", "share": 0.98, "elsewhere": 312, "odds": 4.0, "stays": {"blur": 0.12, "crop": 0.04},
            "witness": witness,
        }],
        "rows": [1, 2], "captions": captions, "columns": ["images", "blur", "crop"], "averaged": 64,
    }  # fmt: skip


def scan(folder: Path, clusters: list[dict[str, Any]], saw: bool | None = True, witness: bool = False) -> ScanFolder:
    for number in range(len(clusters)):
        storage.write(f"{folder}/images/cluster-{number}.png", encode(np.zeros((384, 96, 3), np.uint8), "png"))
        storage.write(f"{folder}/images/cluster-{number}-average.png", encode(np.zeros((8, 8, 3), np.uint8), "png"))
    proposed = np.arange(1000) < (106 if clusters and clusters[0]["planted"] else 0)
    table = pa.table({
        "row": np.arange(1000), "key": [str(n) for n in range(1000)], "shard": np.zeros(1000, np.int32),
        "gap": np.zeros(1000), "panel": np.where(proposed, 9.0, 1.0) + np.arange(1000) / 1e4,
        "cluster": pa.array(np.zeros(1000, np.int32), mask=~proposed), "proposed": proposed,
        "suspect": np.arange(1000) < (120 if clusters else 0),
    })  # fmt: skip
    second = {"url": "../witness", "checkpoint": "step-0000007", "weights_sha256": "x" * 64}
    second |= {"dataset": {"url": "../without", "samples": 894}, "learned_of_proposed": 0}
    about = {
        "dataset": {"url": "../train", "digest": "d" * 64}, "changes": ["blur", "crop"], "clusters": clusters,
        "run": {"url": "../run", "saw_these_pairs": saw, "checkpoint": "step-0000005", "weights_sha256": "w" * 64},
        "witness": second if witness else None,
        "proposed": int(proposed.sum()), "recall": {"images": {"16": 0.9951}}, "seconds": 3.0,
        "versions": {"code": "1"}, "finished": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    return ScanFolder(str(folder), about, table, "s" * 64)
