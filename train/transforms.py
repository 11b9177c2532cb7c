"""Images in, pixels out: uint8 until they are on the device, since a byte travels four times as fast as a float.

The evaluation transform is open_clip's, pixel for pixel: short side to the model's size (bicubic), then the centre.
Training uses the same one, as the papers do, unless a recipe says `augment`.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pipeline.images import Decoded, pillow

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


def trained(image: Decoded, size: int, augment: Augment) -> Decoded:
    """RGB image -> `size` pixels square. "flip_crop" draws from torch's global generator, as torchvision does.

    What has to be shrunk, torch shrinks: three times as fast as Pillow, and within two grey levels of it; it comes as
    uint8 (size, size, 3). Images stored at the model's size, or below it, stay with Pillow, so that what was learned
    from them can be learned again.
    """
    if min(image.size if isinstance(image, Image.Image) else image.shape[:2]) > size:
        pixels = torch.from_numpy(np.require(image, requirements="W")).permute(2, 0, 1)  # colours innermost in memory
        height, width = pixels.shape[1:]
        return framed(pixels, drawn(height, width, size, augment), size, _resized).permute(1, 2, 0).numpy()
    image = pillow(image)
    if augment == "none":
        return evaluated(image, size)
    top, left, height, width = random_box(image, CROP)
    image = image.crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BICUBIC)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(()) < 0.5 else image


def random_box(image: Image.Image | torch.Tensor, share: tuple[float, float]) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a crop that keeps such a share of the image's area, drawn from torch's global
    generator. image: it is asked for its size alone."""
    from torchvision.transforms import RandomResizedCrop  # seconds of imports: not for help

    return RandomResizedCrop.get_params(image, list(share), [3 / 4, 4 / 3])


class Frame(NamedTuple):
    """What a view shows of an image larger than it: a part, resized, of which a square is cut, mirrored or not."""

    top: int
    left: int
    height: int
    width: int
    to_height: int
    to_width: int
    cut_top: int
    cut_left: int
    mirrored: bool


def drawn(height: int, width: int, size: int, augment: Augment) -> Frame:
    """The frame of an image: what `evaluated` shows of it, or a random crop."""
    if augment == "none":
        high, wide = (size * height // width, size) if width <= height else (size, size * width // height)
        return Frame(0, 0, height, width, high, wide, round((high - size) / 2.0), round((wide - size) / 2.0), False)
    image = torch.empty(1).expand(3, height, width)
    top, left, height, width = random_box(image, CROP)
    return Frame(top, left, height, width, size, size, 0, 0, bool(torch.rand(()) < 0.5))


def framed(pixels: Tensor, frame: Frame, size: int, resized: Callable[[Tensor, int, int], Tensor]) -> Tensor:
    """uint8 (3, H, W) -> uint8 (3, size, size). resized: makes the second from the first, (3, h, w) -> (3, h', w')."""
    part = pixels[:, frame.top : frame.top + frame.height, frame.left : frame.left + frame.width]
    whole = resized(part, frame.to_height, frame.to_width)
    cut = whole[:, frame.cut_top : frame.cut_top + size, frame.cut_left : frame.cut_left + size]
    return cut.flip(2) if frame.mirrored else cut


def _resized(pixels: Tensor, height: int, width: int) -> Tensor:
    """uint8 (3, H, W) -> uint8 (3, height, width), bicubic with antialiasing; in the order of memory that came."""
    batch = pixels.permute(1, 2, 0)[None].permute(0, 3, 1, 2)  # torch reads the order off strides that [None] garbles
    return F.interpolate(batch, (height, width), mode="bicubic", antialias=True)[0]


def to_array(image: Image.Image) -> np.ndarray:
    """RGB image -> uint8 (3, H, W)."""
    return np.asarray(image).transpose(2, 0, 1)


def normalised(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) -> the same of mean's dtype: (pixels / 255 - mean) / std. mean, std: (3,)."""
    return (pixels.to(mean.dtype) / 255).sub_(mean[:, None, None]).div_(std[:, None, None])
