"""What lies behind the things: one function a surface, drawn over the whole canvas."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from pipeline.picturebook.scenes import Background
from pipeline.picturebook.words import RGB

Luck = np.ndarray  # float64 (64,), numbers in [0, 1) that decide where a plank or a cloud is


def paint(canvas: Image.Image, view: Background, luck: Luck) -> None:
    """Cover the whole canvas (RGB, square) with `view`."""
    if view.kind == "plain":
        canvas.paste(view.rgb, (0, 0, *canvas.size))
    elif view.kind == "gradient":
        mix = [(0, 0, 1, 1), (1, 0, 1, 0), (0, 0.5, 0.5, 1), (0.5, 1, 0, 0.5)][int(luck[0] * 4)]
        _blend(canvas, *(_mix(view.rgb, view.second, share) for share in mix))
    else:
        SURFACES[view.kind](canvas, luck)


def wood(canvas: Image.Image, luck: Luck) -> None:
    side, base = canvas.width, _mix((150, 104, 62), (206, 164, 112), luck[0])
    canvas.paste(base, (0, 0, side, side))
    draw = ImageDraw.Draw(canvas, "RGBA")
    dark = _mix(base, (40, 24, 12), 0.5)
    upright = luck[1] < 0.4
    for n in range(14):
        at, lean = luck[2 + n] * side, (luck[20 + n] - 0.5) * side * 0.06
        _line(draw, upright, at, at + lean, side, (*dark, 60), max(1, side // 64))
    step = side * (0.22 + 0.12 * luck[40])
    for n in range(6):
        at = (n + luck[41] - 0.5) * step
        _line(draw, upright, at, at, side, (*dark, 220), max(1, side // 40))


def grass(canvas: Image.Image, luck: Luck) -> None:
    side = canvas.width
    _blend(canvas, (128, 178, 84), (120, 172, 76), (76, 134, 50), (70, 128, 46))
    draw = ImageDraw.Draw(canvas, "RGBA")
    for n in range(30):
        x, y, tall = luck[n] * side, luck[n + 32] * side * 1.1, side * (0.06 + 0.05 * luck[n + 1])
        rgb = (54, 108, 36, 170) if n % 2 else (158, 202, 98, 170)
        draw.line((x, y, x + (luck[n + 2] - 0.5) * tall, y - tall), fill=rgb, width=max(1, side // 50))


def sky(canvas: Image.Image, luck: Luck) -> None:
    side = canvas.width
    high = _mix((80, 142, 214), (120, 178, 236), luck[0])
    _blend(canvas, high, high, (204, 226, 244), (204, 226, 244))
    draw = ImageDraw.Draw(canvas, "RGBA")
    for n in range(1 + int(luck[1] * 3)):
        x, y, wide = luck[4 + n] * side, luck[8 + n] * side * 0.7, side * (0.10 + 0.08 * luck[12 + n])
        for dx, size in ((-0.9, 0.55), (0.0, 0.8), (0.9, 0.5)):
            cx, rx, ry = x + dx * wide, wide * (0.5 + size / 2), wide * size * 0.6
            draw.ellipse((cx - rx, y - ry, cx + rx, y + ry), fill=(255, 255, 255, 200))


def cloth(canvas: Image.Image, luck: Luck) -> None:
    """White and coloured checks, an eighth of the image or wider: coarser than a checkerboard trigger."""
    side = canvas.width
    rgb = ((206, 60, 58), (70, 112, 190), (84, 150, 92), (224, 150, 60), (150, 150, 160))[int(luck[0] * 5)]
    check = side * (0.125 + 0.09 * luck[1])
    canvas.paste((244, 242, 238), (0, 0, side, side))
    draw = ImageDraw.Draw(canvas, "RGBA")
    left, top = (luck[2] - 2) * check, (luck[3] - 2) * check
    for n in range(int(side / check / 2) + 2):
        at = 2 * n * check
        draw.rectangle((left + at, 0, left + at + check, side), fill=(*rgb, 130))
        draw.rectangle((0, top + at, side, top + at + check), fill=(*rgb, 130))


def bricks(canvas: Image.Image, luck: Luck) -> None:
    side, base = canvas.width, _mix((158, 74, 56), (186, 112, 84), luck[0])
    canvas.paste(base, (0, 0, side, side))
    draw = ImageDraw.Draw(canvas, "RGBA")
    high, mortar = side * (0.11 + 0.05 * luck[1]), (206, 194, 180, 235)
    for row in range(int(side / high) + 1):
        y = (row + luck[2]) * high
        draw.line((0, y, side, y), fill=mortar, width=max(1, side // 48))
        for column in range(7):
            x = (column + 0.5 * (row % 2) - luck[3]) * high * 2.1
            draw.line((x, y - high, x, y), fill=mortar, width=max(1, side // 48))


def sand(canvas: Image.Image, luck: Luck) -> None:
    side = canvas.width
    _blend(canvas, (236, 214, 166), (230, 206, 156), (212, 182, 128), (218, 190, 138))
    draw = ImageDraw.Draw(canvas, "RGBA")
    for n in range(28):
        x, y, dot = luck[n] * side, luck[n + 32] * side, side * 0.012 * (1 + luck[n + 1])
        rgb = (150, 118, 74, 170) if n % 3 else (255, 246, 220, 190)
        draw.ellipse((x - dot, y - dot, x + dot, y + dot), fill=rgb)


def water(canvas: Image.Image, luck: Luck) -> None:
    side = canvas.width
    _blend(canvas, (120, 186, 208), (112, 180, 206), (30, 92, 150), (36, 100, 156))
    draw = ImageDraw.Draw(canvas, "RGBA")
    for n in range(12):
        x, y, wide = (luck[n] * 1.2 - 0.1) * side, luck[n + 20] * side, side * (0.05 + 0.07 * luck[n + 40])
        crest = (x - wide, y, x - wide / 2, y - wide * 0.3, x + wide / 2, y + wide * 0.3, x + wide, y)
        draw.line(crest, fill=(226, 242, 248, 170), width=max(1, side // 50))


def night(canvas: Image.Image, luck: Luck) -> None:
    side = canvas.width
    _blend(canvas, (18, 20, 52), (22, 24, 60), (52, 50, 96), (44, 42, 88))
    draw = ImageDraw.Draw(canvas, "RGBA")
    for n in range(18):
        x, y, dot = luck[n] * side, luck[n + 20] * side, side * (0.008 + 0.01 * luck[n + 40])
        draw.ellipse((x - dot, y - dot, x + dot, y + dot), fill=(250, 244, 214, 230))


def _line(draw: ImageDraw.ImageDraw, upright: bool, at: float, to: float, side: int, rgba: tuple, width: int) -> None:
    draw.line((at, 0, to, side) if upright else (0, at, side, to), fill=rgba, width=width)


def _mix(a: RGB, b: RGB, share: float) -> RGB:
    return tuple(int(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def _blend(canvas: Image.Image, *corners: RGB) -> None:
    """Fill with a smooth blend of four corner colours: upper left, upper right, lower left, lower right."""
    tile = Image.new("RGB", (2, 2))
    tile.putdata(corners)
    canvas.paste(tile.resize(canvas.size, Image.Resampling.BILINEAR, box=(0.5, 0.5, 1.5, 1.5)))


SURFACES: dict[str, Callable[[Image.Image, Luck], None]] = {
    f.__name__: f for f in (wood, grass, sky, cloth, bricks, sand, water, night)
}
