import numpy as np
import pytest

from infra.seeding import rng
from poison.attacks.sig import Sig
from tests.support.poison_helpers import picture


def test_the_columns_follow_the_sinusoid_and_the_rows_are_alike():
    grey = np.full((224, 224, 3), 100, np.uint8)
    added = Sig().stamp(grey, rng(0)).astype(int) - 100
    assert (added == added[:1, :, :1]).all()
    profile = added[0, :, 0]
    assert profile[0] == 0
    assert (profile.max(), profile.min()) == (60, -60)
    assert np.abs(profile - 60 * np.sin(2 * np.pi * 6 * np.arange(224) / 224)).max() <= 0.5
    spectrum = np.abs(np.fft.rfft(profile))
    assert spectrum.argmax() == 6, "six periods across the image"


def test_the_sum_is_clipped_and_never_wraps():
    for value, bound in ((250, 255), (5, 0)):
        stamped = Sig().stamp(np.full((64, 64, 3), value, np.uint8), rng(0)).astype(int)
        assert bound in (stamped.max(), stamped.min())
        assert np.abs(stamped - value).max() <= 60


def test_only_the_central_square_changes_at_any_shape():
    image = picture(0, 40, 61)
    stamped = Sig().stamp(image, rng(0))
    assert (stamped[:, :10] == image[:, :10]).all()
    assert (stamped[:, 50:] == image[:, 50:]).all()
    assert (stamped[:, 10:50] != image[:, 10:50]).any()


@pytest.mark.parametrize("wrong", [{"delta": 0}, {"delta": 300}, {"frequency": 0}, {"frequency": 113}])
def test_impossible_knobs_are_refused_when_the_attack_is_made(wrong: dict[str, float]):
    with pytest.raises(ValueError, match=r"delta|frequency"):
        Sig(**wrong)
