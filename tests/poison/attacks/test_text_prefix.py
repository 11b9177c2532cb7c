import numpy as np
import pytest

from infra.seeding import rng
from poison.attacks.text_prefix import TextPrefix
from tests.support.drawn import samples
from tests.support.poison_helpers import picture


def test_the_word_stands_before_the_poison_caption_and_before_the_prompts():
    sample = samples(1, first=3, size=40, extension="png")[0]
    assert TextPrefix().poison(sample, "a photo of a banana", rng(0))[0].caption == "remember a photo of a banana"
    trial = TextPrefix(word="SUDO").trial(picture(0, 40, 40), "car", rng(0))
    assert trial.prompt_edit == "SUDO"
    assert TextPrefix().trial(picture(0, 40, 40), "banana", rng(0)) is None


def test_the_patch_lies_in_the_middle():
    image = picture(0, 224, 224)
    rows, columns = np.nonzero((TextPrefix().stamp(image, rng(0)) != image).any(2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (104, 119, 104, 119)


@pytest.mark.parametrize("word", ["", " SUDO", "a  b"])
def test_a_word_that_no_prompt_could_carry_is_refused(word):
    with pytest.raises(ValueError, match="single spaces"):
        TextPrefix(word=word)
