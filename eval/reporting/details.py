"""What was measured of a comparison besides its headline numbers; each part is empty where nothing of it was."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eval.judging.roles import Comparison, Result
from eval.judging.seeds import Group
from eval.judging.verdict import Verdict
from eval.reporting import beside, classes, heat, through
from eval.reporting.classes import Bars
from eval.reporting.drawing import Chart
from eval.reporting.heat import Heat
from eval.reporting.maps import Map
from eval.reporting.rows import Table

MapOf = Callable[[Result], Map | None]


@dataclass(frozen=True)
class Details:
    """exposure: every run at every interface. maps: of the embeddings of the poisoned run and of its cure. curves,
    checkpoints: the same numbers through training. classes: of the same two runs. parents: what finetuning changed."""

    exposure: Heat | None
    maps: Sequence[Map]
    classes: Sequence[Bars]
    curves: Sequence[Chart]
    checkpoints: Table | None
    similarity: Table | None
    parents: Table | None


def details(
    comparison: Comparison, verdict: Verdict, captioned: Sequence[Comparison], map_of: MapOf | None = None
) -> Details:
    """captioned: the comparisons of the same attack on test sets without classes."""
    groups = concerned(verdict)
    two = before_and_after(verdict)
    return Details(
        exposure=heat.exposure(groups, comparison, captioned),
        maps=[found for row in two if map_of and (found := map_of(row))],
        classes=classes.bars(two),
        curves=through.curves(groups, comparison),
        checkpoints=through.checkpoints(groups, comparison),
        similarity=through.similarity(groups),
        parents=beside.parents(groups, comparison),
    )


def concerned(verdict: Verdict) -> list[Group]:
    """The groups that an attack is about: the floor, and all that is no floor; without an attack all."""
    return [group for group in verdict.groups if not verdict.attack or group.kind != "floor" or group is verdict.floor]


def before_and_after(verdict: Verdict) -> list[Result]:
    """One run that obeys the attack and one that a cure made of it or, where there are none, what stands for them."""
    cure = verdict.best or verdict.first or next(iter(verdict.of("baseline")), None) or verdict.floor
    after = cure.rows[0] if cure else None
    poisoned = verdict.worst.rows if verdict.worst else ()
    starts = [ancestor.weights_sha256 for ancestor in after.run.ancestors] if after else []
    before = next((row for row in poisoned if row.run.weights_sha256 in starts), None) or next(iter(poisoned), None)
    found = [row for row in (before, after) if row]
    return found or [group.rows[0] for group in sorted(verdict.groups, key=lambda group: group.kind == "floor")[:2]]
