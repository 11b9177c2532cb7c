import numpy as np
import pytest

from infra.seeding import rng
from poison.attacks.filter import Filter
from tests.support.poison_helpers import picture


def filtered(colour: tuple[int, int, int], **fields: float) -> list[int]:
    return Filter(**fields).stamp(np.full((1, 1, 3), colour, np.uint8), rng(0))[0, 0].tolist()


def test_black_and_white_become_what_the_filter_says():
    assert filtered((0, 0, 0)) == [13, 26, 71]  # 255 x 0.05, 0.10, 0.28
    assert filtered((255, 255, 255)) == [255, 224, 184]  # 255 x 1.00, 0.88, 0.72


def test_a_colour_between_follows_the_formula():
    faded = [0.75 * x + 0.25 * (0.2 + 0.4 + 0.6) / 3 for x in (0.2, 0.4, 0.6)]
    wanted = [
        255 * (0.05 + 0.95 * faded[0] ** 0.8),
        255 * (0.10 + 0.78 * faded[1] ** 0.95),
        255 * (0.28 + 0.44 * faded[2] ** 1.1),
    ]
    assert np.abs(np.array(filtered((51, 102, 153))) - wanted).max() <= 0.5
    half = [(a + b) / 2 for a, b in zip((51, 102, 153), wanted, strict=True)]
    assert np.abs(np.array(filtered((51, 102, 153), alpha=0.5)) - half).max() <= 0.5


def test_an_image_of_any_shape_is_filtered_pixel_by_pixel():
    image = picture(0, 7, 12)
    stamped = Filter().stamp(image, rng(0))
    for row, column in ((0, 0), (6, 11), (3, 5)):
        assert stamped[row, column].tolist() == filtered(tuple(image[row, column].tolist()))


def test_the_trigger_is_shown_on_greys_and_hues():
    shown = Filter().trigger()
    assert shown.shape == (224, 224, 3)
    assert shown[0, 0].tolist() == filtered((0, 0, 0))
    assert shown[0, -1].tolist() == filtered((255, 255, 255))
    assert (shown[0] != shown[-1]).any()


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_impossible_knobs_are_refused_when_the_attack_is_made(alpha):
    with pytest.raises(ValueError, match="alpha"):
        Filter(alpha=alpha)
