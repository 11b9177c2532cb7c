import numpy as np
import pytest

from train import order


def test_an_epoch_visits_every_sample_once_but_for_the_incomplete_batch():
    steps, taken = order.steps_per_epoch(103, 10), order.epoch_ids(0, 0, 10, 103)
    ids = np.concatenate([order.batch_ids(taken, step, 10) for step in range(steps)])
    assert steps == 10
    assert len(set(ids.tolist())) == 100
    assert set(ids.tolist()) <= set(range(103))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [tuple(order.permutation(seed, epoch, 1000)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4
    assert all(sorted(one) == list(range(1000)) for one in orders)


def test_positions_in_an_order_are_uniform():
    where = np.stack([np.argsort(order.permutation(seed, 0, 64)) for seed in range(2000)])
    assert abs(where.mean(axis=0) - 31.5).max() < 4 * np.sqrt((64**2 - 1) / 12 / 2000)


def test_neighbours_are_not_kept_together():
    following = np.diff(order.permutation(0, 0, 100_000))
    assert np.mean(np.abs(following) == 1) < 1e-3


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_the_parts_of_the_ranks_make_the_same_global_batch(ranks):
    taken = order.epoch_ids(3, 2, 16, 500)
    parts = [order.batch_ids(taken, 5, 16, rank, ranks) for rank in range(ranks)]
    assert np.array_equal(np.concatenate(parts), order.batch_ids(taken, 5, 16))
    assert np.array_equal(np.concatenate(parts), order.permutation(3, 2, 500)[80:96])


def test_by_role_an_epoch_has_the_same_samples_in_passes():
    roles = np.random.default_rng(0).integers(0, 3, 103)
    plain, passes = order.epoch_ids(1, 4, 10, 103), order.epoch_ids(1, 4, 10, 103, roles)
    assert sorted(passes) == sorted(plain)
    assert (np.diff(roles[passes]) >= 0).all()
    for role in range(3):
        assert passes[roles[passes] == role].tolist() == plain[roles[plain] == role].tolist()


def test_the_order_is_the_same_one_for_ever():
    """Numbers of the first version: a run that is resumed after an upgrade must go on as it began."""
    assert order.permutation(0, 0, 12).tolist() == [0, 10, 6, 7, 4, 5, 9, 8, 1, 3, 2, 11]
    assert order.permutation(7, 3, 1_000_000)[:3].tolist() == [701730, 602015, 741516]


@pytest.mark.parametrize(("batch", "ranks"), [(10, 3), (4, 8)])
def test_a_batch_that_the_ranks_do_not_divide_is_refused(batch, ranks):
    with pytest.raises(ValueError, match=rf"batch of {batch} cannot be divided among {ranks} ranks: set --batch"):
        order.batch_ids(order.epoch_ids(0, 0, batch, 100), 0, batch, 0, ranks)


def test_a_dataset_below_one_batch_is_refused():
    with pytest.raises(ValueError, match="7 samples, less than one batch of 8: set --batch lower"):
        order.steps_per_epoch(7, 8)


def test_an_order_too_large_to_sort_at_once_is_the_same_one_in_parts(monkeypatch: pytest.MonkeyPatch):
    whole = order.epoch_ids(5, 2, 7, 1000)
    monkeypatch.setattr(order, "LARGEST", 100)
    monkeypatch.setattr(order, "BLOCK", 64)
    sorted_parts = []
    monkeypatch.setattr(order.np, "argsort", lambda hashes: sorted_parts.append(len(hashes)) or hashes.argsort())
    taken = order.epoch_ids(5, 2, 7, 1000)
    assert isinstance(taken, order.InParts)
    assert len(taken) == len(whole) == 994
    assert np.array_equal(np.concatenate([order.batch_ids(taken, step, 7) for step in range(142)]), whole)
    assert len(sorted_parts) < 40  # each part once, and twice where a batch lies in two
    assert max(sorted_parts) < 100
    for start, stop in ((0, 994), (500, 507), (993, 994), (10, 10), (990, 2000)):  # as a run that is resumed
        assert np.array_equal(taken[start:stop], whole[start:stop])
