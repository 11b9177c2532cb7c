"""Studies that share cells with others, the two short tables of cures, and how near pairs lie."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from eval.studies import cures, plan, similarities, steps
from eval.studies.runner import KEPT, known
from eval.studies.study import filled
from tests.eval.test_plan import SMALL
from tests.support.frontier_cases import measured, number


def test_cells_of_another_study_stand_for_rows_of_the_same_definition(tmp_path: Path):
    planned = plan.read("left")
    found = known(planned, str(tmp_path), steps.rows(planned, "@"))
    assert (KEPT / "defenses" / "badnet.mmcl.4e-3.s0.json").exists() and found["badnet.mmcl.4e-3.s0"].value == "4e-3"
    assert not any(".par." in name for name in found), "nobody else has measured these"
    assert known(replace(planned, shares=()), str(tmp_path), steps.rows(planned, "@")) == {}
    longer = plan.read("left", ["epochs=8"])
    assert known(longer, str(tmp_path), steps.rows(longer, "@")) == {}, "of victims that were trained otherwise"


def test_cells_are_shared_with_studies_that_exist(tmp_path: Path):
    (tmp_path / "small.toml").write_text('shares = ["nothing"]\n' + SMALL)
    with pytest.raises(ValueError, match=re.escape("no study is named 'nothing' to share cells with; there are: ")):
        plan.read(str(tmp_path / "small.toml"))


def cells(attack: str, runs: dict[str, tuple[float, float]]):
    """By the row's name, from clean accuracy and attack success by METHOD or METHOD.VALUE."""
    found = {}
    for run, (accuracy, success) in runs.items():
        method, _, value = run.partition(".")
        two = number("zeroshot", "accuracy", accuracy), number("attack_success", "attack_success", success)
        found[f"{attack}.{run}.s0"] = measured(attack, method, value or "-", 0, *two)
    return found


def test_a_cure_counts_within_a_point_of_accuracy():
    planned = replace(plan.read("left"), attacks=("badnet", "blended", "badclip"), methods=METHODS)
    found = cells(
        "badnet",
        {
            "floor": (0.95, 0.03),
            "undefended": (0.95, 0.99),
            "mmcl.4e-3": (0.97, 0.60),
            "mmcl.8e-3": (0.94, 0.20),
            "mmcl.16e-3": (0.939, 0.01),  # better, and more than a point away
            "cleanclip.4e-3": (0.95, 0.03),
            "par.8e-3": (0.90, 0.02),
            "par.16e-3": (0.93, 0.02),
        },
    )
    found |= cells(
        "blended",
        {"floor": (0.95, 0.0), "undefended": (0.95, 0.9), "mmcl.4e-3": (0.95, 0.02), "par.8e-3": (0.95, 0.011)},
    )
    text = cures.left(filled(planned, found))
    assert (
        "| badnet | 3.0% | 99.0% at 95.0% | 20.0% at 94.0% (8e-3) | **3.0%** at 95.0% (4e-3) | none; 2.0% at 93.0% |"
    ) in text
    assert "| blended | 0.0% | 90.0% at 95.0% | 2.0% at 95.0% (4e-3) | - | 1.1% at 95.0% (8e-3) |" in text
    assert "| badclip | - | - | - | - | - |" in text
    assert text.endswith("Left by every method: blended. Not measured: badclip.\n"), "1.1% is more than 1%"


METHODS = ("floor", "undefended", "mmcl", "cleanclip", "par")


def test_a_series_has_the_words_of_its_plan():
    planned = replace(plan.read("inmodal_weight"), attacks=("badnet",))
    found = cells("badnet", {"floor": (0.95, 0.01), "mmcl.8e-3": (0.95, 0.2), "weighted.4": (0.9, 0.02)})
    lines = cures.series(filled(planned, found)).splitlines()
    assert [line.split(" | ")[1] for line in lines[2:]] == [
        "never poisoned",
        "undefended",
        "weight 0 (mmcl)",
        "weight 1 (cleanclip)",
        "weight 2",
        "weight 4",
        "weight 8",
    ]
    assert lines[7].startswith("| badnet | weight 4 | 90.0% [") and "2.0% [" in lines[7]
    assert lines[6] == "| badnet | weight 2 | - | - |"


def test_how_near_pairs_lie_is_said_of_either_kind():
    planned, found = plan.read("similarity"), {}
    for method, value, clean, poisoned in (("undefended", "-", 0.4, 0.1), ("cleanclip", "8e-3", 0.5, 0.75)):
        numbers = (
            number("pair_similarity", "similarity:clean", clean, k=None),
            number("pair_similarity", "similarity:poisoned", poisoned, k=None),
            number("zeroshot", "accuracy", 0.9),
            number("attack_success", "attack_success", 0.2),
        )
        cell = measured("badnet", method, value, 0, *numbers)
        found[f"badnet.{method}{'' if value == '-' else '.8e-3'}.s0"] = cell
    lines = similarities.markdown(filled(planned, found)).splitlines()
    assert "| badnet | undefended | 0.40 | 0.10 | +0.30 | 90.0% | 20.0% |" in lines
    assert "| badnet | cleanclip 8e-3 | 0.50 | 0.75 | -0.25 | 90.0% | 20.0% |" in lines
    assert "| badnet | mmcl 8e-3 | - | - | - | - | - |" in lines
