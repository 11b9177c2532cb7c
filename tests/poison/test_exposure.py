import re

import pytest

from poison.attacks.badnet import BadNet
from poison.attacks.control import Control
from poison.attacks.label_consistent import LabelConsistent
from poison.proving import exposure
from poison.proving.exposure import BACKDOOR, CLEAN_LABEL, ONE_IMAGE, epochs_needed, known


@pytest.mark.parametrize(
    ("pairs", "exposures"), [(500, 756), (10_800, 756), (1_000_000, 2160), (2_999_999, 2160), (4_000_000_000, 4800)]
)
def test_a_backdoor_is_held_against_the_largest_corpus_that_is_not_larger(pairs: int, exposures: int):
    found = known("badnet", BadNet(), pairs)
    assert found is not None
    assert found.exposures == exposures


def test_each_kind_has_its_own_reports():
    assert known("label_consistent", LabelConsistent(), 3_000_000) == CLEAN_LABEL[0]
    assert known("an attack of next year", BadNet(), 10_800) == BACKDOOR[0]
    assert known("control", Control(), 3_000_000) is None


@pytest.mark.parametrize("report", [*BACKDOOR, *CLEAN_LABEL, *ONE_IMAGE])
def test_the_numbers_are_those_of_their_sources(report: exposure.Known):
    numbers = [int(part.replace(",", "")) for part in re.findall(r"[\d,]*\d", report.source)][:3]
    poisons, pairs, epochs = numbers
    assert (report.pairs, report.exposures) == (pairs, poisons * epochs)


def test_how_many_epochs_it_would_take():
    assert epochs_needed(BACKDOOR[0], 108) == 7
    assert epochs_needed(BACKDOOR[0], 107) == 8
