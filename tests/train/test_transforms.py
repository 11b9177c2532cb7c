import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from train import transforms
from train.model import architecture, image_size, preprocess


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width * height).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize("size", [(32, 32), (40, 32), (32, 47), (33, 90), (64, 64), (20, 31), (201, 100), (7, 300)])
def test_evaluation_sees_what_open_clip_shows(size):
    ours = architecture("tiny-vit")
    theirs = open_clip.image_transform(image_size(ours), is_train=False)
    assert torch.allclose(preprocess(picture(*size), ours), theirs(picture(*size)), atol=1e-6)


def test_an_image_of_the_models_size_is_not_touched():
    image = picture(32, 32)
    assert transforms.evaluated(image, 32) is image
    assert transforms.trained(image, 32, "none") is image


def test_flip_crop_draws_from_torchs_generator_alone():
    image = picture(64, 48)

    def drawn(seed: int) -> bytes:
        torch.default_generator.manual_seed(seed)
        return transforms.trained(image, 32, "flip_crop").tobytes()

    views = {drawn(seed) for seed in range(8)}
    assert len(views) > 4
    assert drawn(0) == drawn(0)


def test_flip_crop_keeps_most_of_the_image():
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], (64, 1, 3)))
    torch.default_generator.manual_seed(0)
    for _ in range(30):
        view = np.asarray(transforms.trained(ramp, 32, "flip_crop")).astype(int)
        assert view.max() - view.min() > 0.7 * 255


def test_pixels_are_normalised_as_open_clip_does():
    pixels = transforms.to_array(picture(32, 32))
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    found = transforms.normalised(torch.tensor(pixels[None]), mean, std)
    assert pixels.shape == (3, 32, 32)
    assert found[0, 2, 3, 4].item() == pytest.approx((pixels[2, 3, 4] / 255 - 0.3) / 0.7, abs=1e-6)
