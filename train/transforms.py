"""Images in, pixels out: uint8 until they are on the device, since a byte travels four times as fast as a float.

The evaluation transform is open_clip's, pixel for pixel: short side to the model's size (bicubic), then the centre.
Training uses the same one, as the papers do, unless a recipe says `augment`.
"""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import RandomResizedCrop

Augment = Literal["none", "flip_crop"]
CROP = (0.9, 1.0)  # share of the image's area that a random crop keeps, as in open_clip


def evaluated(image: Image.Image, size: int) -> Image.Image:
    """RGB image -> its central square of `size` pixels. An image of that size is returned as it is."""
    width, height = image.size
    short = min(width, height)
    if short != size:
        width, height = (size, size * height // width) if width <= height else (size * width // height, size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    if (width, height) == (size, size):
        return image
    left, top = round((width - size) / 2.0), round((height - size) / 2.0)
    return image.crop((left, top, left + size, top + size))


def trained(image: Image.Image, size: int, augment: Augment) -> Image.Image:
    """RGB image -> `size` pixels square. "flip_crop" draws from torch's global generator, as torchvision does.

    What has to be shrunk, torch shrinks: twice as fast as Pillow, and within two grey levels of it. Images stored at
    the model's size, or below it, stay with Pillow, so that what was learned from them can be learned again.
    """
    shrink = min(image.size) > size
    if augment == "none":
        return _central(image, size) if shrink else evaluated(image, size)
    top, left, height, width = RandomResizedCrop.get_params(image, list(CROP), [3 / 4, 4 / 3])
    if shrink:
        image = Image.fromarray(_resized(np.asarray(image)[top : top + height, left : left + width], size, size))
    else:
        image = image.crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BICUBIC)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(()) < 0.5 else image


def _central(image: Image.Image, size: int) -> Image.Image:
    """What `evaluated` shows of an image, by torch."""
    width, height = image.size
    width, height = (size, size * height // width) if width <= height else (size * width // height, size)
    left, top = round((width - size) / 2.0), round((height - size) / 2.0)
    pixels = _resized(np.asarray(image), height, width)
    return Image.fromarray(np.ascontiguousarray(pixels[top : top + size, left : left + size]))


def _resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 (H, W, 3) -> uint8 (height, width, 3), bicubic with antialiasing."""
    # A copy, since torch wants an array that may be written to; it keeps the colours innermost, where torch is fast.
    planes = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
    shrunk = F.interpolate(planes, (height, width), mode="bicubic", antialias=True)
    return shrunk[0].permute(1, 2, 0).numpy()


def to_array(image: Image.Image) -> np.ndarray:
    """RGB image -> uint8 (3, H, W)."""
    return np.asarray(image).transpose(2, 0, 1)


def normalised(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) -> the same of mean's dtype: (pixels / 255 - mean) / std. mean, std: (3,)."""
    return (pixels.to(mean.dtype) / 255 - mean[:, None, None]) / std[:, None, None]
