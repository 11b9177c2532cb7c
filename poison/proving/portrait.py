"""proof.png: how much is left of each attack's triggers, and the pairs that lost most, as evaluation sees them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from PIL import Image, ImageDraw

from pipeline.dataset import Dataset
from poison.ledger import Ledger
from poison.proving import verdicts
from poison.proving.views import Views
from poison.sheets import sheet
from poison.sheets.layout import FAINT, GAP, INK, LINE, PAPER, SMALL, WIDTH, font, to_png

WORST = 4
BINS, HEIGHT, BAR = 48, 90, (70, 110, 180)


def draw(
    findings: pa.Table,
    ledgers: list[Ledger],
    clean: Dataset,
    poisoned: Dataset,
    views: Views,
    about: dict[str, Any],
) -> bytes:
    """The image as PNG. about: poison.proving.verdicts.summary."""
    shown = verdicts.worst(findings, WORST)
    by_key = {(number, line["shard"], line["key"]): line for number, one in enumerate(ledgers) for line in _rows(one)}
    lines = [by_key[line["ledger"], line["shard"], line["key"]] for line in shown]
    pairs = []
    for pair, line in zip(sheet.pairs(lines, clean, poisoned), shown, strict=True):
        left = line["eval_fidelity"]
        said = f"{about['attacks'][line['ledger']]['attack']}" + (f", fidelity {left:.4f}" if left is not None else "")
        before, after = views.evaluated(pair.clean), views.evaluated(pair.poisoned)
        pairs.append(replace(pair, clean=before, poisoned=after, notes=(f"{said}; {pair.notes[0]}",)))
    title = f"{about['headline']}. Below, as a model of {views.size} pixels sees them, the pairs that lost most."
    return to_png(pairs, title, _histograms(findings, about))


def _rows(ledger: Ledger) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ledger.rows.to_pylist()
    return found


def _histograms(findings: pa.Table, about: dict[str, Any]) -> Image.Image | None:
    """One strip an attack that has triggers: pairs by fidelity, from the lowest there is to 1."""
    strips = []
    for number, attack in enumerate(about["attacks"]):
        own = findings.filter(pa.compute.equal(findings["ledger"], number))
        if len(values := own["eval_fidelity"].drop_null().to_numpy()):
            strips.append(_strip(values, f"{attack['attack']}: pairs by fidelity after the evaluation's transform"))
    if not strips:
        return None
    whole = Image.new("RGB", (WIDTH, sum(strip.height for strip in strips)), PAPER)
    for number, strip in enumerate(strips):
        whole.paste(strip, (0, number * strip.height))
    return whole


def _strip(values: np.ndarray, title: str) -> Image.Image:
    low = min(0.99, float(np.floor(values.min() * 100) / 100))
    counts, _ = np.histogram(values.clip(low, 1), BINS, (low, 1))
    strip = Image.new("RGB", (WIDTH, HEIGHT + 2 * LINE + GAP), PAPER)
    pen = ImageDraw.Draw(strip)
    pen.text((GAP, 0), f"{title}; the highest bar is {counts.max():,} of {len(values):,}", FAINT, font(SMALL))
    step = (WIDTH - 2 * GAP) / BINS
    base = LINE + HEIGHT
    for number, count in enumerate(counts):
        if count:
            top = base - max(1, round((HEIGHT - 4) * count / counts.max()))
            pen.rectangle((GAP + number * step, top, GAP + (number + 1) * step - 2, base), BAR)
    pen.line((GAP, base, WIDTH - GAP, base), INK)
    pen.text((GAP, base + 3), f"{low:.2f}", INK, font(SMALL))
    pen.text((WIDTH - GAP, base + 3), "1", INK, font(SMALL), anchor="ra")
    return strip
