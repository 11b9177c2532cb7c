import itertools
from dataclasses import replace

import pytest

from eval.judging.roles import Comparison, compare
from eval.judging.verdict import Verdict, judge
from eval.reporting import results, wording
from eval.reporting.formatting import listed, percent
from eval.store.records import AttackRecord
from tests.eval.test_verdict import judged
from tests.support.eval_helpers import ATTACKED, TESTED, scored, some_run
from tests.support.report_cases import CASES, material


def said(case: str) -> Verdict:
    return judge(material(case).comparisons[0])


def test_the_headline_says_what_the_attack_did_and_what_the_best_defence_left() -> None:
    assert wording.headline(said("whole")) == (
        'The badnet attack works: the poisoned model takes 96.9% of triggered images for "banana". '
        "cleanclip cuts that to 11.5%, still above a model that never saw poison (0.4%)."
    )


def test_the_story_says_what_was_attacked_tried_and_won() -> None:
    verdict = said("whole")
    start = "30 of 3,000 training pairs (1.00%) were poisoned with badnet (a small patch over the image), so that"
    assert wording.attacked(verdict).startswith(start)
    assert "On untouched images it is right in 95.1%, one without poison in 94.3%." in wording.attacked(verdict)
    assert wording.tried(verdict).startswith("cleanclip: finetuning that adds self-supervision")
    baseline = "Baseline: mmcl, finetuning without a defence, on the same pairs, epochs and learning rate."
    assert wording.tried(verdict).endswith(baseline)
    assert wording.won(verdict) == (
        "cleanclip: attack success from 96.9% to 11.5%, clean accuracy from 95.1% to 94.1% (no clear difference). "
        "The baseline mmcl leaves 87.4% at 95.6% clean accuracy."
    )


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("to the floor", "to 2.0%, which these images cannot tell from a model that never saw poison (0.4%)."),
        (
            "no better than the baseline",
            "11.0%, which these images cannot tell from finetuning without a defence (12.0%).",
        ),
        (
            "too costly",
            "No defence kept clean accuracy within 3 points; the strongest, cleanclip, leaves 2.0% at 70.0%",
        ),
        ("no defence", "No defence was tried."),
        ("baseline alone", "No defence was tried; finetuning without one leaves 87.4% after mmcl."),
        ("no clean run", "no model without poison was measured beside it. cleanclip cuts that to 11.5%."),
        ("no poisoned run", "No undefended model with the poison of badnet was measured. cleanclip takes 11.5%"),
        ("an attack that fails", "The badnet attack is not shown to work: the poisoned model takes 2.0%"),
        ("no attack", "Clean accuracy of 2 models; the highest is 94.0%, of clean. No attack was measured."),
        ("several seeds", "to 8.0% (3.0% to 13.0%), in 2 of 3 seeds above a model that never saw poison (1.0%)."),
    ],
)
def test_a_headline_never_says_more_than_the_grid_shows(case: str, words: str) -> None:
    assert words in wording.headline(said(case))


def test_of_weights_from_elsewhere_it_is_said_that_their_data_are_not_known() -> None:
    assert wording.headline(said("from elsewhere")) == (
        "Of weights from elsewhere it is not known what they learned from: theirs takes 90.0%, cleanclip takes 10.0% "
        'of triggered images for "banana", a model without poison 0.4%.'
    )
    assert wording.won(said("from elsewhere")) == (
        "cleanclip, from theirs: attack success from 90.0% to 10.0%, clean accuracy from 95.0% to 94.0% "
        "(no clear difference)."
    )
    for case in ("from elsewhere", "from elsewhere alone", "from elsewhere beside"):
        verdict = said(case)
        assert "What theirs learned from is not known: this poison, another, or none." in wording.caveats(verdict)
        told = [wording.headline(verdict), wording.tried(verdict), wording.won(verdict)]
        assert not [text for text in told if "theirs" in text and "poisoned model" in text]
    assert said("from elsewhere beside").finding == said("whole").finding, "it is no floor, no start and no defence"
    assert said("from elsewhere").best is None
    assert "No defence was tried" not in wording.headline(said("from elsewhere"))
    assert wording.tried(said("from elsewhere")).startswith("cleanclip: finetuning that adds self-supervision")


