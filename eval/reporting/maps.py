"""Maps of embeddings, from the coordinates that evaluate wrote: clean images, the same under an attack, the target."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

SIDE, EDGE = 340, 14  # pixels
MOST = 300  # images of one kind: more of them cover one another, and make the page large
CLEAN, OWN, UNDER, AIM = "clean", "own", "under", "aim"
KINDS = {"clean": CLEAN, "triggered": UNDER, "target": AIM}  # by what evaluate calls them


@dataclass(frozen=True)
class Layer:
    """kind: a CSS class, and what the mark looks like. points: in pixels. words: for the legend."""

    kind: str
    words: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Map:
    name: str
    label: str
    layers: Sequence[Layer]
    side: int = SIDE


def drawn(table: pa.Table, target: str, number: int | None, name: str, note: str) -> Map:
    """table: of images with kind, label, x and y (eval/store/predictions.py). target: its name, and number: its class
    number. name, note: of the run."""
    columns = zip(*(table[column].to_pylist() for column in ("kind", "label", "x", "y")), strict=True)
    kinds: dict[str, list[tuple[float, float]]] = {CLEAN: [], OWN: [], UNDER: [], AIM: []}
    for kind, label, x, y in columns:
        kinds[OWN if kind == CLEAN and label == number else KINDS[kind]].append((x, y))
    every = [point for points in kinds.values() for point in points]
    (left, right), (low, high) = ((min(values), max(values)) for values in zip(*every, strict=True))
    scale = (SIDE - 2 * EDGE) / (max(right - left, high - low) or 1.0)
    middle = (left + right) / 2, (low + high) / 2

    def at(point: tuple[float, float]) -> tuple[float, float]:
        return SIDE / 2 + (point[0] - middle[0]) * scale, SIDE / 2 - (point[1] - middle[1]) * scale

    words = {CLEAN: "untouched images", OWN: f"untouched images of {target}",
             UNDER: "images under the attack", AIM: f"the prompts of {target}"}  # fmt: skip
    layers = [Layer(kind, words[kind], [at(one) for one in thinned(some)]) for kind, some in kinds.items() if some]
    told = ", ".join(f"{len(some)} {words[kind]}" for kind, some in kinds.items() if some)
    return Map(name, f"Map of embeddings of {name}, {note}: {told}", layers)


def thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most MOST of them, evenly spread over their order."""
    if len(points) <= MOST:
        return points
    return [points[number * len(points) // MOST] for number in range(MOST)]
