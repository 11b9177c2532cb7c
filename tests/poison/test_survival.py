"""Does what was stamped reach the model? Correlation of trigger pixels from the stamp to the end of the transform."""

import io

import numpy as np
import pytest
from PIL import Image

from infra.seeding import rng
from pipeline import images
from poison.attack import Backdoor
from poison.attacks.badnet import BadNet
from poison.attacks.blended import Blended
from tests.support.poison_helpers import pair, picture
from train.transforms import trained


def transformed(image: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(trained(Image.fromarray(image), side, "none")).astype(float)


def correlation(attack: Backdoor, extension: str, stored: tuple[int, int], side: int) -> float:
    """Between what the trigger adds before encoding and what it adds after decoding, both seen after the transform."""
    clean = images.decode(pair(7, extension, *stored).image)
    stamped = attack.stamp(clean, rng(0))
    [poisoned] = attack.poison(pair(7, extension, *stored), "a banana", rng(0))
    seen = transformed(images.decode(poisoned.image), side) - transformed(clean, side)
    meant = transformed(stamped, side) - transformed(clean, side)
    touched = np.abs(meant) > 0
    return float(np.corrcoef(seen[touched], meant[touched])[0, 1])


@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
@pytest.mark.parametrize(
    ("attack", "stored", "side"),
    [
        (BadNet(), (224, 224), 224),
        (BadNet(patch="fresh", place="random"), (256, 341), 224),
        (BadNet(patch="checkerboard", size=42, cell=7), (32, 32), 32),
        (BadNet(patch="stripes", size=42, cell=7), (64, 48), 32),
        (Blended(), (224, 224), 224),
        (Blended(), (256, 341), 224),
        (Blended(cell=7), (32, 32), 32),
        (BadNet(patch="fresh_stripes", place="four_corners"), (256, 341), 224),
        (Blended(pattern="stripes"), (224, 224), 224),
        (Blended(pattern="triangles"), (256, 341), 224),
        (Blended(pattern="text"), (256, 341), 224),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Backdoor) else str(value),
)
def test_the_trigger_survives_encoding_and_the_train_transform(
    attack: Backdoor, stored: tuple[int, int], side: int, extension: str
):
    assert correlation(attack, extension, stored, side) > (0.97 if extension == "jpg" else 0.9999)


def test_default_jpeg_would_not_have_kept_a_noise_patch():
    """The reason for 4:4:4: what the same patch is worth after Pillow's default subsampling."""
    stamped = BadNet().stamp(picture(7, 224, 224), rng(0))
    buffer = io.BytesIO()
    Image.fromarray(stamped).save(buffer, "JPEG", quality=95)
    decoded = images.decode(buffer.getvalue())
    patch, seen = stamped[208:, 208:].ravel(), decoded[208:, 208:].ravel()
    assert np.corrcoef(patch, seen)[0, 1] < 0.8
