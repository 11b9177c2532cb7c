import numpy as np
import pytest
from PIL import Image

from infra.seeding import rng
from poison.attacks.badnet import BadNet
from poison.geometry import Box, square
from poison.proving.fidelity import (
    EQUAL_PSNR,
    Fidelity,
    evaluation_window,
    measure,
    psnr,
    share_left,
    touched,
)
from train.transforms import evaluated


def plain(value: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def noise(*labels: int | str) -> np.ndarray:
    return rng(0, *labels).integers(0, 256, (8, 8, 3), np.uint8)


def test_a_trigger_that_is_wholly_kept():
    assert measure(noise("x"), noise("s"), noise("s")) == Fidelity(pytest.approx(1), pytest.approx(1), EQUAL_PSNR)


def test_a_trigger_that_is_gone():
    found = measure(noise("x"), noise("s"), noise("x"))
    assert found is not None
    assert (found.fidelity, found.gain) == (0, 0)


def test_the_equations_on_numbers_that_fit_on_a_line():
    """meant (10, -10, 20), seen (10, -8, 13): sums by hand."""
    clean = np.array([[[100, 100, 100]]], np.uint8)
    found = measure(clean, np.array([[[110, 90, 120]]], np.uint8), np.array([[[110, 92, 113]]], np.uint8))
    assert found is not None
    mean_meant, mean_seen = 20 / 3, 5
    covariance = (10 * 10 + 10 * 8 + 20 * 13) / 3 - mean_meant * mean_seen
    deviations = (600 / 3 - mean_meant**2) ** 0.5 * ((100 + 64 + 169) / 3 - mean_seen**2) ** 0.5
    assert found.fidelity == pytest.approx(covariance / deviations)
    assert found.gain == pytest.approx((100 + 80 + 260) / 600)
    assert found.psnr == pytest.approx(10 * np.log10(255**2 / ((0 + 4 + 49) / 3)))


def test_half_the_strength_is_the_same_pattern_at_half_the_gain():
    clean = plain(100)
    pattern = 2 * rng(0, "pattern").integers(-40, 40, (8, 8, 3))
    stamped, stored = ((clean + part).astype(np.uint8) for part in (pattern, pattern // 2))
    found = measure(clean, stamped, stored)
    assert found is not None
    assert found.fidelity == pytest.approx(1)
    assert found.gain == pytest.approx(0.5)


def test_what_happens_beside_the_trigger_does_not_count():
    clean, stamped = plain(100), plain(100)
    stamped[:2] = noise("s")[:2]
    stored = stamped.copy()
    stored[4:] = noise("elsewhere")[4:]
    found = measure(clean, stamped, stored)
    assert found is not None
    assert found.fidelity == pytest.approx(1)


def test_a_patch_of_one_colour_on_a_plain_image_is_measured_by_its_place():
    clean, stamped, moved = plain(100), plain(100), plain(100)
    stamped[:2, :2] = 255
    moved[4:6, 4:6] = 255
    kept, lost = measure(clean, stamped, stamped), measure(clean, stamped, moved)
    assert kept is not None
    assert kept.fidelity == pytest.approx(1)
    assert lost is not None
    assert lost.fidelity < 0.1


def test_a_stamp_without_effect_has_no_fidelity():
    assert measure(noise("x"), noise("x"), noise("y")) is None


def test_psnr_of_one_grey_level():
    assert psnr(plain(100), plain(101)) == pytest.approx(20 * np.log10(255))
    assert psnr(plain(100), plain(100)) == EQUAL_PSNR


def test_the_box_of_what_a_stamp_changed():
    image = plain(100)
    assert touched(image, image) is None
    stamped = image.copy()
    stamped[2, 3], stamped[5, 4, 1] = 7, 101
    assert touched(image, stamped) == Box(2, 3, 4, 2)


@pytest.mark.parametrize(
    ("box", "window", "share"),
    [
        (Box(2, 2, 4, 4), Box(0, 0, 10, 10), 1.0),
        (Box(2, 2, 4, 4), Box(4, 0, 10, 10), 0.5),
        (Box(2, 2, 4, 4), Box(4, 4, 10, 10), 0.25),
        (Box(2, 2, 4, 4), Box(6, 0, 10, 10), 0.0),
        (Box(0, 0, 20, 20), Box(5, 5, 10, 10), 1.0),  # a filter: nothing is seen that it does not cover
        (Box(0, 5, 10, 10), Box(0, 0, 10, 20), 1.0),
    ],
)
def test_the_share_that_a_crop_leaves(box: Box, window: Box, share: float):
    assert share_left(box, window) == share


SIZES = [(224, 224), (225, 224), (500, 375), (333, 500), (497, 500), (346, 350), (32, 33), (35, 32), (1024, 683)]


@pytest.mark.parametrize("size", [32, 224, 336])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_evaluations_window_is_where_the_transform_looks(height: int, width: int, size: int):
    """A ramp through the transform says which columns its first and last pixels lie on."""
    window = evaluation_window(height, width, size)
    for axis, length in ((0, height), (1, width)):
        start, extent = (window.top, window.height) if axis == 0 else (window.left, window.width)
        ramp = np.broadcast_to(np.expand_dims(np.arange(length, dtype=np.float32), 1 - axis), (height, width))
        seen = np.asarray(evaluated(Image.fromarray(ramp.copy()), size))
        line = seen[:, size // 2] if axis == 0 else seen[size // 2]
        inner, outer = size // 4, size - 1 - size // 4  # away from the edges, where resampling repeats the last pixel
        scale, middle = (line[outer] - line[inner]) / (outer - inner), (line[outer] + line[inner]) / 2 + 0.5
        first, last = middle - size / 2 * scale, middle + size / 2 * scale
        assert start - 0.05 <= first <= start + 1.5 + scale / 2
        assert start + extent - 1.5 - scale / 2 <= last <= start + extent + 0.05


def test_no_evaluation_cuts_what_lies_in_the_central_square():
    """Every parity of size, and the far corners, at the sizes that models see."""
    for height in (97, 100, 223, 224, 225, 331, 500):
        for width in range(90, 520, 7):
            for size in (32, 224, 336):
                window = evaluation_window(height, width, size)
                assert share_left(square(height, width), window) == 1
                for attack in (BadNet(size=1), BadNet(), BadNet(place="centre")):
                    box = attack.locate(height, width, rng(0))
                    assert box is not None
                    assert share_left(box, window) == 1
