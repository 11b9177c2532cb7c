from dataclasses import replace

import pytest

from eval.judging.roles import compare, role
from eval.judging.verdict import judge
from eval.reporting.wording import tried
from eval.store.runs import ADOPTED, UNKNOWN, Ancestor
from tests.support.eval_helpers import ATTACKED, TESTED, after, scored, some_run

CLEAN = some_run("clean", "clean")
POISONED = some_run("poisoned", "poisoned")
CURED = some_run("cured", "other", after(POISONED), objective="cleanclip")


def test_a_role_follows_from_what_the_first_ancestor_learned_from() -> None:
    assert role(CLEAN, ATTACKED).kind == "floor"
    assert role(POISONED, ATTACKED).kind == "poisoned"
    assert role(CURED, ATTACKED).kind == "defended"
    assert role(some_run("robust", "poisoned", objective="roclip"), ATTACKED).kind == "defended"
    assert role(some_run("plain", "poisoned", objective="augmented"), ATTACKED).kind == "poisoned", "no defence"
    assert role(some_run("finetuned clean", "other", after(CLEAN)), ATTACKED).kind == "floor"


def test_finetuning_without_a_defence_is_the_baseline_and_on_the_poisons_no_cure() -> None:
    assert role(some_run("mmcl", "other", after(POISONED), objective="mmcl"), ATTACKED).kind == "baseline"
    assert role(some_run("again", "poisoned", after(POISONED), objective="mmcl"), ATTACKED).kind == "poisoned"
    assert role(some_run("robust", "poisoned", after(POISONED), objective="a"), ATTACKED).kind == "defended"


def test_a_clean_model_that_was_finetuned_on_poisons_is_no_floor() -> None:
    late = some_run("late", "poisoned", after(CLEAN), objective="mmcl")
    assert role(late, ATTACKED).kind == "poisoned"
    cured = some_run("cured late", "other", after(late), after(CLEAN), objective="cleanclip")
    assert role(cured, ATTACKED).kind == "defended"
    runs = [CLEAN, late, cured]
    (found,) = compare([score for run in runs for score in scored(run, 0.9, 0.5)], runs, [TESTED], [ATTACKED])
    start = found.start(found.rows[2])
    assert start is not None
    assert start.run is late


def test_a_twin_began_with_the_pairs_that_were_then_poisoned() -> None:
    assert role(CLEAN, ATTACKED).twin
    assert role(some_run("finetuned clean", "other", after(CLEAN)), ATTACKED).twin
    assert not role(some_run("elsewhere", "elsewhere"), ATTACKED).twin
    assert not role(POISONED, ATTACKED).twin


def test_the_words_say_what_was_done() -> None:
    assert role(CLEAN, ATTACKED).words == "trained on the same pairs, without the poison"
    assert role(CURED, ATTACKED).words == "finetuned from poisoned with cleanclip"
    again = some_run("again", "poisoned", after(POISONED), objective="mmcl")
    assert role(again, ATTACKED).words == "finetuned from poisoned without a defence, on the poisoned pairs"
    assert role(some_run("elsewhere", "elsewhere"), ATTACKED).words == "trained on other pairs (elsewhere)"
    assert role(CLEAN, None).words == "trained on clean"


def test_a_later_attack_on_top_leaves_the_earlier_poisons_in() -> None:
    later = replace(ATTACKED, key="blended-1", parent_digest="poisoned", dataset_digest="both")
    run = some_run("both", "both")
    assert role(run, ATTACKED, [ATTACKED, later]).kind == "poisoned"
    assert role(POISONED, later, [ATTACKED, later]).kind == "floor"


def test_the_clean_pairs_below_a_chain_of_attacks_are_the_same_pairs_for_each_of_them() -> None:
    second = replace(ATTACKED, key="targeted-1", parent_digest="poisoned", dataset_digest="two")
    third = replace(ATTACKED, key="swap-1", parent_digest="two", dataset_digest="three")
    known = [ATTACKED, second, third]
    assert all(role(CLEAN, one, known).twin for one in known)
    assert role(CLEAN, third, known).words == "trained on the same pairs, without the poison"
    assert role(POISONED, third, known).twin
    assert not role(CLEAN, third, [third]).twin  # what lies between is not known
    assert not role(some_run("elsewhere", "elsewhere"), third, known).twin
    assert {role(some_run("three", "three"), one, known).kind for one in known} == {"poisoned"}
    nothing = replace(ATTACKED, key="control-1", parent_digest="clean", dataset_digest="clean")
    assert role(CLEAN, ATTACKED, [ATTACKED, nothing]).twin


