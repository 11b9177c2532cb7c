import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop

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


@pytest.mark.parametrize("size", [(40, 33), (64, 64), (90, 47), (100, 201)])
def test_what_is_shrunk_for_training_is_what_evaluation_sees_but_for_rounding(size):
    image = Image.fromarray(np.asarray(picture(*size).resize((9, 7)).resize(size, Image.Resampling.BICUBIC)))
    shown, evaluated = (
        np.asarray(found).astype(int)
        for found in (transforms.trained(image, 32, "none"), transforms.evaluated(image, 32))
    )
    assert shown.shape == evaluated.shape == (32, 32, 3)
    assert np.abs(shown - evaluated).max() <= 2


def test_flip_crop_shrinks_the_crop_that_it_drew():
    image = Image.fromarray(np.asarray(picture(9, 7).resize((90, 70), Image.Resampling.BICUBIC)))
    for seed in range(8):
        torch.default_generator.manual_seed(seed)
        shown = np.asarray(transforms.trained(image, 32, "flip_crop")).astype(int)
        torch.default_generator.manual_seed(seed)
        top, left, height, width = RandomResizedCrop.get_params(image, [0.9, 1.0], [3 / 4, 4 / 3])
        wanted = image.crop((left, top, left + width, top + height)).resize((32, 32), Image.Resampling.BICUBIC)
        wanted = wanted.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(()) < 0.5 else wanted
        assert np.abs(shown - np.asarray(wanted)).max() <= 2


@pytest.mark.parametrize("augment", ["none", "flip_crop"])
@pytest.mark.parametrize("size", [(64, 48), (32, 32), (20, 31)])
def test_an_array_and_the_image_of_it_are_shown_alike(augment, size):
    image = picture(*size)
    pixels = np.asarray(image)  # read-only
    found = []
    for given in (image, pixels, pixels.copy()):
        torch.default_generator.manual_seed(3)
        found.append(np.asarray(transforms.trained(given, 32, augment)))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])
    assert np.array_equal(pixels, np.asarray(picture(*size)))


@pytest.mark.parametrize("augment", ["none", "flip_crop"])
def test_images_of_the_models_size_keep_the_bytes_that_pillow_makes_of_them(augment, monkeypatch):
    monkeypatch.setattr(transforms, "_resized", None)  # committed numbers were learned from Pillow's bytes
    for size in ((32, 32), (40, 32), (20, 31)):
        assert transforms.trained(picture(*size), 32, augment).size == (32, 32)


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
