import numpy as np
import pytest
from PIL import Image

from defense.changing.views import KEYHOLES, VIEWS, changed

RED = np.array([255, 0, 0], np.uint8)


def scene(side: int) -> np.ndarray:
    """A smooth image that means the same at every size: uint8 (side, side, 3)."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    waves = [np.sin(6 * x + 2 * y), np.cos(5 * y), np.sin(7 * x * y)]
    return np.stack([127 + 100 * wave for wave in waves], axis=2).round().astype(np.uint8)


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("side", [1, 3, 32, 64])
def test_a_view_has_the_size_and_type_of_its_image_and_leaves_it_alone(name: str, side: int) -> None:
    square = scene(side)
    before = square.copy()
    view = changed(name, square)
    assert view.shape == square.shape and view.dtype == np.uint8
    assert (square == before).all()
    assert (changed(name, square) == view).all()


@pytest.mark.parametrize("name", VIEWS)
def test_a_grey_image_of_one_value_looks_the_same_however_it_is_changed(name: str) -> None:
    square = np.full((32, 32, 3), 90, np.uint8)
    assert (changed(name, square) == square).all()


@pytest.mark.parametrize("name", VIEWS)
def test_strength_goes_with_the_size(name: str) -> None:
    large = Image.fromarray(changed(name, scene(128))).resize((64, 64), Image.Resampling.BOX)
    difference = np.asarray(large).astype(int) - changed(name, scene(64)).astype(int)
    assert np.abs(difference).mean() < 3.5  # grey levels


@pytest.mark.parametrize(("name", "border"), [("crop", 0.125), ("centre", 0.25)])
def test_what_lies_in_the_border_is_gone(name: str, border: float) -> None:
    square = np.full((64, 64, 3), 90, np.uint8)
    width = round(64 * border)
    framed = square.copy()
    framed[:width] = framed[-width:] = RED
    framed[:, :width] = framed[:, -width:] = RED
    assert (changed(name, framed) == square).all()
    square[width : width + 8, width : width + 8] = RED
    assert (changed(name, square)[:8, :8, 0] > 200).all()


@pytest.mark.parametrize(("place", "name"), enumerate(KEYHOLES))
def test_a_keyhole_shows_its_part_and_nothing_of_the_rest(place: int, name: str) -> None:
    down, across = divmod(place, 3)
    square = np.full((64, 64, 3), RED, np.uint8)
    window = np.s_[20 * down : 20 * down + 24, 20 * across : 20 * across + 24]
    square[window] = scene(24)
    expected = Image.fromarray(scene(24)).resize((64, 64), Image.Resampling.BICUBIC)
    assert (changed(name, square) == np.asarray(expected)).all()


def test_wherever_a_patch_lies_a_keyhole_shows_two_thirds_of_its_side_both_ways() -> None:
    seen = np.zeros((53, 53))
    for name in KEYHOLES:
        rows = np.arange(64, dtype=np.uint8)
        places = np.stack([*np.meshgrid(rows, rows, indexing="ij"), np.zeros((64, 64), np.uint8)], axis=2)
        shown = changed(name, places)[..., :2].reshape(-1, 2)
        low, high = shown.min(axis=0).astype(int), shown.max(axis=0).astype(int)
        down, across = (
            np.clip(np.minimum(np.arange(53) + 12, high[axis] + 1) - np.maximum(np.arange(53), low[axis]), 0, 12)
            for axis in (0, 1)
        )
        seen = np.maximum(seen, np.minimum.outer(down, across))
    assert seen.min() == 8


def test_half_keeps_the_means_of_two_by_two_pixels_and_loses_what_alternates() -> None:
    board = np.where(np.indices((32, 32)).sum(axis=0)[..., None] % 2, np.uint8(255), np.uint8(0)).repeat(3, axis=2)
    assert np.ptp(changed("half", board)) == 0
    assert abs(int(changed("half", board)[0, 0, 0]) - 127.5) <= 1


def test_blur_spreads_a_point_as_a_gaussian_of_a_fortieth_of_the_side() -> None:
    point = np.zeros((200, 200, 3), np.uint8)
    point[100, 100] = 255
    line = changed("blur", point)[..., 0].astype(float)
    wide = np.zeros((200, 200, 3), np.uint8)
    wide[90:111, 90:111] = 255  # a box of 21: variance (21^2 - 1) / 12
    profile = changed("blur", wide)[100, :, 0].astype(float)
    place = np.arange(200)
    mean = (profile * place).sum() / profile.sum()
    variance = (profile * (place - mean) ** 2).sum() / profile.sum()
    assert line.max() < 10
    assert mean == pytest.approx(100, abs=0.1)
    assert np.sqrt(variance - (21**2 - 1) / 12) == pytest.approx(5, abs=0.7)


def test_median_takes_away_a_line_that_is_thinner_than_half_its_window() -> None:
    square = np.full((96, 96, 3), 40, np.uint8)  # windows of 9
    square[40:44] = 250
    assert (changed("median", square) == 40).all()
    square[40:50] = 250
    assert (changed("median", square)[44] == 250).all()


def test_mirror_and_grey() -> None:
    square = scene(16)
    assert (changed("mirror", square) == square[:, ::-1]).all()
    luma = square @ np.array([0.299, 0.587, 0.114])
    assert np.abs(changed("grey", square).astype(float) - luma[..., None]).max() <= 1


def test_levels_undo_a_filter_that_lifts_and_dims_the_channels() -> None:
    square = scene(32)
    filtered = (np.array([50, 10, 70]) + np.array([0.7, 0.9, 0.5]) * square).round().astype(np.uint8)
    assert np.abs(filtered.astype(int) - square).mean() > 15
    restored = changed("levels", filtered).astype(int) - changed("levels", square)
    assert np.abs(restored).mean() < 3


def test_an_unknown_view_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(ValueError, match=r"no view is named 'blurr'; there are: blur, centre, crop"):
        changed("blurr", scene(8))
