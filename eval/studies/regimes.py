"""Where RoCLIP defends: CLIP beside it at equal epochs of CLIP's loss and at its accuracy, in each cell of a regime."""

from eval.reporting import formatting
from eval.reporting.formatting import percent
from eval.studies.study import FLOOR, Row, Study

CLIP, ROCLIP = "augmented", "roclip"
ALIKE = 0.05  # clean accuracy: farther apart two runs are not at equal accuracy
HEAD = ("cell", "poisons", "CLIP, equal epochs", "CLIP, equal accuracy", "RoCLIP", "never poisoned", "halved")
SAID = """Attack success at clean accuracy. CLIP has RoCLIP's augmentations, and as many epochs of its own loss, or, of
the runs that there are, the one whose accuracy is nearest to RoCLIP's, if it is within five points. *Halved*: whether
RoCLIP has at most half of the success of either, where CLIP learned the backdoor: its interval lies above the floor's.
"""


def markdown(study: Study) -> str:
    """A line for each cell, and the first in which RoCLIP halves the success."""
    lines, halved = [HEAD, ("---",) * len(HEAD)], []
    for cell in study.rows:
        equal, roclip, floor = (study.chosen(cell, method) for method in (CLIP, ROCLIP, FLOOR))
        matched, known = _nearest(study.of(cell, CLIP), roclip), study.known(cell)
        verdict = _halved(equal, matched, roclip, floor)
        halved += [cell] if verdict == "yes" else []
        numbers = [_brief(row) for row in (equal, matched, roclip, floor)]
        lines.append((cell, f"{known.poisons:,}" if known else "-", *numbers, verdict))
    said = [line[-1] for line in lines[2:] if line[-1] != "-"]
    measured, learned = len(said), len(said) - said.count("not learned")
    none = "It does in none of them." if learned else "CLIP learned the backdoor in none of them."
    first = f"The first cell in which it does: {halved[0]}." if halved else none
    whole = f"{measured} of {len(study.rows)} cells are measured. "
    return f"{SAID}\n{formatting.markdown(lines)}\n{whole}{first if measured else ''}".rstrip() + "\n"


def _nearest(rows: list[Row], other: Row | None) -> Row | None:
    """The measured row whose clean accuracy is nearest to another's, of those that are ALIKE."""
    if other is None or (wanted := other.accuracy) is None:
        return None
    apart = [(abs(row.accuracy.value - wanted.value), place) for place, row in enumerate(rows) if row.accuracy]
    away, place = min(apart, default=(1.0, 0))
    return rows[place] if away <= ALIKE else None


def _halved(equal: Row | None, matched: Row | None, roclip: Row | None, floor: Row | None) -> str:
    clip, alike, ours, never = (row.success if row else None for row in (equal, matched, roclip, floor))
    if clip is None or never is None:
        return "-"
    if clip.low <= never.high:
        return "not learned"  # by CLIP: nothing is left for RoCLIP to show
    if alike is None or ours is None:
        return "-"
    return "yes" if ours.value <= min(clip.value, alike.value) / 2 else "no"


def _brief(row: Row | None) -> str:
    if row is None or row.success is None or row.accuracy is None:
        return "-"
    return f"{percent(row.success.value)} at {percent(row.accuracy.value)}"
