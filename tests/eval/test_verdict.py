import pytest
from eval_helpers import ATTACKED, TESTED, after, scored, some_run

from eval.standing import Comparison, compare
from eval.verdict import judge, percent

CLEAN = some_run("clean", "clean")
POISONED = some_run("poisoned", "poisoned")


def comparison(**numbers: tuple[float, float]) -> Comparison:
    """(accuracy, attack success) by run; names other than clean and poisoned are cures of `poisoned`."""
    known = {"clean": CLEAN, "poisoned": POISONED}
    runs = [known.get(name) or some_run(name, "other", after(POISONED), objective=name) for name in numbers]
    scores = [score for run, pair in zip(runs, numbers.values(), strict=True) for score in scored(run, *pair)]
    return compare(scores, runs, [TESTED], [ATTACKED])[0]


def test_the_cure_with_the_lowest_attack_success_wins() -> None:
    verdict = judge(comparison(clean=(0.95, 0.01), poisoned=(0.95, 0.99), cleanclip=(0.94, 0.05), mmcl=(0.95, 0.40)))
    assert verdict.best is not None
    assert verdict.best.run.name == "cleanclip"
    assert verdict.attacked.startswith("30 of 3,000 (1.00%) image-caption pairs were poisoned with badnet")
    assert "obeys the trigger in 99.0% of cases" in verdict.attacked
    assert "1.0% (the floor)" in verdict.attacked
    assert verdict.won == (
        "cleanclip brought attack success from 99.0% to 5.0%, at 94.0% clean accuracy, 1.0 points less than "
        "undefended. mmcl leaves 40.0% at 95.0% accuracy."
    )


def test_a_cure_that_costs_too_much_accuracy_does_not_win() -> None:
    verdict = judge(comparison(poisoned=(0.95, 0.99), harsh=(0.80, 0.01), mild=(0.94, 0.20)))
    assert verdict.best is not None
    assert verdict.best.run.name == "mild"


def test_if_all_cost_too_much_none_wins() -> None:
    verdict = judge(comparison(poisoned=(0.95, 0.99), harsh=(0.80, 0.01)))
    assert verdict.best is None
    assert verdict.won.startswith("No defence kept clean accuracy within 3 points")


def test_a_backdoor_that_stays_is_said_to_stay() -> None:
    verdict = judge(comparison(poisoned=(0.95, 0.99), weak=(0.95, 0.70)))
    assert verdict.best is None
    assert verdict.won.startswith("No defence removed the backdoor. The best, weak, brought attack success from 99.0%")


def test_what_intervals_cannot_tell_apart_is_not_called_a_difference() -> None:
    verdict = judge(comparison(poisoned=(0.95, 0.99), a=(0.95, 0.05), b=(0.95, 0.06)))
    assert "b cannot be told apart from it" in verdict.won


def test_an_attack_that_did_not_take_is_said_so() -> None:
    verdict = judge(comparison(clean=(0.95, 0.02), poisoned=(0.95, 0.10)))
    assert "The attack hardly took" in verdict.attacked
    assert verdict.won == ""
    assert verdict.tried == "No defence is in this grid yet."


def test_without_a_floor_the_page_says_that_it_is_unknown() -> None:
    assert "the floor is not known" in judge(comparison(poisoned=(0.95, 0.99))).attacked


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.0, "0.0%"), (1.0, "100.0%"), (0.0004, "<0.1%"), (0.9999, ">99.9%"), (0.12345, "12.3%"), (0.001, "0.1%")],
)
def test_a_share_is_never_rounded_to_certainty(share: float, shown: str) -> None:
    assert percent(share) == shown
