import numpy as np
import pyarrow as pa
import pytest

from infra.seeding import rng
from pipeline import images
from poison.attacks.badnet import BadNet
from poison.attacks.label_consistent import LabelConsistent
from tests.support.drawn import samples

CAPTIONS = ["a Banana on a table", "two bananas", "a red car", "banana!", "an apple and a banana", "bananaman"]
INDEX = pa.table({"row": pa.array(range(len(CAPTIONS)), pa.int64()), "caption": CAPTIONS})


def test_only_pairs_that_name_the_target_as_a_whole_word_are_taken():
    assert LabelConsistent().choose([INDEX], 3, 0, set()).tolist() == [0, 3, 4]
    assert LabelConsistent().choose([INDEX], 2, 0, {3}).tolist() == [0, 4]


def test_too_few_are_refused():
    with pytest.raises(ValueError, match=r"4 pairs is more than can be poisoned.*3 are left.*do not name 'banana'"):
        LabelConsistent().choose([INDEX], 4, 0, set())


def test_the_caption_stays_and_the_image_has_badnets_patch():
    sample = samples(1, first=3, size=40, extension="png")[0]
    poisoned = LabelConsistent().poison(sample, "a photo of a banana", rng(0))[0]
    assert poisoned.caption == sample.caption
    wanted = BadNet().stamp(images.decode(sample.image), rng(0))
    assert np.array_equal(images.decode(poisoned.image), wanted)
