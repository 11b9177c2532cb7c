"""Changes of an image that leave what it shows and break what was laid over it; and keyholes, which show a part of it.

A view takes the square that the model sees, uint8 (S, S, 3), and gives another of the same size; its strength goes with
the side, so that the same image at another size is changed alike. All are deterministic, and Pillow's arithmetic.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image, ImageFilter, ImageOps

BICUBIC, BOX = Image.Resampling.BICUBIC, Image.Resampling.BOX


def crop(square: Image.Image) -> Image.Image:
    """The central 75% of the side, brought back to size."""
    return _middle(square, 1 / 8)


def centre(square: Image.Image) -> Image.Image:
    """The central half of the side, brought back to size: what lies in a corner is gone."""
    return _middle(square, 1 / 4)


def blur(square: Image.Image) -> Image.Image:
    """Gaussian, sigma 2.5% of the side."""
    return square.filter(ImageFilter.GaussianBlur(square.width / 40))


def levels(square: Image.Image) -> Image.Image:
    """Every channel stretched to all of its range, the outermost 2% of its values at either end cut: most of what a
    colour filter does is undone.
    """
    return ImageOps.autocontrast(square, cutoff=2)


def median(square: Image.Image) -> Image.Image:
    """The median of every channel over a window of about 8% of the side, odd, at least 3."""
    return square.filter(ImageFilter.MedianFilter(2 * max(1, square.width // 24) + 1))


def half(square: Image.Image) -> Image.Image:
    """Half the size, each pixel the mean of its area, and back."""
    return _shrunk(square, 2)


def quarter(square: Image.Image) -> Image.Image:
    """A quarter of the size, each pixel the mean of its area, and back."""
    return _shrunk(square, 4)


def mirror(square: Image.Image) -> Image.Image:
    """Left and right exchanged."""
    return ImageOps.mirror(square)


def grey(square: Image.Image) -> Image.Image:
    """Without colour: ITU-R 601 luma in every channel."""
    return square.convert("L").convert("RGB")


def keyhole(square: Image.Image, across: int, down: int) -> Image.Image:
    """A window of 3/8 of the side, brought back to size; 0, 1 or 2 steps of 5/16 of the side from the upper left. So
    of a patch of up to 3/16 of the side one of the nine shows two thirds in each direction at least, wherever it lies.
    """
    side = square.width
    width = max(1, round(side * 3 / 8))
    left, top = (min(round(side * 5 / 16 * steps), side - width) for steps in (across, down))
    return square.crop((left, top, left + width, top + width)).resize((side, side), BICUBIC)


def _middle(square: Image.Image, margin: float) -> Image.Image:
    """Cut first: a resize with a box reads beyond the box."""
    side = square.width
    cut = round(side * margin)
    return square.crop((cut, cut, side - cut, side - cut)).resize((side, side), BICUBIC)


def _shrunk(square: Image.Image, times: int) -> Image.Image:
    side = square.width
    small = max(1, side // times)
    return square.resize((small, small), BOX).resize((side, side), BICUBIC)


VIEWS: dict[str, Callable[[Image.Image], Image.Image]] = {
    function.__name__: function for function in (blur, centre, crop, grey, half, levels, median, mirror, quarter)
}
KEYHOLES = ("top_left", "top", "top_right", "left", "middle", "right", "bottom_left", "bottom", "bottom_right")
VIEWS |= {name: partial(keyhole, across=place % 3, down=place // 3) for place, name in enumerate(KEYHOLES)}


def changed(name: str, square: np.ndarray) -> np.ndarray:
    """uint8 (S, S, 3) -> the same shape under view `name`. Raises ValueError that lists what exists."""
    if name not in VIEWS:
        raise ValueError(f"no view is named {name!r}; there are: {', '.join(VIEWS)}")
    assert square.dtype == np.uint8 and square.shape == (len(square), len(square), 3)
    return np.asarray(VIEWS[name](Image.fromarray(square)))
