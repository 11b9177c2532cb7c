import numpy as np
import pytest

from infra.seeding import rng
from poison.attacks.badnet import BadNet
from poison.geometry import Box
from tests.support.poison_helpers import picture

CLEAN = picture(0, 224, 224)


def changed(attack: BadNet, image: np.ndarray, seed: int = 0) -> Box:
    """The bounding box of what the stamp changed."""
    rows, columns = np.nonzero((attack.stamp(image, rng(seed)) != image).any(2))
    return Box(int(rows.min()), int(columns.min()), int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1)


@pytest.mark.parametrize(("place", "top"), [("corner", 208), ("centre", 104)])
def test_a_fixed_patch_lies_where_the_papers_put_it(place: str, top: int):
    assert changed(BadNet(place=place), CLEAN) == Box(top, top, 16, 16) == BadNet(place=place).locate(224, 224, rng(0))


def test_outside_the_patch_nothing_changes_and_inside_is_the_trigger():
    attack = BadNet()
    stamped = attack.stamp(CLEAN, rng(0))
    assert (stamped[208:, 208:] == attack.trigger()).all()
    stamped[208:, 208:] = CLEAN[208:, 208:]
    assert (stamped == CLEAN).all()


def test_a_random_place_reaches_the_last_row_and_column_and_no_further():
    attack = BadNet(place="random", size=220)
    places = [attack.locate(224, 224, rng(0, row)) for row in range(200)]
    assert {box.top for box in places} == {box.left for box in places} == {0, 1, 2, 3, 4}
    assert all(changed(attack, CLEAN, row) == attack.locate(224, 224, rng(row)) for row in range(5))


def test_fresh_noise_differs_from_image_to_image_and_fixed_noise_does_not():
    fixed, fresh = BadNet(), BadNet(patch="fresh")
    assert (fixed.stamp(CLEAN, rng(1)) == fixed.stamp(CLEAN, rng(2))).all()
    assert (fresh.stamp(CLEAN, rng(1)) == fresh.stamp(CLEAN, rng(1))).all()
    assert (fresh.stamp(CLEAN, rng(1)) != fresh.stamp(CLEAN, rng(2))).any()
    assert fresh.trigger() is None


def test_the_trigger_seed_makes_the_pattern():
    assert (BadNet(trigger_seed=1).trigger() != BadNet(trigger_seed=2).trigger()).any()
    assert abs(BadNet(size=200).trigger().mean() - 127.5) < 1  # uniform bytes


def test_patterns_are_what_their_names_say():
    board = BadNet(patch="checkerboard", size=4, cell=2).trigger()[:, :, 0]
    assert board.tolist() == [[255, 255, 0, 0], [255, 255, 0, 0], [0, 0, 255, 255], [0, 0, 255, 255]]
    stripes = BadNet(patch="stripes").trigger()
    assert (stripes == stripes[:1]).all()
    assert set(np.unique(stripes)) == {0, 255}
    assert (BadNet(patch="yellow").trigger() == (255, 255, 0)).all()


def test_fresh_stripes_are_new_columns_for_each_image():
    attack = BadNet(patch="fresh_stripes")
    first, second = (attack.stamp(CLEAN, rng(row))[208:, 208:] for row in (1, 2))
    for stripes in (first, second):
        assert (stripes == stripes[:1]).all()
        assert set(np.unique(stripes)) == {0, 255}
    assert (first != second).any()
    assert attack.trigger() is None
    columns = np.concatenate([attack.stamp(CLEAN, rng(row))[208, 208:] for row in range(100)])
    assert np.abs(columns.mean(0) / 255 - 0.5).max() < 0.05  # each channel by itself, half of them full


@pytest.mark.parametrize("shape", [(224, 224), (333, 500), (500, 333), (225, 224), (30, 31)])
def test_four_corners_have_the_same_patch_and_nothing_else_changes(shape: tuple[int, int]):
    attack = BadNet(place="four_corners", patch="fresh")
    image = picture(0, *shape)
    stamped = attack.stamp(image, rng(0))
    side = min(shape)
    patch = int(16 * side / 224 + 0.5)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    first = stamped[top : top + patch, left : left + patch].copy()
    for down in (top, top + side - patch):
        for across in (left, left + side - patch):
            corner = np.s_[down : down + patch, across : across + patch]
            assert (stamped[corner] == first).all()
            assert (stamped[corner] != image[corner]).any()
            stamped[corner] = image[corner]
    assert (stamped == image).all()
    assert attack.locate(*shape, rng(0)) is None  # no one box holds them and nothing more


# By hand: the square of 333 x 500 begins in column 83; a patch of 16 is 23.79, rounded 24; in the corner it is flush,
# in the middle it begins at 104 / 224 of 333, 154.6, rounded 155.
@pytest.mark.parametrize(
    ("shape", "place", "where"),
    [
        ((333, 500), "corner", Box(309, 392, 24, 24)),
        ((333, 500), "centre", Box(155, 238, 24, 24)),
        ((500, 333), "corner", Box(392, 309, 24, 24)),
        ((500, 333), "centre", Box(238, 155, 24, 24)),
        ((224, 225), "corner", Box(208, 208, 16, 16)),
        ((225, 224), "centre", Box(104, 104, 16, 16)),
        ((1, 1), "corner", Box(0, 0, 1, 1)),
        ((1, 1), "centre", Box(0, 0, 1, 1)),
        ((5, 3), "corner", Box(3, 2, 1, 1)),
        ((5, 3), "centre", Box(2, 1, 1, 1)),
    ],
)
def test_images_that_are_odd_or_not_square_have_the_patch_where_arithmetic_says(
    shape: tuple[int, int], place: str, where: Box
):
    attack = BadNet(place=place, patch="yellow")
    blue = np.full((*shape, 3), (0, 0, 255), np.uint8)
    assert changed(attack, blue) == where == attack.locate(*shape, rng(0))
    assert (where.of(attack.stamp(blue, rng(0))) == (255, 255, 0)).all()


def test_a_small_image_shows_the_same_cells():
    attack = BadNet(patch="checkerboard", size=42, cell=7)
    small, large = picture(0, 32, 32), CLEAN
    assert changed(attack, small).height == 6
    patch = attack.stamp(small, rng(0))[26:, 26:]
    assert (patch == attack.stamp(large, rng(0))[182:, 182:][3::7, 3::7]).all()
    assert patch[0, :, 0].tolist() == [255, 0, 255, 0, 255, 0]


def test_on_a_wide_image_the_patch_is_in_the_central_square():
    assert changed(BadNet(), picture(0, 100, 300)) == Box(93, 193, 7, 7)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"size": 0}, "size is the patch's side"),
        ({"size": 225}, "size is the patch's side"),
        ({"cell": 17}, "cell is at least 1 and at most the patch's size of 16"),
        ({"quality": 0}, "JPEG quality from 1 to 100"),
        ({"target": " "}, "target is a class name"),
    ],
)
def test_impossible_knobs_are_refused_when_the_attack_is_made(field: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        BadNet(**field)
