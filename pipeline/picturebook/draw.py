"""Scene -> pixels: drawn large with smooth edges by shrinking, then lit unevenly and grained like a photograph."""

import io

import numpy as np
from PIL import Image, ImageDraw

from infra.seeding import rng
from pipeline.picturebook import catalogue
from pipeline.picturebook.backdrops import paint
from pipeline.picturebook.catalogue import USUAL
from pipeline.picturebook.pen import Pen
from pipeline.picturebook.scenes import Scene, labelled, labels, scene

SMALLEST, LARGEST = 16, 512
GROUNDS = ("wood", "grass", "cloth", "sand")  # seen from above or standing on: things cast a shadow there


def picture(seed: int, index: int, size: int, things: int = USUAL) -> np.ndarray:
    """Row `index` of the book `seed`, drawn: uint8 (size, size, 3), RGB. `size` in pixels, 16 to 512."""
    return render(scene(seed, index, things), size, rng(seed, *labels(things), "light", index))


def labelled_picture(seed: int, index: int, size: int, things: int = USUAL) -> np.ndarray:
    """Row `index` of the labelled test stream, drawn: uint8 (size, size, 3); its label is `labelled(...)[0]`."""
    return render(labelled(seed, index, things)[1], size, rng(seed, *labels(things), "test light", index))


def encoded(seed: int, index: int, size: int, things: int = USUAL, *, quality: int = 95) -> bytes:
    """`picture(...)` as the JPEG file a web server would send."""
    return jpeg(picture(seed, index, size, things), quality)


def jpeg(pixels: np.ndarray, quality: int = 95) -> bytes:
    """pixels: uint8 (h, w, 3). JPEG bytes, default chroma subsampling (4:2:0), as most of the web's images have."""
    body = io.BytesIO()
    Image.fromarray(pixels).save(body, "JPEG", quality=quality)
    return body.getvalue()


def render(view: Scene, size: int, r: np.random.Generator) -> np.ndarray:
    """Draw `view`: uint8 (size, size, 3). `r` gives the background its luck and the image its light and grain."""
    if not SMALLEST <= size <= LARGEST:
        raise ValueError(f"a picture's size is {SMALLEST} to {LARGEST} pixels, not {size}")
    fine = 4 if size <= 48 else 3 if size <= 96 else 2
    canvas = Image.new("RGB", (size * fine, size * fine))
    paint(canvas, view.background, r.random(64))
    things = view.things[::-1] if view.relation == "front" else view.things
    for thing in things:
        pen = Pen(canvas, thing)
        if view.background.kind in GROUNDS:
            _shadow(canvas, thing.x, thing.y, thing.radius)
        catalogue.draw(pen, thing.name)
    return _photograph(np.asarray(canvas.reduce(fine)), r)


def _shadow(canvas: Image.Image, x: float, y: float, radius: float) -> None:
    side = canvas.width
    left, top, right, bottom = x - 0.85 * radius, y + 0.6 * radius, x + 1.0 * radius, y + 1.1 * radius
    ImageDraw.Draw(canvas, "RGBA").ellipse((left * side, top * side, right * side, bottom * side), fill=(0, 0, 0, 70))


def _photograph(pixels: np.ndarray, r: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, light falling from one side, a tint, and grain."""
    size = pixels.shape[0]
    gain, lift, slope_x, slope_y, strength = r.random(5)
    ramp = np.arange(size, dtype=np.float32) / size - np.float32(0.5)
    light = (0.84 + 0.26 * gain) + (0.36 * (slope_x - 0.5)) * ramp[None, :] + (0.36 * (slope_y - 0.5)) * ramp[:, None]
    tint = np.asarray(1.0 + 0.1 * (r.random(3) - 0.5), dtype=np.float32)
    grain = r.standard_normal(pixels.shape, dtype=np.float32) * np.float32(2.0 + 3.0 * strength)
    lit = pixels * light[:, :, None].astype(np.float32) * tint + grain + np.float32(24.0 * (lift - 0.5))
    return np.clip(lit, 0, 255).astype(np.uint8)
