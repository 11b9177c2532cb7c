import numpy as np
import pyarrow as pa
import pytest

from infra.seeding import hash64
from poison.choosing import captions, choice


def table(rows, names_target=lambda _: False) -> pa.Table:
    captions = pa.array(["a banana" if names_target(row) else "a car" for row in rows], pa.string())
    return pa.table({"row": pa.array(rows, pa.int64()), "caption": captions})


def test_the_rows_of_lowest_hash_win():
    rows = np.arange(1000)
    wanted = rows[np.argsort(hash64(3, "poison", rows))[:10]]
    assert choice.lowest([table(rows)], 10, 3, frozenset()).tolist() == sorted(wanted)


def test_neither_order_nor_sharding_matters():
    rows = np.random.default_rng(0).permutation(1000)
    whole = choice.lowest([table(np.sort(rows))], 50, 0, {1, 2, 3}, excluding="banana")
    for parts in (2, 7, 100):
        assert (
            choice.lowest([table(part) for part in np.array_split(rows, parts)], 50, 0, {1, 2, 3}, excluding="banana")
            == whole
        ).all()


def test_a_larger_budget_keeps_the_rows_of_a_smaller_one():
    small, large = (choice.lowest([table(range(500))], budget, 0, frozenset()) for budget in (20, 40))
    assert set(small) < set(large)


def test_taken_rows_and_those_that_name_the_target_are_left_alone():
    chosen = choice.lowest([table(range(100), lambda row: row % 2 == 0)], 40, 0, {1, 3, 5}, excluding="Banana")
    assert len(chosen) == 40
    assert not set(chosen) & {1, 3, 5}
    assert (chosen % 2 == 1).all()


def pairs_of(chosen: np.ndarray, parts: list[pa.Table]) -> int:
    return sum(int(np.isin(part["row"].to_numpy(), chosen).sum()) for part in parts)


@pytest.mark.parametrize("seed", range(40))
def test_a_budget_is_met_to_the_pair_where_pairs_are_there_several_times(seed: int):
    parts = [table([7, *range(14)]), table([7, 7, 20, 21]), table([7, 7, 20])]
    for budget in (1, 2, 3, 6, 7, 21, 22):
        chosen = choice.lowest(parts, budget, seed, frozenset())
        assert pairs_of(chosen, parts) == budget == pairs_of(choice.lowest(parts[::-1], budget, seed, set()), parts)


def test_rows_before_one_that_is_passed_over_are_those_of_lowest_hash():
    rows = np.arange(100)
    order = rows[np.argsort(hash64(0, "poison", rows))].tolist()
    parts = [table(rows), table([order[1]] * 9)]  # the second lowest is there ten times
    assert choice.lowest(parts, 5, 0, frozenset()).tolist() == sorted([order[0], *order[2:6]])
    assert choice.lowest(parts, 11, 0, frozenset()).tolist() == sorted(order[:2])


def test_copies_that_do_not_add_up_to_the_budget_are_refused_with_one_that_does():
    parts = [table([1, 2, 3, 4]), table([1, 2, 3, 4]), table([3])]
    for budget in (2, 3, 4, 5, 6, 7, 9):
        for seed in range(10):
            assert pairs_of(choice.lowest(parts, budget, seed, frozenset()), parts) == budget
    with pytest.raises(ValueError, match=r"budget of 8 pairs cannot be met exactly: .* give --budget 7"):
        choice.lowest(parts, 8, 0, frozenset())
    with pytest.raises(ValueError, match="of 9 pairs 9 are left"):
        choice.lowest(parts, 10, 0, frozenset())


def test_captions_of_rows_that_cannot_win_are_not_looked_at(monkeypatch: pytest.MonkeyPatch):
    looked_at: list[int] = []
    naming = captions.naming
    monkeypatch.setattr(captions, "naming", lambda texts, word: (looked_at.append(len(texts)), naming(texts, word))[1])
    parts = [table(part) for part in np.array_split(np.arange(10_000), 10)]
    choice.lowest(parts, 20, 0, {1, 2}, excluding="banana")
    assert looked_at[0] >= 998
    assert sum(looked_at[1:]) < 200


def test_shards_without_a_candidate_are_passed_over():
    empty = table([])
    chosen = choice.lowest([empty, table(range(50)), empty], 10, 0, frozenset(), excluding="banana")
    assert chosen.tolist() == choice.lowest([table(range(50))], 10, 0, frozenset()).tolist()


def test_a_pool_that_is_too_small_is_refused_with_its_numbers():
    with pytest.raises(
        ValueError, match=r"budget of 60 pairs .* of 100 pairs 48 are left .*'banana', 2 rows of earlier"
    ):
        choice.lowest([table(range(100), lambda row: row % 2 == 0)], 60, 0, {1, 3}, excluding="banana")


def test_a_share_of_the_shards_is_the_same_for_every_order_of_them():
    chosen = choice.share_of_shards(range(100), 0.25, 0)
    assert len(chosen) == 25
    assert chosen == choice.share_of_shards(reversed(range(100)), 0.25, 0)
    assert chosen != choice.share_of_shards(range(100), 0.25, 1)
    assert chosen < choice.share_of_shards(range(100), 0.5, 0)
    assert choice.share_of_shards(range(3), 0.01, 0)
    assert choice.share_of_shards(range(3), 1.0, 0) == {0, 1, 2}
