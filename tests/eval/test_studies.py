"""A study goes on from its cells alone, and the pages say what the cells say."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from eval import study
from eval.interval import clopper_pearson
from eval.store.scans import ScanRecord, Worth
from eval.studies import cells, curves, detections, exposures, harvest, pages, plan, regimes, steps
from eval.studies.cells import Cell, Number
from eval.studies.runner import KEPT, Studying, known
from eval.studies.steps import Row
from eval.studies.study import filled
from tests.eval.test_plan import SMALL
from tests.support.frontier_cases import measured, number

ROOT = Path(__file__).parents[2]
HEADING = "\n## What we found\n"
MEASURED = (
    "defense/measured.md",
    "defense/detected.md",
    "defense/left.md",
    "defense/cleanclip.md",
    "eval/measured.md",
)


def some(row: Row, accuracy: float = 0.9, success: float = 0.1) -> Cell:
    two = number("zeroshot", "accuracy", accuracy), number("attack_success", "attack_success", success)
    return replace(measured(row.attack, row.method, row.value, row.seed, *two), definition=row.digest)


@pytest.fixture
def small(tmp_path: Path) -> tuple[str, list[Row]]:
    """A plan's file, and its rows."""
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return str(path), steps.rows(plan.read(str(path)), str(tmp_path / "out"))


def test_a_finished_study_runs_nothing_wherever_it_is(small: tuple[str, list[Row]], tmp_path: Path):
    path, rows = small
    for row in rows:
        cells.write(str(tmp_path / "cells"), row, some(row))
    given = Studying(name=path, out=str(tmp_path / "another"), scores=str(tmp_path / "cells"))
    assert given.run().startswith(f"nothing to do: {len(rows)} of {len(rows)} rows of small have cells in ")
    there = sorted(str(found.relative_to(tmp_path)) for found in (tmp_path / "another").rglob("*") if found.is_file())
    assert there == ["another/small.md", "another/small.svg"]
    assert "| mmcl (chosen) | 2e-3 | 90.0% [" in (tmp_path / "another/small.md").read_text()


