import numpy as np
import pytest

from poison.geometry import SIDE, Box, box, enlarged, nearest, num_cells, square


def test_on_a_224_image_the_geometry_is_the_papers():
    assert box(224, 224, 208, 104, 16) == Box(208, 104, 16, 16)
    master = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    assert (nearest(master, 16) == master).all()


def test_a_patch_lies_in_the_central_square_of_any_image():
    assert square(200, 300) == Box(0, 50, 200, 200)
    assert box(224, 324, 208, 208, 16) == Box(208, 258, 16, 16)
    assert box(324, 224, 0, 0, 16) == Box(50, 0, 16, 16)


@pytest.mark.parametrize("size", [1, 15, 16, 42, 224])
def test_a_patch_in_the_far_corner_is_flush_at_every_size(size: int):
    for side in range(1, 520):
        top, left, height, width = box(side, side, SIDE - size, SIDE - size, size)
        assert top + height == left + width == side
        assert height == width >= 1


@pytest.mark.parametrize("size", [1, 16, 42])
def test_no_place_of_a_patch_leaves_the_square(size: int):
    for side in (7, 32, 33, 100, 223, 225, 500):
        sides = {box(side, side, top, top, size).height for top in range(SIDE - size + 1)}
        assert len(sides) == 1  # the size does not depend on the place
        assert all(0 <= box(side, side, t, t, size).top <= side - min(sides) for t in range(SIDE - size + 1))


def test_cells_of_seven_pixels_are_pixels_of_a_32_image():
    cells = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    assert (nearest(enlarged(cells, 7, SIDE), 32) == cells).all()
    assert (nearest(enlarged(cells[:6, :6], 7, 42), 6) == cells[:6, :6]).all()


def test_a_master_enlarged_twofold_repeats_each_pixel():
    master = np.array([[[1], [2]], [[3], [4]]], np.uint8)
    assert nearest(master, 4)[:, :, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]


def test_a_cell_that_is_cut_counts():
    assert num_cells(16, 5) == 4
    assert enlarged(np.zeros((4, 4, 3), np.uint8), 5, 16).shape == (16, 16, 3)
