"""Neighbours of a whole set, against an independent float64 computation over all pairs."""

import re

import numpy as np
import pytest
import torch

from defense import neighbours
from defense.neighbours import nearest, unit
from infra.seeding import rng
from tests.support import gpu

RANKS = (16, 32, 64)


def rows(count: int, width: int = 24, seed: int = 0) -> np.ndarray:
    return unit(rng(seed, "rows").standard_normal((count, width)))


def brute(vectors: np.ndarray, keep: int) -> tuple[np.ndarray, np.ndarray]:
    """(places, all distances in order) of every row."""
    wide = vectors.astype(np.float64)
    apart = ((wide[:, None] - wide[None]) ** 2).sum(axis=2) / 2
    places, distances = [], []
    for own, line in enumerate(apart):
        others = sorted((d, place) for place, d in enumerate(line.tolist()) if place != own)
        places.append([place for _, place in others[:keep]])
        distances.append([d for d, _ in others])
    return np.array(places), np.array(distances)


def crowd() -> np.ndarray:
    """Duplicates of several sizes, near duplicates, and rows that are as far from one another as can be."""
    base = rows(40)
    close = unit(base[:1] + 1e-6 * rng(1, "close").standard_normal((30, 24)))
    axes = np.eye(24, dtype=np.float32)
    parts = [base, base[:5].repeat(7, axis=0), base[3:4].repeat(60, axis=0), close, axes, -axes]
    return np.concatenate(parts)[rng(2, "order").permutation(40 + 35 + 60 + 30 + 48)]


@pytest.mark.parametrize("vectors", [rows(150), crowd()], ids=["spread", "crowd"])
@pytest.mark.parametrize("block", [7, 4096])
def test_neighbours_are_those_of_all_pairs_in_float64(vectors: np.ndarray, block: int) -> None:
    keep = 10
    found = nearest(vectors, keep, RANKS, block=block).near
    places, distances = brute(vectors, keep)
    assert np.allclose(found.distances, distances[:, :keep], atol=1e-12)
    for rank in RANKS:
        assert np.allclose(found.radii[rank], distances[:, rank - 1], atol=1e-9)
    assert (found.rows == places).all()


def test_they_do_not_depend_on_block_or_order() -> None:
    vectors = crowd()
    order = rng(3, "another order").permutation(len(vectors))
    first, other = nearest(vectors, 12, RANKS).near, nearest(vectors[order], 12, RANKS, block=31).near
    assert np.array_equal(first.distances[order], other.distances)
    for rank in RANKS:
        assert np.array_equal(first.radii[rank][order], other.radii[rank])
    assert np.array_equal(nearest(vectors, 12, block=5).near.rows, first.rows)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_fewer_rows_than_neighbours(count: int) -> None:
    vectors = np.concatenate([rows(count - 1), rows(1)]) if count > 2 else rows(count)
    found = nearest(vectors, 16, RANKS).near
    assert found.rows.shape == found.distances.shape == (count, count - 1)
    assert not found.radii
    assert (found.rows != np.arange(count)[:, None]).all()
    if count > 1:
        assert np.array_equal(found.rows, brute(vectors, 16)[0])


def test_equal_rows_are_at_distance_zero_lowest_first() -> None:
    vectors = np.concatenate([rows(3), rows(1, seed=9).repeat(30, axis=0)])
    found = nearest(vectors, 4).near
    assert found.rows[20].tolist() == [3, 4, 5, 6]
    assert found.rows[4].tolist() == [3, 5, 6, 7]
    assert (found.distances[3:] == 0).all()


def test_an_index_says_what_it_misses_and_finds_what_lies_close(capsys) -> None:
    centres = rows(60, width=32, seed=4)
    vectors = unit(centres.repeat(50, axis=0) + 0.05 * rng(5, "around").standard_normal((3000, 32)))
    exact = nearest(vectors, 16, RANKS, how="exact")
    found = nearest(vectors, 16, RANKS, how="approximate", what="images")
    assert exact.recall == {}
    assert 0.99 <= found.recall[16] <= 1
    missed = np.mean([len(set(a) - set(b)) / 16 for a, b in zip(exact.near.rows, found.near.rows, strict=True)])
    assert missed <= 0.02
    assert (found.near.distances >= exact.near.distances).all()
    assert "images: recall@16" in capsys.readouterr().err


