"""What scores of suspicion are worth against the truth: pure functions of two small arrays.

scores: float (N,), higher is more suspicious. poisoned: bool (N,), at least one of each kind. Where scores are equal,
ranks are shared: no number below depends on the order of equal ones.
"""

import numpy as np

SHARES = (0.01, 0.02, 0.05, 0.10)  # of all pairs, removed
RECALL = 0.95  # at which the share of clean pairs accused is told


def auroc(scores: np.ndarray, poisoned: np.ndarray) -> float:
    """The share of (poisoned, clean) pairs of which the poisoned one is more suspicious; an equal one counts half.

    Mann and Whitney's U over the number of such pairs.
    """
    _, level, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[level]  # from 1, the mean where equal
    hits, rest = int(poisoned.sum()), int((~poisoned).sum())
    return float((rank[poisoned].sum() - hits * (hits + 1) / 2) / (hits * rest))


def average_precision(scores: np.ndarray, poisoned: np.ndarray) -> float:
    """Area under the precision-recall curve: sum over thresholds of (R_n - R_n-1) P_n, as scikit-learn defines it."""
    recall, _, precision = _curve(scores, poisoned)
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def false_positive_rate(scores: np.ndarray, poisoned: np.ndarray, recall: float = RECALL) -> float:
    """The share of clean pairs accused at the highest threshold that finds that share of the poisoned ones."""
    found, accused, _ = _curve(scores, poisoned)
    return float(accused[np.flatnonzero(found >= recall - 1e-12)[0]])


def recall_at(scores: np.ndarray, poisoned: np.ndarray, share: float) -> float:
    """The share of the poisoned found where the most suspicious `share` of all pairs is removed (at least one).

    Of pairs as suspicious as the last of these, as many are counted as a random choice among them would find.
    """
    count = max(1, round(share * len(scores)))
    last = np.sort(scores)[::-1][count - 1]
    above, level = scores > last, scores == last
    room = (count - above.sum()) / level.sum()
    return float((poisoned & above).sum() + room * (poisoned & level).sum()) / int(poisoned.sum())


def _curve(scores: np.ndarray, poisoned: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every threshold, the highest first: recall, share of the clean accused, precision."""
    levels, level = np.unique(-scores, return_inverse=True)
    hits = np.cumsum(np.bincount(level, weights=poisoned, minlength=len(levels)))
    false = np.cumsum(np.bincount(level, weights=~poisoned, minlength=len(levels)))
    return hits / hits[-1], false / false[-1], hits / (hits + false)
