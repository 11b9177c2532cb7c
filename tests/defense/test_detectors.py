"""Each detector against loops in float64 that know nothing of how it is computed."""

from dataclasses import replace

import numpy as np
import pytest

from defense import density
from defense.detector import Detector, Evidence, Neighbours, needs, ranks
from defense.detectors.agreement import Agreement
from defense.detectors.clipscore import ClipScore
from defense.detectors.dao import Dao
from defense.detectors.disagreement import Disagreement
from defense.detectors.gap import Gap
from defense.detectors.glimpse import Glimpse
from defense.detectors.kdist import KDist
from defense.detectors.keyhole import Keyhole
from defense.detectors.lid import Lid
from defense.detectors.misfit import Misfit
from defense.detectors.scatter import Scatter
from defense.detectors.shift import Shift
from defense.detectors.slof import Slof
from infra import seeding
from tests.support.sets import distances_of, evidence_of
from train.embedding import normalised

CLOSE = 1e-6


def drawn(count: int, seed: int = 2, width: int = 8) -> dict[str, np.ndarray]:
    """Pairs with a cluster of near images, four equal ones, two pairs of equal captions, and a changed view."""
    generator = np.random.default_rng(seed)
    images = generator.normal(size=(count, width))
    images[: count // 4] = images[0] + 0.05 * generator.normal(size=(count // 4, width))
    images[-4:] = images[-1]
    texts = normalised(generator.normal(size=(count // 2 + 1, width)))[np.arange(count) // 2]
    return {
        "ids": generator.permutation(3 * count)[:count],
        "images": normalised(images),
        "texts": texts,
        "changed": normalised(images + 0.5 * generator.normal(size=images.shape)),
    }


def given(detector: Detector, count: int = 60, seed: int = 2) -> Evidence:
    data = drawn(count, seed)
    changed = dict.fromkeys(detector.views, data["changed"])
    return evidence_of(data["ids"], data["images"], data["texts"], changed, needs([detector]))


class Loops:
    """The same numbers one at a time: sorted lists, no array of neighbours."""

    def __init__(self, rows: np.ndarray, ids: np.ndarray) -> None:
        distances = distances_of(rows)
        self.lists = []
        for i in range(len(rows)):
            others = sorted((j for j in range(len(rows)) if j != i), key=lambda j: (distances[i, j], ids[j]))
            self.lists.append([(j, max(float(distances[i, j]), CLOSE)) for j in others])

    def near(self, i: int, k: int) -> list[int]:
        return [j for j, _ in self.lists[i][:k]]

    def radius(self, i: int, k: int) -> float:
        return self.lists[i][min(k, len(self.lists[i])) - 1][1]

    def dimension(self, i: int, k: int) -> float:
        terms = [np.log(distance / self.radius(i, k)) for _, distance in self.lists[i][:k]]
        return 1 / max(-float(np.mean(terms)), 1e-3)

    def smooth(self, values: list[float], k: int) -> np.ndarray:
        return np.array([(values[i] + np.mean([values[j] for j in self.near(i, k)])) / 2 for i in range(len(values))])


@pytest.mark.parametrize("count", [9, 60])  # fewer rows than k, and more
def test_densities_equal_loops(count: int) -> None:
    data = drawn(count)
    loops, n = Loops(data["images"], data["ids"]), range(count)
    radius = loops.radius
    kdist = [radius(i, 16) for i in n]
    slof = [np.mean([radius(i, 16) / radius(j, 16) for j in loops.near(i, 16)]) for i in n]
    dao = [
        np.log(np.mean([(radius(i, 16) / radius(j, 16)) ** loops.dimension(j, 16) for j in loops.near(i, 16)]))
        for i in n
    ]
    lid = [-loops.dimension(i, 32) for i in n]
    jumps = [max(np.log(radius(i, 4 * k) / radius(i, k)) for k in (4, 8, 16, 32, 64, 128, 256)) for i in n]
    for detector, expected in (
        (KDist(), np.array(kdist)),
        (Slof(), np.array(slof)),
        (Dao(), np.array(dao)),
        (Lid(), np.array(lid)),
        (Gap(), loops.smooth(jumps, 16)),
    ):
        assert np.allclose(detector.score(given(detector, count)), expected, rtol=1e-9, atol=1e-9), detector


@pytest.mark.parametrize("count", [9, 60])
def test_what_a_change_and_the_captions_say_equals_loops(count: int) -> None:
    data, n = drawn(count), range(count)
    images, texts, changed = (data[name].astype(np.float64) for name in ("images", "texts", "changed"))
    loops, after, captions = (Loops(data[name], data["ids"]) for name in ("images", "changed", "texts"))

    def half_square(a: np.ndarray, b: np.ndarray) -> float:
        return float(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / 2)

    moves = [np.log(max(half_square(images[i], changed[i]), CLOSE)) for i in n]
    shift = [moves[i] - np.mean([moves[j] for j in captions.near(i, 20)]) for i in n]
    apart = [
        np.log(
            max(np.mean([half_square(changed[i], changed[j]) for j in loops.near(i, 16)]), CLOSE)
            / max(np.mean([half_square(images[i], images[j]) for j in loops.near(i, 16)]), CLOSE)
        )
        for i in n
    ]
    agreed = [np.mean([texts[i] @ texts[j] for j in loops.near(i, 16)]) for i in n]
    agreed_after = [np.mean([texts[i] @ texts[j] for j in after.near(i, 16)]) for i in n]
    lost = [a - b for a, b in zip(agreed, agreed_after, strict=True)]
    among = [[texts[j] @ texts[k] for j in after.near(i, 16) for k in after.near(i, 16) if j != k] for i in n]
    unfit = [1 - images[i] @ texts[i] for i in n]
    once = [np.mean([unfit[j] for j in after.near(i, 16)]) for i in n]
    twice = [np.mean([once[j] for j in after.near(i, 16)]) for i in n]
    misfit = [np.mean(others) - own for others, own in zip(among, agreed_after, strict=True)]
    for detector, expected in (
        (ClipScore(), np.array(unfit)),
        (Shift(peers=20), loops.smooth(shift, 16)),
        (Shift(peers=0), loops.smooth(moves, 16)),
        (Scatter(), loops.smooth(apart, 16)),
        (Agreement(), loops.smooth(lost, 16)),
        (Keyhole(), np.array(twice)),
        (Keyhole(steps=1), np.array(once)),
        (Misfit(), loops.smooth(misfit, 16)),
        (Disagreement(), 1 - np.array(agreed)),
    ):
        assert np.allclose(detector.score(given(detector, count)), expected, rtol=1e-9, atol=1e-9), detector


@pytest.mark.parametrize("count", [5, 60])
def test_what_a_part_says_beyond_the_changed_whole_equals_loops(count: int) -> None:
    data, n, detector = drawn(count), range(count), Glimpse()
    generator = np.random.default_rng(6)
    changed = {
        view: normalised(data["images"] + (0.2 + place / 4) * generator.normal(size=data["images"].shape))
        for place, view in enumerate(detector.views)
    }
    texts = data["texts"].astype(np.float64)
    loops = {view: Loops(rows, data["ids"]) for view, rows in changed.items()}

    def agreed(view: str, i: int) -> float:
        return float(np.mean([texts[i] @ texts[j] for j in loops[view].near(i, 8)]))

    beyond = [agreed("middle", i) - np.median([agreed(view, i) for view in detector.changes]) for i in n]
    expected = [np.mean([beyond[j] for j in loops["middle"].near(i, 8)]) for i in n]
    evidence = evidence_of(data["ids"], data["images"], data["texts"], changed, needs([detector]))
    assert detector.changes == ("blur", "crop", "centre", "levels")
    assert np.allclose(detector.score(evidence), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [15, 16, 7])  # 60 pairs: four of 15; 16 does not divide them; fewer points than k
def test_within_batches_neighbours_are_images_and_captions_of_the_batch_without_ones_own(size: int) -> None:
    data = drawn(60)
    order = np.argsort(seeding.hash64(0, "batch", data["ids"]))
    expected = {name: np.zeros(60) for name in ("kdist", "slof", "dao", "lid")}
    for places in np.array_split(order, round(60 / size)):
        points = np.concatenate([data["images"][places], data["texts"][places]]).astype(np.float64)
        count = len(points)
        sorted_others = []
        for i in range(count):
            others = [j for j in range(count) if j % (count // 2) != i % (count // 2)]
            distances = {j: max(float(np.linalg.norm(points[i] - points[j])), CLOSE) for j in others}
            sorted_others.append(
                [(distances[j], j) for j in sorted(others, key=lambda j: (round(distances[j], 12), j))]
            )
        radius = [others[:16][-1][0] for others in sorted_others]
        dims = [
            1 / max(-np.mean([np.log(d / radius[i]) for d, _ in sorted_others[i][:16]]), 1e-3) for i in range(count)
        ]
        for at, place in enumerate(places):
            near = [j for _, j in sorted_others[at][:16]]
            expected["kdist"][place] = radius[at]
            expected["slof"][place] = np.mean([radius[at] / radius[j] for j in near])
            expected["dao"][place] = np.log(np.mean([(radius[at] / radius[j]) ** dims[j] for j in near]))
            expected["lid"][place] = -dims[at]
    for name, detector in {
        "kdist": KDist(batch=size),
        "slof": Slof(batch=size),
        "dao": Dao(batch=size),
        "lid": Lid(batch=size, k=16),
    }.items():
        assert np.allclose(detector.score(given(detector)), expected[name], rtol=1e-6, atol=1e-6), name


def published_slof(distances: np.ndarray, k: int) -> np.ndarray:
    """As released: a row's own column is deleted, and places in what is left are looked up in the whole table."""
    count = len(distances)
    radius = np.sort(distances, axis=1)[:, k - 1]
    found = np.empty(count)
    for i in range(count):
        line = np.delete(distances[i], i)
        found[i] = np.mean(radius[i] / radius[np.argsort(line)[:k]])
    return found


def test_the_published_lookup_takes_the_wrong_rows_beyond_ones_own() -> None:
    generator = np.random.default_rng(4)
    images = normalised(np.repeat(generator.normal(size=(20, 8)), 12, axis=0) + 0.2 * generator.normal(size=(240, 8)))
    images = images[generator.permutation(240)]
    detector = Slof(k=8)
    evidence = evidence_of(np.arange(240), images, images, {}, needs([detector]))
    scores, published = detector.score(evidence), published_slof(distances_of(images), 8)
    right = np.mean(np.abs(scores - published) < 1e-6 * scores)
    assert np.isclose(scores[-1], published[-1])  # no row lies beyond the last one
    assert right < 0.2


def test_a_row_in_its_own_neighbourhood_makes_the_dimension_the_same_for_all() -> None:
    generator = np.random.default_rng(6)
    estimates, published = [], []
    for width in (3, 12):
        points = normalised(generator.normal(size=(700, width + 1)))  # a sphere of that many dimensions
        distances = np.sqrt(2 * distances_of(points))
        rows = np.argsort(distances, axis=1)[:, :16]
        near = np.take_along_axis(distances, rows, axis=1)
        estimates.append(np.median(density.dimension(Neighbours(rows, near), 16)))
        own = np.concatenate([np.zeros((700, 1)), near[:, :15]], axis=1)
        published.append(np.median(-1 / np.log(own / near[:, 14:15] + 1e-4).mean(axis=1)))
    assert abs(estimates[0] - 3) < 0.6 and 7 < estimates[1] < 14
    assert published[0] < 1.7 and published[1] < 1.7


def test_a_planted_cluster_of_any_size_has_a_gap_that_the_distance_to_the_kth_does_not_see() -> None:
    generator = np.random.default_rng(9)
    for size in (20, 60, 110):
        images = generator.normal(size=(600, 16))
        images[:size] = images[0] + 0.1 * generator.normal(size=(size, 16))
        for detector, best in ((Gap(), True), (KDist(), False)):
            scores = detector.score(
                evidence_of(np.arange(600), normalised(images), normalised(images), {}, needs([detector]))
            )
            assert (set(np.argsort(-scores)[:size]) == set(range(size))) == best, (size, detector)


@pytest.mark.parametrize(
    ("detectors", "expected"),
    [
        ([], []),
        ([KDist()], []),
        ([Gap()], [32, 64, 128, 256, 512, 1024]),
        ([Gap(widest=16, smooth=32)], [64]),
    ],
)
def test_ranks_are_the_powers_of_two_beyond_the_neighbours(detectors: list[Detector], expected: list[int]) -> None:
    assert ranks(needs(detectors)) == expected


def test_needs_are_the_largest_of_all() -> None:
    found = needs([Shift(view="crop"), Agreement(view="blur"), Lid(), Gap()])
    assert found.views == ("blur", "crop")
    assert (found.neighbours, found.reach, found.captions) == (32, 1024, 64)


@pytest.mark.parametrize("detector", [Agreement(), Misfit(), Scatter(), Shift(), Disagreement()], ids=repr)
def test_parts_of_a_few_rows_add_up_to_the_same_as_one(detector: Detector, monkeypatch) -> None:
    evidence = given(detector)
    whole = detector.score(evidence)
    monkeypatch.setattr(density, "CELLS", 500)
    assert np.array_equal(detector.score(replace(evidence, agreements={})), whole)
