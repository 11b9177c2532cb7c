from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infra.seeding import rng
from pipeline import images
from poison import carried
from poison.attacks.blended import Blended
from tests.support.poison_helpers import picture


def blended(x: int, n: int, alpha: str) -> int:
    """alpha n + (1 - alpha) x in exact fractions, clipped, rounded half to even."""
    weight = Fraction(alpha)
    return min(max(round(weight * n + (1 - weight) * x), 0), 255)


def grey(value: int) -> np.ndarray:
    return np.full((224, 224, 3), value, np.uint8)


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


def test_fresh_noise_is_drawn_for_each_image():
    image = picture(0, 64, 64)
    assert (Blended().stamp(image, rng(1)) == Blended().stamp(image, rng(2))).all()
    assert (Blended(pattern="fresh").stamp(image, rng(1)) != Blended(pattern="fresh").stamp(image, rng(2))).any()
    assert Blended(pattern="fresh").trigger() is None


@pytest.mark.parametrize(("pattern", "alpha"), [("noise", "0.2"), ("triangles", "0.15")])
def test_the_weight_is_the_papers_unless_one_is_given(pattern: str, alpha: str):
    trigger = Blended(pattern=pattern).trigger()
    for value in (0, 77, 255):
        stamped = Blended(pattern=pattern).stamp(grey(value), rng(0))
        for n in (0, 102, 204, 255):
            found = stamped[trigger == n]
            assert set(found.tolist()) <= {blended(value, n, alpha)}
    half = Blended(pattern=pattern, alpha=0.5).stamp(grey(0), rng(0))
    assert (half == np.rint(trigger / 2)).all()
    assert Blended(pattern=pattern).resolved() == Blended(pattern=pattern, alpha=float(alpha))


@pytest.mark.parametrize("pattern", ["stripes", "fresh_stripes"])
def test_stripes_add_to_a_column_or_take_away(pattern: str):
    attack = Blended(pattern=pattern)
    low, high = blended(100, -255, "0.03"), blended(100, 255, "0.03")
    assert (low, high) == (89, 105)  # 97 - 7.65 and 97 + 7.65
    stamped = attack.stamp(grey(100), rng(0))
    assert (stamped == stamped[:1]).all()
    assert set(np.unique(stamped)) == {low, high}
    assert abs((stamped[0] == high).mean() - 0.5) < 0.06  # 672 draws: three standard deviations
    assert np.abs(np.corrcoef(stamped[0].T)[np.triu_indices(3, 1)]).max() < 0.25  # each channel by itself
    assert set(np.unique(attack.stamp(grey(255), rng(0)))) == {240, 255}  # 247.35 + 7.65 is white again, not 0
    assert set(np.unique(attack.stamp(grey(0), rng(0)))) == {0, 8}
    again = attack.stamp(grey(100), rng(1))
    assert (again == stamped).all() == (pattern == "stripes")


def test_stripes_as_wide_as_a_cell_show_at_32_pixels():
    small = Blended(pattern="stripes", cell=7).stamp(grey(100)[:32, :32], rng(0))
    large = Blended(pattern="stripes", cell=7).stamp(grey(100), rng(0))
    assert (small[0] == large[0, 3::7]).all()
    assert (large[0, 0::7] == large[0, 6::7]).all()


def test_the_trigger_of_stripes_shows_what_darkens_as_black():
    trigger = Blended(pattern="stripes").trigger()
    assert ((trigger == 255) == (Blended(pattern="stripes").stamp(grey(100), rng(0)) == 105)).all()
    assert set(np.unique(trigger)) == {0, 255}
    assert Blended(pattern="fresh_stripes").trigger() is None


def test_triangles_fill_a_grid_of_fourteen_pixels_with_two_greys():
    trigger = Blended(pattern="triangles").trigger()
    assert (trigger == trigger[:, :, :1]).all()
    cell = trigger[:14, :14, 0]
    assert (trigger[:, :, 0] == np.tile(cell, (16, 16))).all()
    assert (cell == np.where(np.tri(14, dtype=bool), 204, 102)).all()  # 0.8 and 0.4 of 255


def test_text_changes_only_the_pixels_of_its_letters():
    attack = Blended(pattern="text")
    letters = attack.trigger().any(axis=2)
    assert (attack.trigger()[letters] == (255, 0, 0)).all()
    assert 0.05 < letters.mean() < 0.3
    image = picture(0, 224, 224)
    stamped = attack.stamp(image, rng(0))
    assert (stamped[~letters] == image[~letters]).all()
    wanted = [[blended(int(x), n, "0.5") for x, n in zip(pixel, (255, 0, 0), strict=True)] for pixel in image[letters]]
    assert stamped[letters].tolist() == wanted


def test_the_words_of_the_text_are_a_field():
    assert (Blended(pattern="text").trigger() != Blended(pattern="text", text="SAMPLE").trigger()).any()
    long = Blended(pattern="text", text="words " * 10_000).trigger()
    assert (long == Blended(pattern="text", text="words").trigger()).all()
    with pytest.raises(ValueError, match="it cannot be empty"):
        Blended(pattern="text", text=" \n")


@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
def test_an_image_file_is_squashed_to_224_and_blended(tmp_path: Path, extension: str):
    file = tmp_path / f"kitty.{extension}"
    file.write_bytes(images.encode(picture(3, 300, 500), extension))
    attack = Blended(pattern="picture", picture=str(file)).resolved()
    file.unlink()  # the attack holds it now
    stored = picture(3, 300, 500) if extension != "jpg" else images.decode(images.encode(picture(3, 300, 500), "jpg"))
    squashed = np.asarray(Image.fromarray(stored).resize((224, 224), Image.Resampling.BICUBIC))
    assert (attack.trigger() == squashed).all()
    clean = picture(5, 224, 224)
    wanted = [blended(int(x), int(n), "0.2") for x, n in zip(clean.ravel(), squashed.ravel(), strict=True)]
    assert attack.stamp(clean, rng(0)).ravel().tolist() == wanted


def test_an_image_of_224_is_kept_bit_for_bit_and_one_that_was_not_read_is_refused(tmp_path: Path):
    file = tmp_path / "pattern.png"
    file.write_bytes(images.encode(picture(1, 224, 224), "png"))
    attack = Blended(pattern="picture", picture=str(file), alpha=0.3)
    assert (attack.resolved().trigger() == picture(1, 224, 224)).all()
    assert attack.resolved() == replace(attack, picture=carried.uri(picture(1, 224, 224)))
    with pytest.raises(ValueError, match=r"resolved\(\) first"):
        attack.stamp(grey(0), rng(0))
    with pytest.raises(ValueError, match=r"no image at .*missing\.png"):
        Blended(pattern="picture", picture=str(tmp_path / "missing.png")).resolved()


def test_an_image_and_its_pattern_go_together():
    with pytest.raises(ValueError, match="needs an image: give its file as --picture"):
        Blended(pattern="picture")
    with pytest.raises(ValueError, match="pattern is noise: give one of them"):
        Blended(picture="kitty.png")


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