def test_a_distance_leaves_the_rows_as_they_are_whatever_their_type() -> None:
    left, right = torch.ones(1, 4, dtype=torch.float64), torch.zeros(3, 4, dtype=torch.float64)
    assert neighbours.distance(left, right).tolist() == [2, 2, 2]
    assert (right == 0).all()


def test_any_number_of_threads_finds_the_same_with_an_index() -> None:
    vectors, before = rows(3000, width=8), torch.get_num_threads()
    answers = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            answers.append(nearest(vectors, 16, RANKS, how="approximate", block=100).near)
    finally:
        torch.set_num_threads(before)
    one, other = answers
    assert np.array_equal(one.rows, other.rows)
    assert np.array_equal(one.distances, other.distances)
    assert all(np.array_equal(one.radii[rank], other.radii[rank]) for rank in one.radii)


def test_an_index_that_looks_into_all_lists_finds_what_exact_search_finds_of_equal_rows_too(monkeypatch) -> None:
    monkeypatch.setattr(neighbours, "LEAST_PROBES", 256)
    vectors = np.concatenate([rows(1200), rows(300, seed=8).repeat(3, axis=0), rows(2, seed=9).repeat(50, axis=0)])
    found, exact = (nearest(vectors, 16, RANKS, how=how) for how in ("approximate", "exact"))
    assert set(found.recall.values()) == {1}
    assert np.array_equal(found.near.rows, exact.near.rows)
    assert np.array_equal(found.near.distances, exact.near.distances)
    assert all(np.array_equal(found.near.radii[rank], exact.near.radii[rank]) for rank in RANKS[1:])  # 16 are kept


def test_an_index_that_looks_into_too_few_lists_says_so(capsys, monkeypatch) -> None:
    for name in ("LEAST_PROBES", "MOST_PROBES"):
        monkeypatch.setattr(neighbours, name, 1)
    found = nearest(rows(3000, width=32), 16, how="approximate")
    assert found.recall[16] < 0.9
    assert "misses more than 1%" in capsys.readouterr().err


def test_an_index_looks_into_as_many_lists_as_the_recall_asked_for_needs(capsys) -> None:
    vectors = rows(3000, width=8)
    found = {enough: nearest(vectors, 16, how="approximate", enough=enough).recall[16] for enough in (0.99, 0.8)}
    assert 0.8 <= found[0.8] < found[0.99] - 0.005
    said = capsys.readouterr().err
    most, fewer = (int(count) for count in re.findall(r"looking into (\d+) lists", said))
    assert fewer < most / 2
    assert "misses more" not in said.split("looking into")[2]


def test_where_the_lists_hold_too_few_rows_all_are_compared(monkeypatch) -> None:
    for name in ("LEAST_PROBES", "MOST_PROBES"):
        monkeypatch.setattr(neighbours, name, 1)
    vectors = rows(200)
    found, exact = (nearest(vectors, 60, how=how) for how in ("approximate", "exact"))
    assert found.recall[16] == 1
    assert np.array_equal(found.near.rows, exact.near.rows)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_row_without_direction_is_refused(bad: float) -> None:
    vectors = rng(0, "rows").standard_normal((5, 4))
    vectors[2] = bad
    with pytest.raises(ValueError, match="zero or not finite"):
        unit(vectors)


@pytest.mark.gpu
def test_a_gpu_finds_the_same() -> None:
    vectors, device = crowd(), gpu.device().type
    here, there = (nearest(vectors, 10, RANKS, device=one).near for one in ("cpu", device))
    assert np.array_equal(here.rows, there.rows)
    assert np.array_equal(here.distances, there.distances)
