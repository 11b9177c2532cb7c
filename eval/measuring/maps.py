"""Where the embeddings of a test set lie, clean and under an attack: two principal components, fitted on clean ones."""

import numpy as np
import pyarrow as pa

from eval.store.predictions import MAP
from eval.task import Embedded
from infra.seeding import hash64

POINTS = 2000  # of clean and of triggered images, at most


def components(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean, float64 (D,), and the two directions of greatest spread, float64 (2, D), each with its largest part
    positive. rows: float (n, D), n > 0, D > 1."""
    middle = rows.mean(axis=0, dtype=np.float64)
    spread = (rows - middle).T @ (rows - middle)
    axes = np.linalg.eigh(spread)[1][:, ::-1][:, :2].T
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    return middle, axes * np.sign(largest)


def drawn(embedded: Embedded, target: int | None) -> pa.Table:
    """MAP: clean and triggered images, and of a run that answers by prompts the target's (`target`: its class number).

    Of more than POINTS images those of the lowest hash are shown; the components are of all clean ones.
    """
    trials = embedded.attacked
    assert trials is not None
    clean = embedded.features(embedded.images)
    middle, axes = components(clean)
    parts = [
        ("clean", embedded.names, embedded.labels, clean),
        ("triggered", trials.names, trials.labels, embedded.features(trials.images)),
    ]
    if target is not None:
        parts.append(("target", np.array([None]), np.array([target]), trials.classes[target][None]))
    tables = []
    for kind, names, labels, rows in parts:
        shown = _shown(names)
        at = (rows[shown] - middle) @ axes.T
        columns = [
            pa.array(names[shown].tolist(), pa.string()),
            pa.array([kind] * len(shown), pa.string()),
            pa.array(labels[shown], pa.int64()),
            *(pa.array(at[:, axis], pa.float32()) for axis in (0, 1)),
        ]
        tables.append(pa.table(columns, schema=MAP))
    return pa.concat_tables(tables).combine_chunks()


def _shown(names: np.ndarray) -> np.ndarray:
    if len(names) <= POINTS:
        return np.arange(len(names))
    lot = hash64(0, "map", np.array([int(name[:16], 16) for name in names], np.uint64))
    return np.sort(np.argsort(lot, kind="stable")[:POINTS])
