"""Numbers, lists and table lines as text."""

from collections.abc import Iterable, Sequence

NAMES = 4  # of one list in a sentence


def percent(value: float, points: int = 1) -> str:
    """0.0543 -> 5.4%. A share that is not whole is never shown as 0 or 100."""
    shown = round(100 * value, points)
    if value > 0 and shown == 0:
        return f"<{10**-points:.{points}f}%"
    if value < 1 and shown == 100:
        return f">{100 - 10**-points:.{points}f}%"
    return f"{shown:.{points}f}%"


def points(change: float) -> str:
    """-0.0104 -> −1.0, 0.02 -> +2.0: a difference of two shares."""
    shown = f"{abs(100 * change):.1f}"
    return shown if shown == "0.0" else f"{'+' if change > 0 else '−'}{shown}"


def within(value: float, low: float, high: float) -> str:
    """`5.4% [4.1, 7.0]`: a share and the ends of its interval, or of its range."""
    return f"{percent(value)} [{100 * low:.1f}, {100 * high:.1f}]"


def counted(number: int, what: str, plural: str = "") -> str:
    """`1 run`, `2 runs`. plural: where it is not made by an s."""
    return f"{number} {what if number == 1 else plural or f'{what}s'}"


def listed(names: Sequence[str]) -> str:
    """a, b, c and 2 more"""
    return ", ".join(names[:NAMES]) + (f" and {len(names) - NAMES} more" if len(names) > NAMES else "")


def markdown(rows: Iterable[Sequence[str]]) -> str:
    """A table: its first row is the head, the second the rule below it."""
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)
