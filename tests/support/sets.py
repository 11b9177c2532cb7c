"""Evidence for detectors made from small arrays, every distance worked out in float64."""

import numpy as np

from defense.detector import Changed, Evidence, Needs, Neighbours, ranks


def distances_of(rows: np.ndarray) -> np.ndarray:
    """Half the squared distance of every two rows: float64 (N, N), infinite of a row to itself."""
    apart = rows[:, None].astype(np.float64) - rows[None]
    found = (apart**2).sum(axis=2) / 2
    np.fill_diagonal(found, np.inf)
    return found


def neighbours_of(rows: np.ndarray, ids: np.ndarray, count: int, further: list[int]) -> Neighbours:
    """Exact ones; of equal distances the lower row id first."""
    distances = distances_of(rows)
    order = np.stack([np.lexsort((ids, line)) for line in distances])[:, : len(rows) - 1]
    found = np.take_along_axis(distances, order, axis=1)
    radii = {min(rank, len(rows) - 1): found[:, min(rank, len(rows) - 1) - 1] for rank in further if len(rows) > 1}
    return Neighbours(order[:, :count], found[:, :count], radii)


def evidence_of(
    ids: np.ndarray, images: np.ndarray, texts: np.ndarray, changed: dict[str, np.ndarray], needs: Needs
) -> Evidence:
    """What a scan would bring for detectors with these needs."""
    return Evidence(
        ids=ids,
        images=images,
        texts=texts,
        near=neighbours_of(images, ids, needs.neighbours, ranks(needs)),
        captions=neighbours_of(texts, ids, needs.captions, []),
        changed={
            view: Changed(changed[view], neighbours_of(changed[view], ids, needs.neighbours, []))
            for view in needs.views
        },
    )
