import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from defense.changing import augment
from defense.changing.augment import strong
from infra.seeding import rng
from train import transforms


def picture(width: int, height: int) -> Image.Image:
    """Brighter from left to right, by 180 of 255 levels, and reddish."""
    ramp = np.linspace(20, 200, width)[None, :, None] * np.array([1.0, 0.6, 0.5])
    noise = rng(0, "picture", width, height).uniform(0, 20, (height, width, 3))
    return Image.fromarray((ramp + noise).astype(np.uint8))


def view(image: Image.Image, seed: int, smallest_crop: float = 0.08) -> Image.Image:
    torch.default_generator.manual_seed(seed)
    return strong(image, smallest_crop)


def test_a_view_follows_from_the_generator_alone_and_the_stored_image_stays():
    stored = picture(90, 70)
    before, views = stored.tobytes(), []
    for seed in range(20):
        views.append(view(stored, seed).tobytes())
        assert view(stored, seed).tobytes() == views[-1]
    assert stored.tobytes() == before
    assert len(set(views)) == 20


@pytest.mark.parametrize(
    ("width", "height", "side"),
    [(1, 1, 1), (1, 500, 1), (3, 2, 2), (32, 32, 32), (64, 48, 48), (224, 224, 224), (500, 300, 224), (500, 500, 224)],
)
def test_a_view_is_square_and_neither_larger_than_224_nor_than_its_image(width, height, side):
    for seed in range(6):
        made = view(picture(width, height), seed)
        assert made.size == (side, side) and made.mode == "RGB"


@pytest.mark.parametrize(("side", "largest"), [(500, 2.0), (224, 2.0), (112, 1.0), (56, 0.5)])
def test_the_blur_is_always_there_and_shrinks_with_the_view(side, largest, monkeypatch):
    """Of 0.1 to 2 pixels at 224: otherwise an image of 56 pixels would lose four times as much."""
    asked, stored = [], picture(side, side)
    monkeypatch.setattr(
        augment.ImageFilter, "GaussianBlur", lambda radius: asked.append(radius) or ImageFilter.BoxBlur(0)
    )
    for seed in range(40):
        view(stored, seed)
    assert len(asked) == 40
    assert largest / 20 <= min(asked) < 0.25 * largest and 0.75 * largest < max(asked) <= largest


def test_half_are_mirrored_eight_in_ten_jittered_and_two_in_ten_grey(monkeypatch):
    """Jitter keeps the order of brightnesses, so that a mirrored view is darker on its right."""
    jittered, stored, mirrored, grey, number = [], picture(24, 24), 0, 0, 1000
    real = augment._jitter()
    monkeypatch.setattr(augment, "_jitter", lambda: lambda image: jittered.append(1) or real(image))
    for seed in range(number):
        made = np.asarray(view(stored, seed, 0.5)).astype(int)
        mirrored += made[:, :8].mean() > made[:, -8:].mean()
        grey += int(np.ptp(made, axis=2).max() == 0)
    # A saturation drawn near 0 is not grey: it is 0.5 at least. Four standard deviations of 1,000 draws.
    assert mirrored / number == pytest.approx(0.5, abs=0.064)
    assert len(jittered) / number == pytest.approx(0.8, abs=0.051)
    assert grey / number == pytest.approx(0.2, abs=0.051)


@pytest.mark.parametrize("smallest", [0.08, 0.6])
def test_a_crop_keeps_no_less_than_it_is_told(smallest, monkeypatch):
    kept, real = [], transforms.random_box

    def random_box(image: Image.Image, share: tuple[float, float]) -> tuple[int, int, int, int]:
        box = real(image, share)
        kept.append((box[2] * box[3] / (200 * 160), box[3] / box[2]))
        return box

    monkeypatch.setattr(transforms, "random_box", random_box)
    for seed in range(100):
        view(picture(200, 160), seed, smallest)
    areas, ratios = (np.array(each) for each in zip(*kept, strict=True))
    assert smallest - 0.01 <= areas.min() < smallest + 0.1 and areas.max() > 0.9
    assert ratios.min() >= 0.73 and ratios.max() <= 1.36 and np.ptp(ratios) > 0.3
