from dataclasses import replace

import pytest

from eval.judging.roles import compare
from eval.judging.seeds import Group, gather
from eval.store.runs import Run
from tests.support.eval_helpers import ATTACKED, TESTED, after, scored, some_run


def groups(*runs: Run) -> list[Group]:
    scores = [score for number, run in enumerate(runs) for score in scored(run, 0.9, 0.1 * number)]
    return gather(compare(scores, runs, [TESTED], [ATTACKED])[0])


def names(found: list[Group]) -> list[list[str]]:
    return [[row.run.name for row in group.rows] for group in found]


def test_runs_that_differ_only_by_seed_are_taken_together() -> None:
    starts = [some_run(f"poisoned-{seed}", "poisoned", seed=seed) for seed in range(2)]
    cures = [some_run(f"a-{seed}", "other", after(starts[seed]), objective="a", seed=seed) for seed in range(2)]
    assert names(groups(*starts, *cures)) == [["poisoned-0", "poisoned-1"], ["a-0", "a-1"]]


def test_another_recipe_objective_or_dataset_is_another_group() -> None:
    first = some_run("first", "poisoned", seed=0)
    other_recipe = some_run("second", "poisoned", seed=1)
    other_recipe.config["recipe"] = {"lr": 0.2}
    other_objective = some_run("third", "poisoned", objective="roclip", seed=2)
    other_pairs = some_run("fourth", "clean", seed=3)
    assert sorted(names(groups(first, other_recipe, other_objective, other_pairs))) == [
        ["first"],
        ["fourth"],
        ["second"],
        ["third"],
    ]


def test_cures_of_unlike_starts_are_not_alike() -> None:
    starts = [some_run(f"poisoned-{seed}", "poisoned", seed=seed) for seed in range(2)]
    starts[1].config["recipe"] = {"lr": 0.7}
    cures = [some_run(f"a-{seed}", "other", after(starts[seed]), objective="a", seed=seed) for seed in range(2)]
    assert len(groups(*starts, *cures)) == 4


def test_two_runs_of_one_seed_stand_alone() -> None:
    twins = [some_run("a", "poisoned", seed=0), some_run("b", "poisoned", seed=0), some_run("c", "poisoned", seed=1)]
    assert names(groups(*twins)) == [["a"], ["b"], ["c"]]


def test_a_mean_has_the_range_of_values_and_the_reach_of_intervals() -> None:
    (group,) = groups(*(some_run(f"p{seed}", "poisoned", seed=seed) for seed in range(3)))
    share = group.success
    assert (share.value, share.least, share.most) == (pytest.approx(0.1), 0.0, 0.2)
    assert (share.low, share.high) == (0.0, pytest.approx(0.22))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (("poisoned-0", "poisoned-1"), "poisoned"),
        (("seed0/poisoned", "seed1/poisoned"), "poisoned"),
        (("s3://b/poisoned/s0", "s3://b/poisoned/s1"), "s3:-b-poisoned"),
        (("x", "y"), "clip"),
    ],
)
def test_a_group_is_called_what_its_runs_names_share(given: tuple[str, str], name: str) -> None:
    runs = [replace(some_run(f"p{n}", "poisoned", seed=n), name=one) for n, one in enumerate(given)]
    assert [group.name for group in groups(*runs)] == [name]
