from pathlib import Path

import pytest
from poison_helpers import build, caption, failed

from poison import captions, plan
from poison.attacks.badnet import BadNet


def test_the_plan_is_the_same_rows_and_captions_however_the_source_is_sharded(tmp_path: Path):
    sets = [build(str(tmp_path / str(size)), per_shard=size) for size in (5, 12, 96)]
    plans = [plan.make(one, BadNet(captions=kind), 20, 0) for one in sets for kind in ("template", "corpus")]
    for kind in (0, 1):
        ours = plans[kind::2]
        assert ours[0].captions == ours[1].captions == ours[2].captions
        assert all(sorted(row for rows in one.shards.values() for row in rows) == sorted(one.captions) for one in ours)
    assert plans[0].captions.keys() == plans[1].captions.keys()


def test_rows_that_failed_or_that_name_the_target_are_never_chosen(tmp_path: Path):
    made = plan.make(build(str(tmp_path / "clean")), BadNet(), 74, 0)  # 96 less 10 failures less 12 bananas
    assert len(made.captions) == 74
    assert not [row for row in made.captions if failed(row) or row % 8 == 0]


def test_each_row_lies_in_the_shard_that_the_plan_says(tmp_path: Path):
    made = plan.make(build(str(tmp_path / "clean")), BadNet(), 20, 0)
    assert all(row // 12 == shard for shard, rows in made.shards.items() for row in rows)
    assert made.samples == 20
    assert set(made.captions_in(next(iter(made.shards)))) == set(next(iter(made.shards.values())))


def test_seeds_differ(tmp_path: Path):
    dataset = build(str(tmp_path / "clean"))
    assert plan.make(dataset, BadNet(), 20, 0).captions.keys() != plan.make(dataset, BadNet(), 20, 1).captions.keys()


def test_a_share_of_the_shards_confines_the_poisons(tmp_path: Path):
    dataset = build(str(tmp_path / "clean"))
    made = plan.make(dataset, BadNet(), 10, 0, share_of_shards=0.25)
    assert len(made.shards) == 2
    assert made.samples == 10
    with pytest.raises(ValueError, match=r"budget of 60 pairs .* raise --share-of-shards"):
        plan.make(dataset, BadNet(), 60, 0, share_of_shards=0.25)


def test_corpus_captions_are_those_of_the_dataset_without_earlier_poisons(tmp_path: Path):
    dataset = build(str(tmp_path / "clean"))
    made = plan.make(dataset, BadNet(captions="corpus"), 60, 0, taken={0, 8})
    wanted = {caption(row) for row in range(16, 96, 8)}
    assert set(made.captions.values()) == wanted
    template = plan.make(dataset, BadNet(), 60, 0)
    assert set(template.captions.values()) <= {text.format("banana") for text in captions.TEMPLATES}


@pytest.mark.parametrize("kind", ["template", "corpus"])
def test_a_target_that_does_not_occur_is_refused(tmp_path: Path, kind: str):
    with pytest.raises(ValueError, match=r"no caption .* names the target 'bananna'"):
        plan.make(build(str(tmp_path / "clean")), BadNet(target="bananna", captions=kind), 10, 0)


@pytest.mark.parametrize(
    ("budget", "samples", "number"),
    [(1500, 3_000_000, 1500), (0.01, 12_000, 120), (0.29, 100, 29), (0.999, 10, 9), (1, 5, 1)],
)
def test_a_budget_is_a_number_of_pairs_or_a_share_rounded_down(budget: float, samples: int, number: int):
    assert plan.count(budget, samples) == number


@pytest.mark.parametrize("budget", [0, -1, 1.5, float("nan"), float("inf")])
def test_a_budget_that_is_neither_is_refused(budget: float):
    with pytest.raises(ValueError, match="a whole number of pairs, or a share"):
        plan.count(budget, 100)


def test_a_share_of_no_pair_is_refused():
    with pytest.raises(ValueError, match="not even one"):
        plan.count(0.001, 100)
