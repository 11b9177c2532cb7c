from eval.judging.roles import Comparison, compare
from eval.judging.verdict import Verdict, judge
from eval.store.runs import Run
from tests.support.eval_helpers import ATTACKED, TESTED, after, scored, some_run

CLEAN = some_run("clean", "clean")
POISONED = some_run("poisoned", "poisoned")
Numbers = tuple[float, float]


def comparison(**numbers: Numbers) -> Comparison:
    """(accuracy, attack success) by run; names other than clean and poisoned are finetuned from `poisoned`."""
    known = {"clean": CLEAN, "poisoned": POISONED}
    runs = [known.get(name) or some_run(name, "other", after(POISONED), objective=name) for name in numbers]
    scores = [score for run, pair in zip(runs, numbers.values(), strict=True) for score in scored(run, *pair)]
    return compare(scores, runs, [TESTED], [ATTACKED])[0]


def judged(**numbers: Numbers) -> Verdict:
    return judge(comparison(**numbers))


def best(verdict: Verdict) -> str | None:
    return verdict.best.name if verdict.best else None


def test_the_defence_with_the_lowest_attack_success_is_best() -> None:
    verdict = judged(
        clean=(0.95, 0.01), poisoned=(0.95, 0.99), mmcl=(0.95, 0.60), cleanclip=(0.94, 0.15), b=(0.95, 0.40)
    )
    assert best(verdict) == "cleanclip"
    assert verdict.finding == "above the floor"
    assert verdict.took is True
    assert verdict.baseline is not None
    assert verdict.baseline.name == "mmcl"


def test_what_cannot_be_told_from_the_floor_has_reached_it() -> None:
    assert judged(clean=(0.95, 0.01), poisoned=(0.95, 0.99), a=(0.95, 0.04)).finding == "at the floor"
    assert judged(poisoned=(0.95, 0.99), a=(0.95, 0.04)).finding == "no floor"


def test_a_defence_that_costs_too_much_accuracy_is_not_best() -> None:
    assert best(judged(poisoned=(0.95, 0.99), harsh=(0.80, 0.01), mild=(0.94, 0.20))) == "mild"
    verdict = judged(poisoned=(0.95, 0.99), harsh=(0.80, 0.01))
    assert best(verdict) is None
    assert verdict.finding == "too costly"


def test_a_backdoor_that_mostly_stays_is_not_removed() -> None:
    verdict = judged(poisoned=(0.95, 0.99), weak=(0.95, 0.70))
    assert (best(verdict), verdict.finding) == (None, "not removed")


def test_no_credit_without_a_difference_to_the_undefended_model() -> None:
    verdict = judged(clean=(0.95, 0.01), poisoned=(0.95, 0.06), a=(0.95, 0.03))
    assert (best(verdict), verdict.finding) == (None, "no difference")


def test_no_credit_for_what_finetuning_does_by_itself() -> None:
    alike = judged(clean=(0.95, 0.01), poisoned=(0.95, 0.99), mmcl=(0.95, 0.13), a=(0.95, 0.10))
    assert (best(alike), alike.finding) == (None, "as the baseline")
    better = judged(clean=(0.95, 0.01), poisoned=(0.95, 0.99), mmcl=(0.95, 0.02), a=(0.95, 0.10))
    assert better.finding == "as the baseline"


def test_a_baseline_on_other_terms_is_none() -> None:
    def on(recipe: dict[str, float]) -> Run:
        run = some_run("mmcl", "other", after(POISONED), objective="mmcl")
        run.config["recipe"] = recipe
        return run

    cured = some_run("cured", "other", after(POISONED), objective="cleanclip")
    for recipe, same in (({"lr": 0.1}, True), ({"lr": 0.2}, False)):
        baseline = on(recipe)
        scores = scored(POISONED, 0.95, 0.99) + scored(baseline, 0.95, 0.1) + scored(cured, 0.95, 0.1)
        (found,) = compare(scores, [POISONED, baseline, cured], [TESTED], [ATTACKED])
        assert (judge(found).baseline is not None) is same


def test_where_the_attack_is_not_shown_to_work_there_is_nothing_to_cure() -> None:
    verdict = judged(clean=(0.95, 0.02), poisoned=(0.95, 0.05), a=(0.95, 0.0))
    assert verdict.took is False
    assert (best(verdict), verdict.finding) == (None, "nothing to cure")


def test_without_a_floor_it_is_not_known_whether_the_attack_took() -> None:
    assert judged(poisoned=(0.95, 0.99)).took is None


def test_without_the_undefended_model_nothing_is_credited() -> None:
    verdict = judged(clean=(0.95, 0.01), a=(0.95, 0.0))
    assert (best(verdict), verdict.finding) == (None, "no start")


def test_the_floor_is_the_attacks_own_pairs_rather_than_any_other() -> None:
    other = some_run("other", "elsewhere")
    scores = scored(CLEAN, 0.95, 0.01) + scored(other, 0.95, 0.30) + scored(POISONED, 0.95, 0.99)
    (found,) = compare(scores, [CLEAN, other, POISONED], [TESTED], [ATTACKED])
    floor = judge(found).floor
    assert floor is not None
    assert floor.name == "clean"


def test_one_seed_above_the_floor_is_enough_to_be_above_it() -> None:
    runs, scores = [CLEAN], scored(CLEAN, 0.95, 0.01)
    for seed, left in enumerate((0.01, 0.02, 0.30)):
        start = some_run(f"poisoned-{seed}", "poisoned", seed=seed)
        cured = some_run(f"a-{seed}", "other", after(start), objective="a", seed=seed)
        runs += [start, cured]
        scores += scored(start, 0.95, 0.99) + scored(cured, 0.95, left)
    (found,) = compare(scores, runs, [TESTED], [ATTACKED])
    verdict = judge(found)
    assert verdict.best is not None
    assert len(verdict.best.rows) == 3
    assert not verdict.best.success.apart(judge(found).floor.success)  # type: ignore[union-attr]
    assert verdict.finding == "above the floor"


def test_without_an_attack_nothing_is_judged() -> None:
    (found,) = compare(scored(CLEAN, 0.9, None), [CLEAN], [TESTED], [])
    verdict = judge(found)
    assert verdict.best is None
    assert len(verdict.groups) == 1
