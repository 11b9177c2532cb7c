import time
import tracemalloc
from itertools import chain

import numpy as np
import pytest

from train.lanes import Plan

UNEVEN = (13, 7, 0, 29, 11, 5, 31)  # of one shard all pairs were left out


def plan(lanes: int = 4, window: int = 2, **changed: object) -> Plan:
    fields = {"seed": 3, "batch": 8, "shard_ids": tuple(range(10, 17)), "counts": UNEVEN}
    return Plan(**(fields | {"lanes": lanes, "window": window} | changed))  # type: ignore[arg-type]


def batches(one: Plan, epoch: int = 0, rank: int = 0, ranks: int = 1, first_step: int = 0) -> list[list[int]]:
    return [ids.tolist() for ids in one.line(epoch).batches(one.of(rank, ranks), first_step)]


ALL = pytest.mark.parametrize(("lanes", "window"), [(1, 1), (1, 3), (2, 1), (4, 2), (8, 1), (8, 4)])


@ALL
def test_an_epoch_visits_every_sample_once_but_for_less_than_a_batch(lanes, window):
    one = plan(lanes, window)
    for epoch in range(20):
        taken = np.concatenate(batches(one, epoch))
        assert len(taken) == one.steps * 8 == 96 // 8 * 8
        assert len(set(taken.tolist())) == len(taken)
        assert set(taken.tolist()) <= set(range(96))


def test_what_is_left_over_is_another_in_other_epochs():
    one = plan(counts=(13, 7, 2, 29, 11, 5, 31))
    left = [frozenset(range(98)) - {*np.concatenate(batches(one, epoch)).tolist()} for epoch in range(8)]
    assert {len(each) for each in left} == {2}
    assert len(set(left)) > 3


@ALL
def test_the_parts_of_the_ranks_make_the_same_global_batches_and_any_step_can_be_the_first(lanes, window):
    one = plan(lanes, window)
    for epoch in (0, 1):
        whole = batches(one, epoch)
        for ranks in {1, 2, 4} & {*range(1, lanes + 1)}:
            for first_step in range(one.steps + 1):
                parts = [batches(one, epoch, rank, ranks, first_step) for rank in range(ranks)]
                assert [[*chain(*each)] for each in zip(*parts, strict=True)] == whole[first_step:]


def test_a_batch_takes_the_next_samples_of_every_lane_from_the_shards_of_its_window():
    one = plan(lanes=2, window=2, batch=4, shard_ids=tuple(range(12)), counts=(10,) * 12)
    shards = [(np.array(each) // 10).reshape(2, 2) for each in batches(one)]
    for lane in (0, 1):
        of_lane = [shard for each in shards for shard in each[lane].tolist()]
        line = one.line(0).shards.tolist()[6 * lane : 6 * lane + 6]
        first = 1 + lane  # shards in the first window: not all lanes go on to new ones at once
        windows = [line[:first], *(line[start : start + 2] for start in range(first, 6, 2))]
        expected = [frozenset(window) for window in windows for _ in range(10 * len(window))]
        assert all(shard in window for shard, window in zip(of_lane, expected, strict=True))
        assert of_lane != sorted(of_lane, key=line.index), "mixed within a window"


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [str(batches(plan(seed=seed), epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4


def test_the_order_is_the_same_one_for_ever():
    """Numbers of the first version: a run that is resumed after an upgrade must go on as it began."""
    assert batches(plan())[:2] == [[39, 36, 61, 47, 79, 92, 51, 9], [23, 28, 60, 64, 86, 94, 59, 4]]


@ALL
def test_the_uses_of_shards_are_those_of_the_batches(lanes, window):
    one, sizes = plan(lanes, window), np.array([100, 200, 300, 400, 500, 600, 700])
    home = np.repeat(np.arange(7), UNEVEN)
    for epoch in (0, 1):
        for rank in range(part := min(lanes, 2)):
            of_rank = one.of(rank, part)
            uses, most = one.line(epoch).uses(of_rank), 0
            for step, ids in enumerate(batches(one, epoch, rank, part)):
                active = {*uses.shards[(uses.first <= step) & (step <= uses.last)].tolist()}
                assert {*home[ids].tolist()} <= active
                assert len(active) <= len(of_rank) * window * (8 // lanes + 1)
                most = max(most, int(sizes[sorted(active)].sum()))
            assert one.line(epoch).need(of_rank, sizes) == most
    assert one.need(2, one.of(0, 1), sizes) == max(one.line(epoch).need(one.of(0, 1), sizes) for epoch in (0, 1))


def test_of_400_million_samples_a_rank_orders_only_the_windows_at_hand():
    one = plan(64, 4, batch=4096, shard_ids=tuple(range(40_000)), counts=(10_000,) * 40_000)
    tracemalloc.start()
    began = time.process_time()
    each = one.line(0).batches(one.of(3, 8), first_step=50_000)
    assert [len(next(each)) for _ in range(700)] == [512] * 700  # 44,800 places of each lane: into the next window
    one.line(0).uses(one.of(3, 8))
    assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    assert time.process_time() - began < 10
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("lanes", "ranks", "message"),
    [
        (5, 1, "5 lanes do not divide a batch of 24: set --lanes to 4, say, or --batch to a multiple"),
        (64, 1, "64 lanes do not divide a batch of 24: set --lanes to 24, say"),
        (4, 3, "3 ranks do not divide 4 lanes: set --lanes to 3, say"),
        (2, 4, "4 ranks do not divide 2 lanes: set --lanes to 4, say"),
    ],
)
def test_lanes_that_do_not_fit_are_refused(lanes, ranks, message):
    with pytest.raises(ValueError, match=message):
        plan(lanes, batch=24).of(0, ranks)


def test_a_dataset_below_one_batch_is_refused():
    with pytest.raises(ValueError, match="96 samples, less than one batch of 128: set --batch lower"):
        plan(batch=128)
