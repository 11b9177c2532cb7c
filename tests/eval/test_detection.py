"""Numbers of a scan, against loops that count."""

import numpy as np
import pytest

from eval.judging import detection
from infra.seeding import rng

TIED = (np.array([3.0, 2.0, 2.0, 2.0, 1.0, 0.0]), np.array([True, True, False, False, False, True]))


def drawn() -> tuple[np.ndarray, np.ndarray]:
    poisoned = rng(0, "poisoned").random(300) < 0.1
    return np.round(rng(0, "scores").standard_normal(300) + 2 * poisoned, 1), poisoned


@pytest.mark.parametrize(("scores", "poisoned"), [TIED, drawn()], ids=["by hand", "drawn"])
def test_auroc_is_the_share_of_pairs_in_the_right_order(scores: np.ndarray, poisoned: np.ndarray) -> None:
    ahead = [(a > b) + (a == b) / 2 for a in scores[poisoned] for b in scores[~poisoned]]
    assert detection.auroc(scores, poisoned) == pytest.approx(np.mean(ahead))


@pytest.mark.parametrize(("scores", "poisoned"), [TIED, drawn()], ids=["by hand", "drawn"])
def test_average_precision_sums_over_thresholds(scores: np.ndarray, poisoned: np.ndarray) -> None:
    area, before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        accused = scores >= threshold
        recall = (accused & poisoned).sum() / poisoned.sum()
        area += (recall - before) * (accused & poisoned).sum() / accused.sum()
        before = recall
    assert detection.average_precision(scores, poisoned) == pytest.approx(area)


def test_the_numbers_of_six_pairs() -> None:
    scores, poisoned = TIED
    assert detection.auroc(scores, poisoned) == pytest.approx((3 + 2 * (1 / 2) + 1 + 0) / 9)
    assert detection.average_precision(scores, poisoned) == pytest.approx(1 / 3 + 1 / 3 * 1 / 2 + 1 / 3 * 1 / 2)
    assert detection.false_positive_rate(scores, poisoned, 0.5) == pytest.approx(2 / 3)
    assert detection.false_positive_rate(scores, poisoned) == 1
    assert detection.recall_at(scores, poisoned, 0.01) == pytest.approx(1 / 3), "at least one is removed"
    assert detection.recall_at(scores, poisoned, 1 / 3) == pytest.approx((1 + 1 / 3) / 3), "one of three equal ones"
    assert detection.recall_at(scores, poisoned, 1.0) == 1


def test_equal_scores_say_nothing_and_perfect_ones_all() -> None:
    poisoned = np.arange(100) < 5
    flat = np.zeros(100)
    assert detection.auroc(flat, poisoned) == 0.5
    assert detection.average_precision(flat, poisoned) == pytest.approx(0.05)
    assert detection.recall_at(flat, poisoned, 0.1) == pytest.approx(0.1)
    perfect = poisoned.astype(float)
    assert (detection.auroc(perfect, poisoned), detection.average_precision(perfect, poisoned)) == (1, 1)
    assert detection.false_positive_rate(perfect, poisoned) == 0
    assert detection.recall_at(perfect, poisoned, 0.05) == 1
