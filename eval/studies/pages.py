"""Tables of studies in pages of the repository: blocks that are made from the committed cells, and from nothing else.

    <!-- study:NAME -->
    ...
    <!-- end of study:NAME -->

A page may hold several; what is outside of them is written by hand.
"""

import posixpath
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from eval.studies import cures, curves, detections, exposures, panels, regimes, similarities, tables
from eval.studies.cells import Cell
from eval.studies.plan import Page, Plan
from eval.studies.study import Study, filled
from infra import storage

ROOT = Path(__file__).parents[2]
KINDS: dict[str, Callable[[Study, Page], str]] = {
    "attacks": lambda study, _: tables.attacks(study),
    "frontier": lambda study, page: tables.frontier(study, page.figure, page.at),
    "chosen": lambda study, _: tables.chosen(study),
    "exposure": lambda study, _: exposures.markdown(study),
    "detected": lambda study, _: detections.markdown(study),
    "evading": lambda study, _: detections.evading(study),
    "regime": lambda study, _: regimes.markdown(study),
    "series": lambda study, _: cures.series(study),
    "left": lambda study, _: cures.left(study),
    "similarity": lambda study, page: similarities.markdown(study, page.figure),
}
FIGURES: dict[str, Callable[[Study], str]] = {"similarity": curves.svg}  # of other tables: the frontiers


def made(plan: Plan, found: Mapping[str, Cell]) -> dict[str, str]:
    """Every file of the pages of a plan as it is to be: the page with its block, and the figure beside it.

    Raises ValueError for a page without the marks of this study.
    """
    study, files = filled(plan, found), {}
    for page in plan.pages:
        place = ROOT / page.file
        files[page.file] = replaced(place.read_text(), plan.name, _block(study, page), page.file)
        if page.figure:
            files[posixpath.join(posixpath.dirname(page.file), page.figure)] = _figure(study, page)
    return files


def write(plan: Plan, found: Mapping[str, Cell], dry_run: bool) -> str:
    """Bring the pages up to date. Returns the entry's last line."""
    files = made(plan, found)
    stale = [name for name, text in files.items() if not _is(name, text)]
    said = f"tables of {len(found)} cells in {', '.join(page.file for page in plan.pages) or 'no page'}"
    if dry_run:
        return f"dry run: would write {', '.join(stale) or 'nothing'}: {said}"
    for name in stale:
        (ROOT / name).write_text(files[name])
    return said if stale else f"nothing to do: {said}"


def beside(plan: Plan, found: Mapping[str, Cell], out: str) -> str:
    """The same tables as files in the study's own folder. Returns where."""
    study, place = filled(plan, found), storage.join(out, f"{plan.name}.md")
    parts = []
    for page in plan.pages or (Page(file="", table="frontier", figure=f"{plan.name}.svg"),):
        parts.append(_block(study, page))
        if page.figure:
            storage.write(storage.join(out, page.figure), _figure(study, page).encode())
    storage.write(place, "\n".join(parts).encode())
    return place


def replaced(text: str, name: str, block: str, place: str) -> str:
    """The page with another block between the marks of a study."""
    start, end = f"<!-- study:{name} -->", f"<!-- end of study:{name} -->"
    if not re.search(f"{re.escape(start)}.*{re.escape(end)}", text, re.DOTALL):
        raise ValueError(f"{place} has no place for this table: put {start} and {end} where it is to stand")
    before, _, rest = text.partition(start)
    return f"{before}{start}\n\n{block.strip()}\n\n{end}{rest.partition(end)[2]}"


def _block(study: Study, page: Page) -> str:
    if page.table not in KINDS:
        raise ValueError(f"a table is one of {', '.join(KINDS)}, not {page.table!r}")
    return KINDS[page.table](study, page)


def _figure(study: Study, page: Page) -> str:
    return FIGURES.get(page.table, panels.svg)(study)


def _is(name: str, text: str) -> bool:
    place = ROOT / name
    return place.is_file() and place.read_text() == text