def test_runs_stand_in_the_order_floor_poisoned_baseline_defended() -> None:
    baseline = some_run("mmcl", "other", after(POISONED), objective="mmcl")
    runs = [CURED, baseline, POISONED, CLEAN]
    scores = [score for run in runs for score in scored(run, 0.9, 0.5)]
    (found,) = compare(scores, runs, [TESTED], [ATTACKED])
    assert [row.run.name for row in found.rows] == ["clean", "poisoned", "mmcl", "cured"]
    assert found.start(found.rows[3]) is found.rows[1]
    assert found.measured()


def test_a_cure_is_compared_with_the_run_that_it_started_from() -> None:
    twin = some_run("poisoned twin", "poisoned", seed=1)
    cured = some_run("cured twin", "other", after(twin), objective="cleanclip")
    runs = [POISONED, twin, cured]
    (found,) = compare([score for run in runs for score in scored(run, 0.9, 0.5)], runs, [TESTED], [ATTACKED])
    start = found.start(next(row for row in found.rows if row.run is cured))
    assert start is not None
    assert start.run is twin


def test_a_run_without_its_attack_success_is_noticed() -> None:
    scores = scored(CLEAN, 0.9, None) + scored(POISONED, 0.9, 0.5)
    (found,) = compare(scores, [CLEAN, POISONED], [TESTED], [ATTACKED])
    assert not found.measured()


def test_two_values_of_one_number_are_refused() -> None:
    other_seed = [replace(score, seed=1) for score in scored(CLEAN, 0.8, None)]
    with pytest.raises(ValueError, match="twice"):
        compare(scored(CLEAN, 0.9, None) + other_seed, [CLEAN], [TESTED], [])


def test_without_an_attack_only_accuracy_is_compared() -> None:
    (found,) = compare(scored(CLEAN, 0.9, None), [CLEAN], [TESTED], [ATTACKED])
    assert found.attack is None
    assert found.measured()


THEIRS = some_run("theirs", UNKNOWN, objective=ADOPTED)


def test_weights_from_elsewhere_are_no_floor_and_not_called_poisoned() -> None:
    assert role(THEIRS, ATTACKED) == role(THEIRS, None)
    assert role(THEIRS, ATTACKED).kind == "unknown"
    assert role(THEIRS, ATTACKED).words == "weights from elsewhere; what it learned from is not known"
    cured = some_run("cured", "other", after(THEIRS), objective="cleanclip")
    assert role(cured, ATTACKED).kind == "unknown"
    assert role(cured, ATTACKED).words == ("finetuned from theirs with cleanclip; what that learned from is not known")


def test_what_is_known_of_a_later_step_counts() -> None:
    poisoned = some_run("poisoned here", "poisoned", after(THEIRS), objective="mmcl")
    assert role(poisoned, ATTACKED).kind == "poisoned"
    assert role(some_run("cured", "other", after(poisoned), after(THEIRS), objective="a"), ATTACKED).kind == "defended"


def test_a_run_on_what_a_scan_left_of_the_poisoned_pairs_is_filtered_and_a_cure() -> None:
    run = replace(some_run("filtered", "less"), filtered_from=("less than all", "poisoned"))
    assert role(run, ATTACKED).kind == "filtered"
    assert role(run, ATTACKED).words == "trained on what a scan left of the poisoned pairs"
    assert role(replace(run, filtered_from=("clean",)), ATTACKED).kind == "floor"
    on = Ancestor("filtered", run.weights_sha256, "less", 2900, ("poisoned",))
    assert role(some_run("on", "other", on, objective="mmcl"), ATTACKED).kind == "filtered"
    assert role(replace(CURED, filtered_from=("poisoned",)), ATTACKED).kind == "defended", "it began poisoned"


def test_a_run_on_a_mended_copy_of_the_poisoned_pairs_learned_from_poisons() -> None:
    run = replace(some_run("mended", "less"), part_of=("less than all", "poisoned"))
    assert role(run, ATTACKED).kind == "poisoned"
    assert role(run, ATTACKED).words == "trained on the poisoned pairs, undefended"
    assert role(replace(run, part_of=("clean",)), ATTACKED).kind == "floor"
    began = Ancestor("mended", run.weights_sha256, "less", 2900, part_of=("poisoned",))
    assert role(some_run("on", "other", began, objective="cleanclip"), ATTACKED).kind == "defended"


def test_a_filtered_run_is_judged_like_a_defence() -> None:
    run = replace(some_run("retrained", "less"), filtered_from=("poisoned",))
    scores = [*scored(CLEAN, 0.9, 0.01), *scored(POISONED, 0.9, 0.95), *scored(run, 0.9, 0.01)]
    (comparison,) = compare(scores, [CLEAN, POISONED, run], [TESTED], [ATTACKED])
    verdict = judge(comparison)
    assert [row.role.kind for row in comparison.rows] == ["floor", "poisoned", "filtered"]
    assert verdict.finding == "at the floor"
    assert verdict.best is not None and verdict.best.name == "retrained"
    assert "retrained: trained anew on what a scan left of the pairs." in tried(verdict)
