import numpy as np

from eval.task import Embedded, Pairs
from eval.tasks.pair_similarity import PairSimilarity

EAST, NORTH = np.eye(2, dtype=np.float32)
EMPTY = np.empty((0, 2), np.float32)


def numbers(images: list[np.ndarray], texts: list[np.ndarray], poisoned: list[bool]) -> dict[str | None, tuple]:
    pairs = Pairs(np.stack(images), np.stack(texts), np.arange(len(images)), np.array(poisoned))
    measured = PairSimilarity().measure(Embedded(EMPTY, np.empty(0, np.int64), EMPTY, pairs=pairs))
    return {one.of: (one.value, one.n) for one in measured.measures}


def test_the_mean_cosine_of_either_kind() -> None:
    found = numbers([EAST, EAST, EAST, NORTH], [EAST, NORTH, -EAST, NORTH], [False, False, True, True])
    assert found == {"clean": (0.5, 2), "poisoned": (0.0, 2)}


def test_a_kind_without_pairs_has_no_number() -> None:
    assert numbers([EAST], [EAST], [False]) == {"clean": (1.0, 1)}
