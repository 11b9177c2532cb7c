"""What an attack achieves at each interface of a model, and where zero-shot success alone would misjudge it.

Interfaces differ in scale (one of fourteen classes, one of a thousand images), so each is held against its own floor:
the same number of the model that never saw a poison. A rate is *above its floor* where the two intervals have no point
in common.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from eval.judging.seeds import Share
from eval.reporting import formatting
from eval.reporting.formatting import percent, within
from eval.studies.study import FLOOR, Row, Study
from eval.studies.tables import called


@dataclass(frozen=True)
class Interface:
    """attacked, clean: task, metric and k of what an attack achieves there and of what it is for."""

    name: str
    attacked: tuple[str, str, int | None]
    clean: tuple[str, str, int | None] | None = None


ZERO_SHOT = Interface("zero-shot", ("attack_success", "attack_success", 1), ("zeroshot", "accuracy", 1))
INTERFACES = (
    ZERO_SHOT,
    Interface("linear probe", ("linear_probe", "attack_success", 1), ("linear_probe", "accuracy", 1)),
    Interface("nearest neighbours", ("knn", "attack_success", 1), ("knn", "accuracy", 1)),
    Interface("image search, hit@10", ("retrieval", "attack_hit", 10), ("retrieval", "text_to_image_recall", 10)),
    Interface("worst class", ("per_class", "taken_for_target", 1)),
)
RANK = ("retrieval", "attack_rank", None)
SAID = """Success under attack at each interface, and after *at* its clean accuracy (of image search: recall@10). Bold:
above the floor, the same number of the model that was never poisoned. Means over seeds.
"""
NOTE = """In brackets: 95% intervals of one seed; of several, from the lowest end to the highest. *Worst class*: the
class of which most images are taken for the target; *rank*: the triggered image's median place in image search. A dash
is planned and not measured, or has no such interface.
"""


def markdown(study: Study) -> str:
    """The whole as one matrix, what of it zero-shot success misjudges, and each attack with intervals."""
    parts = [f"{SAID}\n{_matrix(study)}", _misjudged(study)]
    parts += [f"### {attack}\n\n{_about(study, attack)}\n\n{_attack(study, attack)}" for attack in study.rows]
    return "\n".join([*parts, NOTE])


def _about(study: Study, attack: str) -> str:
    known = study.known(attack)
    return f"{known.how}; {known.poisons:,} poisons" if known else "Not measured yet."


def _matrix(study: Study) -> str:
    lines = []
    for attack, rows in study.rows.items():
        for row in rows:
            floor = study.chosen(attack, FLOOR)
            lines.append((attack, called(row), *(_brief(row, floor, interface) for interface in INTERFACES)))
    return _table(("attack", "method", *(one.name for one in INTERFACES)), lines)


def _brief(row: Row, floor: Row | None, interface: Interface) -> str:
    success = row.mean(*interface.attacked)
    if success is None:
        return "-"
    clean = row.mean(*interface.clean) if interface.clean else None
    said = percent(success.value)
    said = f"**{said}**" if _above(success, floor, interface) else said
    return f"{said} at {percent(clean.value)}" if clean else said


def _above(success: Share, floor: Row | None, interface: Interface) -> bool:
    least = floor.mean(*interface.attacked) if floor else None
    return least is not None and success.above(least)


def _misjudged(study: Study) -> str:
    """Rows whose zero-shot success is at its floor where another interface's is above, or the reverse."""
    lines = []
    for attack, rows in study.rows.items():
        floor = study.chosen(attack, FLOOR)
        for row in rows:
            seen = row.mean(*ZERO_SHOT.attacked)
            if seen is None or row.method == FLOOR:
                continue
            says = _above(seen, floor, ZERO_SHOT)
            for interface in INTERFACES[1:]:
                found, least = row.mean(*interface.attacked), floor.mean(*interface.attacked) if floor else None
                if found is not None and least is not None and found.above(least) != says:
                    how = "more than it says" if found.above(least) else "less than it says"
                    numbers = (percent(seen.value), interface.name, percent(found.value), percent(least.value))
                    lines.append((attack, called(row), *numbers, how))
    said = "Where zero-shot success misjudges the risk: above its floor where another is not, or the reverse."
    if not lines:
        return f"{said} Nowhere here.\n"
    return f"{said}\n\n{_table(('attack', 'method', 'zero-shot', 'interface', 'there', 'floor there', 'risk'), lines)}"


def _attack(study: Study, attack: str) -> str:
    lines = []
    for row in study.rows[attack]:
        found = [row.mean(*interface.attacked) for interface in INTERFACES]
        seeds = ", ".join(str(cell.seed) for cell in row.cells if cell.result) or "-"
        rank = row.mean(*RANK)
        shares = (within(one.value, one.low, one.high) if one else "-" for one in found)
        lines.append((called(row), *shares, f"{rank.value:,.0f}" if rank else "-", seeds))
    return _table(("method", *(one.name for one in INTERFACES), "rank", "seeds"), lines)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return formatting.markdown([head, ["---"] * len(head), *lines])
