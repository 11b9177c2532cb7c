"""A study: what of it is missing, brought to an end; and the tables that its cells make."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from eval.studies import cells, harvest, pages, plan, steps
from eval.studies.cells import Cell
from eval.studies.plan import Plan
from eval.studies.running import Workshop
from eval.studies.steps import Row
from infra import log, storage
from infra.errors import Lost

KEPT = Path(__file__).parent / "scores"  # in git, and not in the wheel
FILTERS = ("seed", "attack", "method", "value")


@dataclass(frozen=True, kw_only=True)
class Studying:
    """Which study, where its runs go, and how much of it."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """A study of eval/studies/plans, or a file like those (.toml)."""
    out: str | None = None
    """Folder of everything that is made on the way: datasets, runs, logs."""
    scores: str | None = None
    """Folder of the cells. Default: the repository's, for its own studies as they stand; else OUT/cells."""
    only: tuple[str, ...] = ()
    """Which rows, e.g. seed=0 attack=badnet,blended method=mmcl."""
    jobs: int = 2
    """How many steps side by side, a core for each."""
    hours: float | None = None
    """Start nothing more after so many core-hours."""
    given: Annotated[tuple[str, ...], tyro.conf.arg(name="set")] = ()
    """Other values of the plan's variables, e.g. rows=420 preset=tiny; cells are then others, too."""
    tables: bool = False
    """Write the tables of its pages anew, from the cells that there are; run nothing."""
    dry_run: bool = False
    """Print the rows and what is missing; touch nothing."""

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ValueError(f"--jobs is at least 1, not {self.jobs}")
        if self.hours is not None and self.hours <= 0:
            raise ValueError(f"--hours must be above 0, not {self.hours}")
        if self.out is None and not (self.tables or self.dry_run):
            raise ValueError("a study needs a folder for its runs: give --out, or --tables, or --dry-run")
        if self.out is not None and storage.local(self.out) is None:
            raise ValueError(f"--out is a folder on this machine's disk, not {self.out}: trainings are its processes")

    def run(self) -> str:
        """Returns the entry's last line. Raises Lost that names each step that failed."""
        planned = plan.read(self.name, self.given)
        out = storage.absolute(self.out or planned.name)
        rows = steps.rows(planned, out)
        wanted, folder = self._wanted(planned, rows), self._folder(planned, out)
        if self.tables:
            return pages.write(planned, known(planned, folder, rows), self.dry_run)
        there = known(planned, folder, wanted)
        missing = [row for row in wanted if row.name not in there]
        work = Workshop(out, missing, self.jobs, self.hours)
        budget = _budget(planned, wanted, work, self.jobs)
        if self.dry_run:
            print(_listing(wanted, missing, work), end="")
            return f"dry run: {budget}; cells in {folder}"
        log.say(budget)
        try:
            work.work(lambda row, seconds: cells.write(folder, row, harvest.cell(row, seconds)))
        finally:
            found = known(planned, folder, rows)
            shown = pages.beside(planned, found, out)
        left = [row for row in wanted if row.name not in found]
        if left and self.hours is None:
            raise Lost(f"{len(left)} of {len(wanted)} rows have no cell: {left[0].name}, ...")
        what = (
            f"{len(wanted) - len(left)} of {len(wanted)} rows of {planned.name} have cells in {folder}, tables: {shown}"
        )
        return what if missing else f"nothing to do: {what}"

    def _wanted(self, planned: Plan, rows: Sequence[Row]) -> list[Row]:
        """Raises ValueError for a filter that no row passes."""
        found = list(rows)
        for text in self.only:
            key, _, listed = text.partition("=")
            if key not in FILTERS or not listed:
                raise ValueError(f"--only takes {', '.join(f'{name}=...' for name in FILTERS)}, not {text!r}")
            there = dict.fromkeys(str(getattr(row, key)) for row in rows)
            for value in listed.split(","):
                if value not in there:
                    raise ValueError(f"--only: {planned.name} plans no {key} {value}; it has: {', '.join(there)}")
            found = [row for row in found if str(getattr(row, key)) in listed.split(",")]
        if not found:
            raise ValueError(f"--only leaves no row of {planned.name}")
        return found

    def _folder(self, planned: Plan, out: str) -> str:
        if self.scores is not None:
            return storage.absolute(self.scores)
        own = not self.given and not self.name.endswith(".toml") and KEPT.is_dir()
        return str(KEPT / planned.name) if own else storage.join(out, "cells")


def known(planned: Plan, folder: str, rows: Sequence[Row]) -> dict[str, Cell]:
    """By the row's name: the cells of these rows, of the study's folder or of those that it shares cells with."""
    found: dict[str, Cell] = {}
    for place in (*(str(KEPT / name) for name in planned.shares), folder):
        found |= cells.read(place, rows)
    return found


def _budget(planned: Plan, rows: Sequence[Row], work: Workshop, jobs: int) -> str:
    hours = work.minutes() / 60
    return (
        f"{planned.name}: {planned.about or 'a study'}; {len(rows)} rows, {len(work.rows)} without a cell; "
        f"{len(work.waiting)} steps, about {hours:.1f} core-hours ({hours / jobs:.1f} hours, {jobs} side by side)"
    )


def _listing(rows: Sequence[Row], missing: Sequence[Row], work: Workshop) -> str:
    """A line a row, and below each the steps that it is the first to need."""
    seen: set[object] = set(work.done)
    lines = []
    for row in rows:
        lines.append(f"{row.name:<40}{'missing' if row in missing else 'there'}")
        for step in row.steps if row in missing else ():
            if step not in seen:
                seen.add(step)
                lines.append(f"    {step.label:<72}{step.minutes:6.1f} min")
    return "\n".join([*lines, ""])