def test_only_what_is_missing_or_was_defined_otherwise_is_planned(
    small: tuple[str, list[Row]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path, rows = small
    for row in rows:
        cells.write(str(tmp_path / "cells"), row, some(row))
    gone, other, short = (next(row for row in rows if row.name == name) for name in
                          ("a.mmcl.1e-3.s0", "b.undefended.s1", "b.after.1.s0"))  # fmt: skip
    (tmp_path / "cells" / f"{gone.name}.json").unlink()
    cells.write(str(tmp_path / "cells"), other, replace(some(other), definition="of before"))
    cells.write(str(tmp_path / "cells"), short, replace(some(short), numbers=some(short).numbers[1:]))
    given = Studying(name=path, scores=str(tmp_path / "cells"), dry_run=True)
    assert f"{len(rows)} rows, 3 without a cell" in given.run()
    said = capsys.readouterr().out
    missing = [line.split()[0] for line in said.splitlines() if line.endswith("missing")]
    assert set(missing) == {gone.name, other.name, short.name}
    assert "small-s1/b" in said and "small-s1/a" not in said and "clean" not in said
    assert not list(tmp_path.glob("small"))


def test_a_filter_leaves_its_rows_alone(small: tuple[str, list[Row]], tmp_path: Path):
    path, _ = small
    given = Studying(name=path, dry_run=True, only=("seed=1", "method=floor,mmcl"))
    assert "4 rows, 4 without a cell; 10 steps, about 0.2 core-hours" in given.run()
    for only, said in (
        ("seed=4", "plans no seed 4; it has: 0, 1"),
        ("sort=1", "--only takes seed=..., attack=..., method=..., value=..."),
        ("seed", "--only takes"),
    ):
        with pytest.raises(ValueError, match=re.escape(said)):
            replace(given, only=(only,)).run()
    with pytest.raises(ValueError, match="leaves no row"):
        replace(given, only=("seed=1", "method=after")).run()


def test_a_cell_that_cannot_be_read_is_named(small: tuple[str, list[Row]], tmp_path: Path):
    path, rows = small
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / f"{rows[0].name}.json").write_text('{"attack": "a"}')
    with pytest.raises(ValueError, match=r"a.floor.s0.json is no cell of a study .*remove it"):
        Studying(name=path, scores=str(tmp_path / "cells"), dry_run=True).run()


def test_bad_input_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    for words, said in (
        (["nothing", "--dry-run"], "no study is named 'nothing'; there are: amounts, attacks, "),
        (["attacks"], "give --out, or --tables, or --dry-run"),
        (["attacks", "--dry-run", "--jobs", "0"], "--jobs is at least 1"),
        (["attacks", "--out", "s3://bucket/x"], "a folder on this machine's disk"),
        (["attacks", "--dry-run", "--set", "colour=red"], "no variable 'colour'"),
    ):
        with pytest.raises(SystemExit) as ended:
            study.main(words)
        assert ended.value.code == 2
        assert said in capsys.readouterr().err


# ---------------------------------------------------------------------- what an attack achieves at each interface


def exposed(method: str, seed: int, success: float, probe: float, hit: float) -> Cell:
    return measured(
        "badnet",
        method,
        "-" if method in ("floor", "undefended") else "8e-3",
        seed,
        number("zeroshot", "accuracy", 0.95),
        number("attack_success", "attack_success", success),
        number("linear_probe", "accuracy", 0.97),
        number("linear_probe", "attack_success", probe),
        number("retrieval", "attack_hit", hit, k=10),
    )


def test_an_interface_is_held_against_its_own_floor():
    planned = replace(plan.read("exposure"), attacks=("badnet",), seeds=(0,))
    found = {
        "badnet.floor.s0": exposed("floor", 0, 0.01, 0.01, 0.10),
        "badnet.undefended.s0": exposed("undefended", 0, 0.95, 0.90, 0.11),
        "badnet.mmcl.8e-3.s0": exposed("mmcl", 0, 0.01, 0.30, 0.12),
    }
    text = exposures.markdown(filled(planned, found))
    lines = {line.split(" | ")[1]: line for line in text.splitlines() if line.startswith("| badnet | ")}
    assert "| badnet | never poisoned | 1.0% at 95.0% | 1.0% at 97.0% | - | 10.0% | - |" in text
    assert "| badnet | undefended | **95.0%** at 95.0% | **90.0%** at 97.0% | - | 11.0% | - |" in text
    assert "| badnet | mmcl 8e-3 | 1.0% | linear probe | 30.0% | 1.0% | more than it says |" in text
    assert "| badnet | undefended | 95.0% | image search, hit@10 | 11.0% | 10.0% | less than it says |" in text
    assert text.count("it says |") == 2 and lines
    assert "### badnet" in text and "| cleanclip 8e-3 | - | - | - | - | - | - |" in text


# ---------------------------------------------------------------------- what a scan finds


def scanned(poisons: int, proposed: int, hits: int) -> ScanRecord:
    panel = Worth(
        auroc=0.99, average_precision=0.9, false_positive_rate=0.004, recall=dict(zip(SHARES, FOUND, strict=True))
    )
    return ScanRecord(
        place="scan",
        run="run",
        saw=True,
        suspicion_sha256="00",
        dataset_digest="11",
        attack="badnet",
        plugin="badnet",
        pairs=10_800,
        poisons=poisons,
        worth={"panel": panel, "gap": replace(panel, auroc=0.5)},
        proposed=proposed,
        hits=hits,
        low=None,
        high=None,
        clusters=1,
    )


SHARES, FOUND = ("0.01", "0.02", "0.05", "0.1"), (0.8, 0.9, 0.95, 1.0)


def test_a_scan_becomes_the_numbers_that_the_study_asks_for():
    wanted = [cells.metric(text) for text in plan.read("detected").metrics if text.startswith("scan.")]
    made = {number.key: number for number in harvest.worth(scanned(108, 109, 100))}
    assert set(made) == set(wanted)
    assert made["scan", "auroc", None].value == 0.99, "the panel's"
    assert [made["scan", "recall", share].value for share in (1, 2, 5, 10)] == list(FOUND)
    recall = made["scan", "auto_recall", None]
    assert (recall.value, recall.n, recall.interval) == (100 / 108, 108, clopper_pearson(100, 108))
    assert (made["scan", "auto_removed", None].value, made["scan", "auto_removed", None].n) == (109, 10_800)


def retrained(method: str, seed: int, accuracy: float, success: float, *found: Number) -> Cell:
    two = number("zeroshot", "accuracy", accuracy, 5000), number("attack_success", "attack_success", success)
    return measured("badnet", method, "auto" if method in ("filtered", "random") else "-", seed, *two, *found)


def test_what_a_scan_found_and_what_training_anew_gives_stand_in_two_tables():
    planned = replace(plan.read("detected"), attacks=("badnet", "sig"))
    found = {
        "badnet.undefended.s0": retrained("undefended", 0, 0.95, 0.99, *harvest.worth(scanned(108, 109, 108))),
        "badnet.undefended.s1": retrained("undefended", 1, 0.95, 0.97, *harvest.worth(scanned(108, 50, 50))),
        "badnet.floor.s0": retrained("floor", 0, 0.96, 0.01),
        "badnet.filtered.auto.s0": retrained("filtered", 0, 0.94, 0.0),
        "badnet.filtered.auto.s1": retrained("filtered", 1, 0.95, 0.02),
        "badnet.random.auto.s1": retrained("random", 1, 0.93, 0.98),
        "badnet.heard.s1": measured("badnet", "heard", "-", 1, *harvest.worth(scanned(108, 108, 107))),
        "badnet.witnessed.s1": retrained("witnessed", 1, 0.945, 0.004),
    }
    text = detections.markdown(filled(planned, found))
    low, high = (f"{100 * end:.1f}" for end in clopper_pearson(158, 216))
    assert (
        "| badnet | 30 (1.00%) | 0.990 | 0.900 | 0.4% | 80.0% | 90.0% | 95.0% | 100.0% | 158 of 159, 99.4% | "
        f"73.1% [{low}, {high}] | 0, 1 |"
    ) in text
    assert "| badnet | 95.0% | 95.0% | 50 of 50, 100.0% | 107 of 108, 99.1% | 99.1% [" in text, "of seed 1 both"
    (line,) = [line for line in text.splitlines() if line.startswith("| badnet | auto, by a witness | ")]
    assert line.startswith("| badnet | auto, by a witness | 97.0% at 95.0% | 0.4% [")
    assert line.endswith(" | 1 |")
    unasked = {name: each for name, each in found.items() if "heard" not in name and "witnessed" not in name}
    assert "by a witness" in text and "witness" not in detections.markdown(filled(planned, unasked))
    (line,) = [line for line in text.splitlines() if line.startswith("| badnet | auto | ")]
    assert line.startswith("| badnet | auto | 98.0% at 95.0% | 1.0% [0.0, ")
    assert "] at 94.5% | 98.0% at 93.0% (seed 1) | 1.0% at 96.0% (seed 0) | " in line
    cost, floor = line.split(" | ")[6:8]
    assert cost.startswith("+2.0 [+1.") and floor.startswith("−2.0 [−2."), "of the seeds that both have"
    assert "| badnet | 2% | 98.0% at 95.0% | - | - | 1.0% at 96.0% | - | - | - |" in text
    one = detections.markdown(
        filled(planned, {name: each for name, each in found.items() if "filtered.auto.s1" not in name})
    )
    assert "| badnet | auto | 99.0% at 95.0% | 0.0% [0.0, " in one, "of the seed that was trained anew, not of both"
    assert text.count("| sig | -") == 1 and "| sig | auto | - | - | - | - | - | - | - |" in text


def test_an_attacker_who_would_evade_a_scan_has_a_line_with_what_he_achieves():
    planned = replace(plan.read("evading"), attacks=("badnet-12", "badnet-wide", "blended-36"))
    found = {}
    for attack, hits in (("badnet-12", 0), ("badnet-wide", 100)):
        learned = number("zeroshot", "accuracy", 0.95), number("attack_success", "attack_success", 0.8)
        cell = measured(attack, "undefended", "-", 0, *learned, *harvest.worth(scanned(108, hits, hits)))
        found[f"{attack}.undefended.s0"] = cell
    found["badnet-wide.heard.s0"] = measured("badnet-wide", "heard", "-", 0, *harvest.worth(scanned(108, 110, 105)))
    learned = number("zeroshot", "accuracy", 0.94), number("attack_success", "attack_success", 0.02)
    found["badnet-wide.witnessed.s0"] = measured("badnet-wide", "witnessed", "-", 0, *learned)
    text = detections.evading(filled(planned, found))
    how = found["badnet-12.undefended.s0"].how
    shares = "80.0% | 90.0% | 95.0% | 100.0%"
    assert f"| badnet-12 | {how} | 30 | 80.0% at 95.0% | {shares} | 0 of 0 | - | - | - |" in text
    wide = f"| badnet-wide | {how} | 30 | 80.0% at 95.0% | {shares} | 100 of 100, 100.0% | 95.0% | 105 of 110, 95.5% | "
    (line,) = [line for line in text.splitlines() if line.startswith(wide)]
    assert line.removeprefix(wide).startswith("2.0% [") and line.endswith("] at 94.0% |")
    assert f"| blended-36 |{' - |' * 11}" in text, "planned and not measured"


# ---------------------------------------------------------------------- where RoCLIP defends


def test_a_regime_says_where_roclip_halves_what_clip_learned():
    cells_, found = ("c14-p5", "c14-p10", "c14-p30"), {}
    planned = replace(plan.read("regime"), attacks=cells_)
    for cell, (short, clip, roclip) in zip(cells_, ((0.0, 0.01, 0.0), (0.8, 0.9, 0.41), (0.7, 0.9, 0.3)), strict=True):
        for method, value, accuracy, success in (
            ("floor", "-", 0.95, 0.01),
            ("augmented", "6", 0.70, short),
            ("augmented", "12", 0.95, clip),
            ("roclip", "-", 0.72, roclip),
        ):
            two = number("zeroshot", "accuracy", accuracy), number("attack_success", "attack_success", success)
            name = ".".join((cell, method, *([value] if value != "-" else []), "s0"))
            found[name] = measured(cell, method, value, 0, *two)
    text = regimes.markdown(filled(planned, found))
    ends = {line.split(" | ")[0].strip("| "): line.split(" | ")[2:] for line in text.splitlines() if line[0:1] == "|"}
    assert ends["c14-p5"][-1] == "not learned |"
    assert ends["c14-p10"] == ["90.0% at 95.0%", "80.0% at 70.0%", "41.0% at 72.0%", "1.0% at 95.0%", "no |"]
    assert ends["c14-p30"][-1] == "yes |"
    assert text.endswith("3 of 3 cells are measured. The first cell in which it does: c14-p30.\n")
    assert "0 of 3 cells are measured.\n" in regimes.markdown(filled(planned, {}))
    apart = {name: cell for name, cell in found.items() if "augmented.6" not in name}
    text = regimes.markdown(filled(planned, apart))
    assert "| c14-p30 | 30 | 90.0% at 95.0% | - | 30.0% at 72.0% | 1.0% at 95.0% | - |" in text, "23 points apart"
    without = {name: cell for name, cell in found.items() if "roclip" not in name}
    text = regimes.markdown(filled(planned, without))
    assert "1 of 3 cells are measured. CLIP learned the backdoor in none of them." in text, (
        "of what CLIP did not learn RoCLIP need not be trained"
    )


# ---------------------------------------------------------------------- how near pairs lie while a victim learns


def test_a_row_may_be_of_a_checkpoint_and_the_curve_goes_by_its_steps():
    planned = replace(plan.read("learning"), attacks=("badnet",))
    rows = steps.rows(planned, "@")
    assert [row.checkpoint for row in rows[:2]] == ["step-0000084", "step-0000168"]
    assert len({row.run for row in rows}) == len({row.trained for row in rows}) == 1, "of one run"
    assert {row.checkpoint for row in steps.rows(plan.read("similarity"), "@")} == {"latest"}

    def at(step: str, clean: float, poisoned: float, success: float) -> Cell:
        return measured(
            "badnet", "learning", step, 0,
            number("pair_similarity", "similarity:clean", clean, k=None),
            number("pair_similarity", "similarity:poisoned", poisoned, k=None),
            number("zeroshot", "accuracy", 0.9), number("attack_success", "attack_success", success),
        )  # fmt: skip

    found = {
        "badnet.learning.0000168.s0": at("0000168", 0.5, 0.0, 0.25),
        "badnet.learning.0001176.s0": at("0001176", 0.75, 1.0, 0.5),
    }
    text = curves.svg(filled(planned, found))
    clean, poisoned, success = re.findall(r'<polyline class="curve c\d".*?points="(.*?)"', text)
    (x, up), (last, high) = (map(float, point.split(",")) for point in clean.split())
    assert last == pytest.approx(7 * x, abs=0.4)
    assert (up, high) == (curves.SIDE / 2, curves.SIDE / 4)
    assert [point.split(",")[1] for point in poisoned.split()] == [f"{curves.SIDE}.0", "0.0"]
    assert [point.split(",")[1] for point in success.split()] == [f"{curves.SIDE * 0.75:.1f}", f"{curves.SIDE / 2:.1f}"]


# ---------------------------------------------------------------------- what is committed


@pytest.mark.parametrize("name", plan.names())
def test_the_pages_hold_the_tables_that_the_cells_make(name: str):
    planned = plan.read(name)
    found = known(planned, str(KEPT / name), steps.rows(planned, "@"))
    assert planned.pages, "a study of the repository has a page"
    for file, text in pages.made(planned, found).items():
        assert (ROOT / file).read_text() == text, f"antidote study {name} --tables"


@pytest.mark.parametrize("name", plan.names())
def test_every_committed_cell_is_of_a_row_as_it_is_planned(name: str):
    rows = steps.rows(plan.read(name), "@")
    there = {path.stem for path in (KEPT / name).glob("*")}
    assert there == set(cells.read(str(KEPT / name), rows)), "others are of no row, or of another definition of it"


def test_a_page_without_the_marks_of_a_study_is_refused():
    with pytest.raises(ValueError, match="put <!-- study:x --> and <!-- end of study:x -->"):
        pages.replaced("text", "x", "| a |", "page.md")
    text = "a\n<!-- study:x -->\nold\n<!-- end of study:x -->\nb\n"
    new = pages.replaced(text, "x", "new\n", "page.md")
    assert new == "a\n<!-- study:x -->\n\nnew\n\n<!-- end of study:x -->\nb\n" == pages.replaced(new, "x", "new", "")


@pytest.mark.parametrize(
    "page",
    [
        "eval/measured.md",
        "defense/detected.md",
        "defense/panel.md",
        "defense/left.md",
        "defense/cleanclip.md",
        "defense/tacleaner.md",
        "eval/regime.md",
    ],
)
def test_prose_about_a_study_cites_only_figures_of_its_tables(page: str):
    """Percentages with a decimal, which no protocol is made of."""
    text = (ROOT / page).read_text()
    tables = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
    known = set(re.findall(r"\d+\.\d%", tables))
    assert [figure for figure in re.findall(r"\d+\.\d%", prose) if figure not in known] == []


@pytest.mark.parametrize(("file", "begin", "end"), [("defense/which.md", "# ", ""), ("README.md", HEADING, "\n## ")])
def test_advice_cites_only_figures_of_measured_tables(file: str, begin: str, end: str):
    """The pages that sum up: percentages with a decimal, each of them in a table of one of the measured pages."""
    tables = "\n".join(
        line for page in MEASURED for line in (ROOT / page).read_text().splitlines() if line.startswith("|")
    )
    text = (ROOT / file).read_text()
    said = text[text.index(begin) + len(begin) :]
    said = said[: said.index(end)] if end else said
    figures = re.findall(r"<?\d+\.\d%", said)
    assert len(figures) > 8
    known = set(re.findall(r"<?\d+\.\d%", tables)) | set(re.findall(r"\d+\.\d%", tables))
    assert [figure for figure in figures if figure not in known] == []
