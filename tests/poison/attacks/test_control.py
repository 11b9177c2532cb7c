import numpy as np

from infra.seeding import rng
from pipeline import images
from poison.attacks.badnet import BadNet
from poison.attacks.control import Control
from poison.writing import encoding
from tests.support.poison_helpers import pair, picture


def test_a_control_keeps_image_and_caption_and_encodes_as_an_attack_does():
    clean = pair(1)
    [control] = Control().poison(clean, "a banana", rng(0))
    assert control.caption == clean.caption
    assert control == encoding.rewritten(clean, lambda image, _: image, clean.caption, rng(0), BadNet().quality)
    assert np.abs(images.decode(control.image).astype(int) - images.decode(clean.image)).max() <= 3


def test_a_control_shows_untouched_images_at_test_time_to_all_but_the_target():
    image = picture(0)
    trial = Control().trial(image, "car", rng(0))
    assert (trial.image == image).all()
    assert trial.wanted == "banana"
    assert Control().trial(image, "Banana", rng(0)) is None  # the floor has the attack's denominator
