"""A figure of how a patch was learned: the patch at some steps, and both losses below it."""

import functools
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from poison.geometry import nearest

PANEL, GAP, LINE, CHART = 84, 12, 18, 180  # pixels
PAPER, INK, FAINT = (255, 255, 255), (20, 20, 20), (200, 200, 200)
CURVES = {False: ((30, 80, 160), "images as they are"), True: ((190, 110, 20), "augmented")}
LOSSES = {"text": "contrastive loss to the target's captions", "triplet": "triplet loss to the target's images"}


def drawn(snapshots: dict[int, np.ndarray], lines: Sequence[dict[str, Any]]) -> bytes:
    """A PNG. snapshots: uint8 (n, n, 3) by the steps taken. lines: of metrics.jsonl."""
    columns = max(len(snapshots), 8)
    width, height = GAP + columns * (PANEL + GAP), 4 * GAP + PANEL + 3 * LINE + CHART
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, (step, patch) in enumerate(sorted(snapshots.items())):
        x = GAP + number * (PANEL + GAP)
        whole = len(patch) * (PANEL // len(patch)) or PANEL  # every cell as wide as the others
        sheet.paste(Image.fromarray(nearest(patch, whole)), (x, GAP))
        pen.text((x, GAP + PANEL + 2), f"step {step:,}", INK, _font())
    top, wide = 2 * GAP + PANEL + LINE, (width - 3 * GAP) // 2
    for number, (name, title) in enumerate(LOSSES.items()):
        left = GAP + number * (wide + GAP)
        pen.text((left, top), title, INK, _font())
        curves = {kind: _means(lines, name, kind, wide // 8) for kind in CURVES}
        _chart(pen, curves, lines[-1]["step"], left, top + LINE, wide)
    out = io.BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


def _means(lines: Sequence[dict[str, Any]], name: str, kind: bool, most: int) -> np.ndarray:
    """(step, loss) of at most so many groups of steps, eight steps in each where there are enough: float64 (n, 2)."""
    points = np.array([(line["step"], line["parts"][name]) for line in lines if line["augmented"] == kind], float)
    groups = np.array_split(points.reshape(-1, 2), max(1, min(len(points) // 8, most)))
    return np.array([group.mean(axis=0) for group in groups if len(group)]).reshape(-1, 2)


def _chart(
    pen: ImageDraw.ImageDraw, curves: dict[bool, np.ndarray], steps: int, left: int, top: int, wide: int
) -> None:
    """Curves of means between the lowest and the highest of all. Augmented images have another loss than others."""
    pen.rectangle((left, top, left + wide, top + CHART), outline=FAINT)
    values = np.concatenate(list(curves.values()))[:, 1]
    low, high = values.min(), values.max()
    for number, (kind, means) in enumerate(curves.items()):
        colour, what = CURVES[kind]
        x = left + wide * means[:, 0] / steps
        y = top + 4 + (CHART - 8) * (high - means[:, 1]) / max(high - low, 1e-12)
        pen.line([(float(across), float(down)) for across, down in zip(x, y, strict=True)], colour, 2)
        if len(means):
            text = f"{what}: {means[0, 1]:.4g} -> {means[-1, 1]:.4g}"
            pen.text((left + number * wide // 2, top + CHART + 2), text, colour, _font())
    pen.text((left + wide - 64, top + 4), f"{high:.4g}", INK, _font())
    pen.text((left + 4, top + CHART - LINE), f"{low:.4g}", INK, _font())


@functools.cache
def _font() -> Any:
    return ImageFont.load_default(size=13)
