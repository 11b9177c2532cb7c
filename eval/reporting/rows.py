"""Tables of the report as values: a row for each model, class or checkpoint; templates/results.html draws them."""

from collections.abc import Sequence
from dataclasses import dataclass

from eval.reporting.drawing import Strip

NONE = "–"


@dataclass(frozen=True)
class Cell:
    """One number. column: its heading. ends: of its interval or range; n: of how many; kind: CSS class of its colour;
    each empty where there is none."""

    column: str
    number: str
    ends: str = ""
    n: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Row:
    """notes: in small letters below the name. strip: of the chart alone. seed: one run of several above it."""

    name: str
    notes: Sequence[str]
    cells: Sequence[Cell]
    best: bool = False
    seed: bool = False
    strip: Strip | None = None


@dataclass(frozen=True)
class Table:
    """columns: headings, without that of the names. left: rows that are not shown. head: of the names."""

    columns: Sequence[str]
    rows: Sequence[Row]
    left: int = 0
    head: str = "Run"