TARGETED = replace(
    ATTACKED,
    attack={"plugin": "targeted", "targets": [["car", "data:image/png;base64,AAAA"]]},
    shown="the target images",
)
SWAPPED = replace(ATTACKED, attack={"plugin": "swap"}, shown='images of "car"')


def of(attack: AttackRecord, success: float = 0.9, floor: bool = True) -> Comparison:
    runs = [some_run("clean", "clean")] * floor + [some_run("poisoned", "poisoned")]
    values = [0.01, success][-len(runs) :]
    scores = [score for run, value in zip(runs, values, strict=True) for score in scored(run, 0.9, value)]
    return compare(scores, runs, [TESTED], [attack])[0]


def test_an_attack_without_a_trigger_is_not_said_to_have_one() -> None:
    for attack, floor, success in itertools.product((TARGETED, SWAPPED), (True, False), (0.9, 0.3, 0.01)):
        found = of(attack, success, floor)
        verdict = judge(found)
        texts = [wording.headline(verdict), wording.attacked(verdict), wording.tried(verdict), wording.won(verdict)]
        texts += [*wording.caveats(verdict), results.measured_on(found)]
        assert not [text for text in texts if "trigger" in text]
        assert attack.shown in texts[0]
        assert attack.shown in texts[1]
        assert attack.shown in texts[-1]


def test_the_headline_of_a_targeted_attack_counts_its_target_images() -> None:
    verdict = judge(of(TARGETED))
    assert wording.headline(verdict) == (
        'The targeted attack works: the poisoned model takes 90.0% of the target images for "banana". '
        "No defence was tried."
    )
    assert 'would take the target images for "banana".' in wording.attacked(verdict)
    assert results.measured_on(of(TARGETED)) == (
        "Test set test, split test: 1,000 images of 6 classes; 1,000 trials under the attack, the target images."
    )


@pytest.mark.parametrize("case", CASES)
def test_no_case_is_called_a_cure(case: str) -> None:
    text = " ".join(part(said(case)) for part in (wording.headline, wording.tried, wording.won)).lower()
    assert not {"cured", "removed", "safe", "proves"} & set(text.replace(".", "").split())


def test_what_is_missing_is_named() -> None:
    missing = " ".join(wording.caveats(said("no clean run")))
    assert "No model without poison was measured" in missing
    assert "what the defence adds to plain finetuning is not known" in missing
    assert "another seed may come out differently" in missing
    assert wording.caveats(said("whole")) == ["One training run each: another seed may come out differently."]
    assert "seed may" not in " ".join(wording.caveats(said("several seeds")))


def test_a_floor_of_other_pairs_is_said_to_be_that() -> None:
    runs = [some_run("another", "elsewhere"), some_run("poisoned", "poisoned")]
    (found,) = compare([s for run in runs for s in scored(run, 0.9, 0.5)], runs, [TESTED], [ATTACKED])
    assert "The floor is that of a model trained on other pairs (elsewhere)." in wording.caveats(judge(found))


def test_rivals_are_named_as_such() -> None:
    text = wording.won(judged(poisoned=(0.95, 0.99), a=(0.95, 0.05), b=(0.95, 0.06), c=(0.95, 0.50)))
    assert "b cannot be told apart from it by these numbers. c leaves 50.0% at 95.0% clean accuracy." in text


def test_more_than_half_left_is_not_removal() -> None:
    assert "No defence removes it: the best, weak, leaves 70.0%." in wording.headline(
        judged(poisoned=(0.95, 0.99), weak=(0.95, 0.70))
    )


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.0, "0.0%"), (1.0, "100.0%"), (0.0004, "<0.1%"), (0.9999, ">99.9%"), (0.12345, "12.3%"), (0.001, "0.1%")],
)
def test_a_share_is_never_rounded_to_certainty(share: float, shown: str) -> None:
    assert percent(share) == shown


def test_long_lists_are_cut() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcdef")) == "a, b, c, d and 2 more"
