"""Figures of a bench as its last line shows them: four digits, however small. Rounded to hundredths, 0.004 s was 0."""

import json
from typing import Any

DIGITS = 4


def rounded(found: Any) -> Any:
    """The same with every float in it to four significant digits, in dicts and lists too."""
    if isinstance(found, dict):
        return {name: rounded(value) for name, value in found.items()}
    if isinstance(found, list):
        return [rounded(value) for value in found]
    return float(f"{found:.{DIGITS}g}") if isinstance(found, float) else found


def line(found: Any) -> str:
    """JSON."""
    return json.dumps(rounded(found))
