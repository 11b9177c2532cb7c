import numpy as np
import pytest
from poison_helpers import picture

from infra.seeding import rng
from poison.attacks.blended import Blended


def test_a_blend_is_the_formula_rounded_half_to_even():
    attack = Blended(alpha=0.5)
    image = picture(0, 224, 224)
    total = attack.trigger().astype(int) + image
    wanted = total // 2 + (total % 2) * (total // 2 % 2)
    assert (attack.stamp(image, rng(0)) == wanted).all()


def test_alpha_is_the_weight_of_the_pattern():
    black = np.zeros((224, 224, 3), np.uint8)
    attack = Blended(alpha=0.2)
    assert (attack.stamp(black, rng(0)) == np.rint(0.2 * attack.trigger())).all()
    assert (Blended(alpha=1).stamp(black, rng(0)) == Blended(alpha=1).trigger()).all()


def test_white_stays_within_bytes():
    white = np.full((224, 224, 3), 255, np.uint8)
    stamped = Blended().stamp(white, rng(0))
    assert stamped.min() >= 203
    assert abs(stamped.mean() - (0.8 * 255 + 0.1 * 255)) < 0.2


def test_fresh_noise_is_drawn_for_each_picture():
    image = picture(0, 64, 64)
    assert (Blended().stamp(image, rng(1)) == Blended().stamp(image, rng(2))).all()
    assert (Blended(pattern="fresh").stamp(image, rng(1)) != Blended(pattern="fresh").stamp(image, rng(2))).any()
    assert Blended(pattern="fresh").trigger() is None


def test_only_the_central_square_is_blended():
    image = picture(0, 40, 60)
    stamped = Blended().stamp(image, rng(0))
    assert (stamped[:, :10] == image[:, :10]).all()
    assert (stamped[:, 50:] == image[:, 50:]).all()
    assert (stamped[:, 10:50] != image[:, 10:50]).any(2).mean() > 0.9


def test_cells_of_seven_show_the_same_pattern_at_32_and_at_224():
    attack = Blended(alpha=1, cell=7)
    small, large = (attack.stamp(np.zeros((side, side, 3), np.uint8), rng(0)) for side in (32, 224))
    assert (small == large[3::7, 3::7]).all()


@pytest.mark.parametrize("field", [{"alpha": 0.0}, {"alpha": 1.1}, {"cell": 0}, {"cell": 225}])
def test_impossible_knobs_are_refused_when_the_attack_is_made(field: dict[str, float]):
    with pytest.raises(ValueError, match=r"above 0|1 to 224"):
        Blended(**field)
