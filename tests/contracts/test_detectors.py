"""Every detector, whoever wrote it: pure, finite, one number a pair, whatever the order of the pairs."""

import copy

import numpy as np
import pytest

from defense.changing.views import VIEWS
from defense.detector import Detector, Evidence, named, needs
from infra import config, plugins
from tests.support.sets import evidence_of
from train.embedding import normalised

DETECTORS = plugins.names(Detector.FOLDERS)


def arrays(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Row ids, images, texts and changed images of `count` pairs; some images are equal, many captions are."""
    generator = np.random.default_rng(5)
    images = normalised(generator.normal(size=(count, 12)))
    images[1 : count // 8 : 2] = images[0]
    texts = normalised(generator.normal(size=(5, 12)))[generator.integers(5, size=count)]
    changed = {view: normalised(images + 0.4 * generator.normal(size=images.shape)) for view in VIEWS}
    ids = generator.permutation(10 * count)[:count]
    return ids, images, texts, changed


def example(name: str, count: int = 150) -> Evidence:
    return evidence_of(*arrays(count), needs([named(name)]))


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_is_pure_and_gives_one_finite_number_a_pair(name: str) -> None:
    given = example(name)
    before = copy.deepcopy(given)
    scores = named(name).score(given)
    assert scores.shape == given.ids.shape and scores.dtype == np.float64
    assert np.isfinite(scores).all()
    assert (named(name).score(given) == scores).all()
    assert (given.images == before.images).all() and (given.texts == before.texts).all()
    assert (given.near.rows == before.near.rows).all() and (given.near.distances == before.near.distances).all()


@pytest.mark.parametrize("name", DETECTORS)
def test_a_pairs_score_goes_with_it_in_any_order_of_the_set(name: str) -> None:
    ids, images, texts, changed = arrays(150)
    order = np.random.default_rng(8).permutation(len(ids))
    wanted = needs([named(name)])
    scores = named(name).score(evidence_of(ids, images, texts, changed, wanted))
    moved = {view: rows[order] for view, rows in changed.items()}
    others = named(name).score(evidence_of(ids[order], images[order], texts[order], moved, wanted))
    assert np.abs(others - scores[order]).max() < 1e-9


@pytest.mark.parametrize("name", DETECTORS)
def test_float64_rounding_of_another_backend_moves_no_score_beyond_a_millionth(name: str) -> None:
    ids, images, texts, changed = arrays(150)
    wanted = needs([named(name)])
    scores = named(name).score(evidence_of(ids, images, texts, changed, wanted))
    rounded = evidence_of(ids, images, texts, changed, wanted)
    noise = np.random.default_rng(3)
    for distances in (rounded.near.distances, *rounded.near.radii.values()):
        distances *= 1 + 1e-12 * noise.uniform(-1, 1, size=distances.shape)
    assert np.abs(named(name).score(rounded) - scores).max() < 1e-6


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_fewer_rows_than_any_k_have_scores_too(name: str, count: int) -> None:
    scores = named(name).score(example(name, count))
    assert scores.shape == (count,) and np.isfinite(scores).all()


@pytest.mark.parametrize("name", DETECTORS)
def test_equal_rows_all_over_have_equal_finite_scores(name: str) -> None:
    ids, images, texts, changed = arrays(40)
    same = {view: np.repeat(rows[:1], 40, axis=0) for view, rows in changed.items()}
    given = evidence_of(
        ids, np.repeat(images[:1], 40, axis=0), np.repeat(texts[:1], 40, axis=0), same, needs([named(name)])
    )
    scores = named(name).score(given)
    assert np.isfinite(scores).all()
    assert np.ptp(scores) < 1e-9


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_reads_back_from_json_equal(name: str) -> None:
    assert config.from_json(Detector, config.to_json(named(name))) == named(name)
