"""The images' augmentation of RoCLIP and SafeCLIP, with the order and the values of their released code."""

import functools
from collections.abc import Callable

import torch
from PIL import Image, ImageFilter

from train import transforms

LARGEST = 224  # pixels of a view's side, for which SIGMA is meant
SIGMA = (0.1, 2.0)
MIRRORED, JITTERED, GREYED = 0.5, 0.8, 0.2  # shares of the views


def strong(image: Image.Image, smallest_crop: float = 0.08) -> Image.Image:
    """RGB image -> a new, square view of min(224, its short side) pixels; draws from torch's global generator.

    In order: mirrored (1 in 2), a random crop of `smallest_crop` to all of the image's area, jitter of brightness,
    contrast, saturation (0.5) and hue (0.1) for 8 in 10, grey for 2 in 10, Gaussian blur always.

    Ours: a view is not made larger than its image, and the blur's sigma (0.1 to 2 pixels, for 224) shrinks with it:
    what is a touch of blur there would wipe out a small image. The blur is Pillow's, at 224 pixels 35 times as fast
    as torchvision's with a kernel of 21 and on average less than a grey level from it.
    """
    side = min(LARGEST, *image.size)
    if torch.rand(()) < MIRRORED:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    top, left, height, width = transforms.random_box(image, (smallest_crop, 1.0))
    box = (left, top, left + width, top + height)
    image = image.resize((side, side), Image.Resampling.BILINEAR, box=box)
    if torch.rand(()) < JITTERED:
        image = _jitter()(image)
    if torch.rand(()) < GREYED:
        image = image.convert("L").convert("RGB")
    sigma = float(torch.empty(()).uniform_(*SIGMA)) * side / LARGEST
    return image.filter(ImageFilter.GaussianBlur(sigma))


@functools.cache
def _jitter() -> Callable[[Image.Image], Image.Image]:
    from torchvision.transforms import ColorJitter

    return ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.1)
