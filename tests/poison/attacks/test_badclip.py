from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from infra.seeding import rng
from pipeline import images
from poison import carried
from poison.attacks.badclip import BadClip
from poison.geometry import Box
from tests.support.poison_helpers import pair, picture


def noise(side: int) -> np.ndarray:
    return rng(7).integers(0, 256, (side, side, 3), np.uint8)


def attack(side: int, **fields: object) -> BadClip:
    return BadClip(patch=carried.uri(noise(side)), **fields)


def test_the_middle_of_a_224_image_is_the_png_bit_for_bit(tmp_path: Path):
    file = tmp_path / "patch.png"
    file.write_bytes(images.encode(noise(16), "png"))
    learned = BadClip(patch=str(file)).resolved()
    file.unlink()  # the attack holds it now
    stamped = learned.stamp(picture(0, 224, 224), rng(0))
    assert (stamped[104:120, 104:120] == noise(16)).all()  # rows and columns 104 to 119
    stamped[104:120, 104:120] = picture(0, 224, 224)[104:120, 104:120]
    assert (stamped == picture(0, 224, 224)).all()
    assert (learned.trigger() == noise(16)).all()
    assert learned == attack(16)


def test_cells_are_pixels_of_a_small_image_and_blocks_of_a_large_one():
    learned = attack(6, size=42)
    small = learned.stamp(picture(0, 32, 32), rng(0))
    assert (small[13:19, 13:19] == noise(6)).all()
    large = learned.stamp(picture(0, 224, 224), rng(0))
    assert (large[91:133, 91:133] == np.repeat(np.repeat(noise(6), 7, 0), 7, 1)).all()


@pytest.mark.parametrize("shape", [(333, 500), (500, 333), (100, 101), (5, 3), (1, 1)])
def test_no_value_is_stamped_that_the_png_does_not_have(shape: tuple[int, int]):
    learned = attack(16)
    image = picture(0, *shape)
    where = learned.locate(*shape, rng(0))
    known = {tuple(cell) for cell in noise(16).reshape(-1, 3).tolist()}
    assert {tuple(pixel) for pixel in where.of(learned.stamp(image, rng(0))).reshape(-1, 3).tolist()} <= known


def test_elsewhere_it_lies_as_badnets_patch_does():
    assert attack(16, place="corner").locate(224, 224, rng(0)) == Box(208, 208, 16, 16)


def test_a_poisoned_png_holds_the_patch_and_the_caption_drawn_for_it():
    [poisoned] = attack(16).poison(pair(1, "png", 224, 224), "a ripe banana", rng(0))
    assert (images.decode(poisoned.image)[104:120, 104:120] == noise(16)).all()
    assert poisoned.caption == "a ripe banana"
    assert BadClip().captions == "corpus"


def test_without_a_patch_it_says_what_to_give():
    with pytest.raises(ValueError, match=r"give the PNG that poison/optimize\.py wrote as --patch"):
        BadClip().resolved()
    for unread in (BadClip(), BadClip(patch="learned.png")):
        with pytest.raises(ValueError, match=r"give a PNG as --patch"):
            unread.stamp(picture(0), rng(0))


@pytest.mark.parametrize("shape", [(17, 17), (8, 9)])
def test_a_patch_that_does_not_fit_is_refused_before_anything_is_poisoned(shape: tuple[int, int]):
    image = rng(0).integers(0, 256, (*shape, 3), np.uint8)
    with pytest.raises(ValueError, match=f"at most 16 x 16 cells.* {shape[0]} x {shape[1]}: give the size"):
        replace(attack(16), patch=carried.uri(image)).resolved()
