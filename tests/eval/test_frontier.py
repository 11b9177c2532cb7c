"""A planned study as a table and an image: every planned cell is there, measured or not."""

import itertools
import re
import xml.etree.ElementTree as tree
from dataclasses import replace
from pathlib import Path

import pytest

from eval import frontier
from eval.measuring.evaluation import Evaluation
from eval.studies import panels, study, tables
from eval.studies.frontiers import Frontier
from eval.studies.study import Row, Study
from tests.support.eval_helpers import world
from tests.support.frontier_cases import cell, emptied, rows, whole

HEAD = "attack method lr seed mark scores run"


def cells_of(text: str) -> list[list[list[str]]]:
    """Cells of every table in a Markdown text, without heads."""
    found = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [[[one.strip() for one in line.strip("|\n").split("|")] for line in part.splitlines()[2:]] for part in found]


def plan(folder: Path, *lines: str, head: str = HEAD) -> str:
    path = folder / "plan.tsv"
    path.write_text("".join("\t".join(line.split()) + "\n" for line in (head, *lines)))
    return str(path)


# ---------------------------------------------------------------------- the tables


def test_a_method_of_which_nothing_was_chosen_has_rows_but_no_column_in_the_first_table():
    found = whole()
    tried = {
        attack: tuple(
            replace(row, cells=tuple(replace(one, chosen=one.chosen and row.method != "mmcl") for one in row.cells))
            for row in rows_
        )
        for attack, rows_ in found.rows.items()
    }
    text = tables.markdown(replace(found, rows=tried), "x.svg")
    head = next(line for line in text.splitlines() if line.startswith("| attack"))
    assert "cleanclip" in head and "mmcl" not in head
    assert "| mmcl | " in text and "mmcl (chosen)" not in text


def test_the_first_table_has_every_method_as_it_was_chosen_and_names_what_is_missing():
    text = tables.markdown(whole(), "f.svg")
    chosen, *_ = cells_of(text)
    assert "| tacleaner, lr 2e-3 |" in text
    assert [line[0] for line in chosen] == list(whole().rows)
    assert chosen[0][1:5] == ["1.2% at 95.5%", "98.0% at 94.7%", "37.3% at 94.2%", "4.2% at 93.6%"]
    assert chosen[4][5:] == ["-", "-"]
    assert chosen[5][1:] == ["-"] * 6


def test_a_mean_over_fewer_seeds_than_planned_says_so():
    found = rows("badnet")
    some = next(row for row in found if row.method == "mmcl" and row.chosen)
    without = Row((some.cells[0], *emptied((some,))[0].cells[1:]))
    text = tables.markdown(Study("lr", {"badnet": tuple(without if row is some else row for row in found)}), "f.svg")
    assert "32.0% at 94.5% (1 of 3 seeds)" in text
    assert "0: 94.5 / 32.0, 1: -, 2: -" in text


def test_an_attack_whose_name_does_not_say_it_is_named_by_its_plugin_too():
    assert whole().title("badnet-noise") == "badnet-noise"
    assert Study("epochs", {"robust": rows("robust")}).title("robust") == "robust (targeted)"


def test_every_planned_cell_has_a_line_and_each_seed_stands_in_it():
    planned = whole()
    _, *attacks = cells_of(tables.markdown(planned, "f.svg"))
    assert [len(lines) for lines in attacks] == [14] * 6
    assert sum(line[4].count(":") for lines in attacks for line in lines) == len(planned.cells)
    first = attacks[0]
    assert [line[0] for line in first[:3]] == ["never poisoned", "undefended", "mmcl"]
    assert first[3] == ["cleanclip", "1e-3", "94.9% [93.3, 96.2]", "9.0% [7.3, 10.9]", "0: 94.9 / 9.0"]
    assert first[7] == [
        "cleanclip (chosen)",
        "2e-3",
        "93.6% [91.5, 95.3]",
        "4.2% [2.5, 6.3]",
        "0: 93.9 / 3.6, 1: 93.6 / 4.2, 2: 93.2 / 4.8",
    ], "of several seeds the interval reaches over those of all"
    assert attacks[5][7] == ["cleanclip (chosen)", "2e-3", "-", "-", "0: -, 1: -, 2: -"]
    assert len(tables.markdown(planned, "f.svg", "tacleaner").splitlines()) <= 200


def test_at_matched_accuracy_each_method_is_the_run_of_that_seed_that_is_nearest():
    _, matched, *_ = cells_of(tables.markdown(whole(), "f.svg", "tacleaner"))
    assert matched[0] == [
        "badnet",
        "2.4% at 93.3%",
        "20.0% at 93.5% (lr 4e-3)",
        "2.2% at 92.9% (lr 4e-3)",
        "11.0% at 93.7% (lr 1e-3)",
        "0",
    ]
    assert matched[5] == ["badclip", *"-----"]


# ---------------------------------------------------------------------- the image


def test_the_image_has_a_panel_an_attack_and_says_where_nothing_was_measured():
    text = panels.svg(whole())
    root = tree.fromstring(text)
    words = [part.text for part in root.iter("{http://www.w3.org/2000/svg}text")]
    for word in (*whole().rows, *whole().methods, "undefended", "never poisoned"):
        assert words.count(word) == 1
    assert words.count("not measured yet") == 1
    assert root.attrib["aria-label"].endswith("badclip")


def test_marks_stand_where_their_numbers_are_and_whiskers_reach_as_far_as_the_interval():
    one = cell("badnet", "mmcl", "2e-3", 0, (0.9, 0.25), True)
    text = panels.svg(Study("lr", {"badnet": (Row((one,)),)}))
    assert one.result is not None
    panel = panels.Panels(Study("lr", {"badnet": (Row((one,)),)}), 100)
    low, high = panel.ticks[0], panel.ticks[-1]
    assert low <= one.result.accuracy.interval[0]
    assert panel._place(one) == pytest.approx((100 * (0.9 - low) / (high - low), panels.SIDE / 2)), "the root of 1/4"
    below, above = (
        float(y) for y in re.findall(r"whisker c0\" d=\"M[\d.]+ [\d.]+H[\d.]+M[\d.]+ ([\d.]+)V([\d.]+)", text)[0]
    )
    assert (1 - below / panels.SIDE) ** 2 == pytest.approx(one.result.success.interval[0], abs=0.002)
    assert (1 - above / panels.SIDE) ** 2 == pytest.approx(one.result.success.interval[1], abs=0.002)


def test_a_setting_that_ruins_a_model_stands_at_the_edge_with_its_number():
    text = panels.svg(whole())
    assert "&#8592; 62%" in text
    assert ">90%<" in text
    assert ">60%<" not in text


def test_numbers_at_the_edge_do_not_lie_upon_one_another():
    outside = [cell("badnet", "mmcl", f"{lr}e-3", 0, (0.3 + lr / 100, 0.01), False) for lr in (4, 8, 16)]
    chosen = cell("badnet", "mmcl", "2e-3", 0, (0.9, 0.25), True)
    text = panels.svg(Study("lr", {"badnet": tuple(Row((one,)) for one in (*outside, chosen))}))
    heights = sorted(float(y) for y in re.findall(r'<text x="14" y="([\d.]+)">&#8592;', text))
    assert len(heights) == 3 and heights[-1] <= panels.SIDE
    assert all(low - high >= panels.LETTERS_HIGH for high, low in itertools.pairwise(heights))


def test_methods_differ_by_colour_shape_and_dash():
    text = panels.svg(whole())
    looks = set(re.findall(r'<polyline class="curve (c\d)" stroke-dasharray="([^"]*)"', text))
    assert len({colour for colour, _ in looks}) == len({dash for _, dash in looks}) == 4
    shapes = set(re.findall(r'<path class="mark c[0-3]" d="([^"]*)"', text))
    assert len(shapes) == 4


def test_a_study_of_which_nothing_is_there_is_drawn_as_that():
    nothing = Study("lr", {"badnet": emptied(rows("badnet"), ("floor", "undefended", *whole().methods))})
    assert "not measured yet" in panels.svg(nothing)
    assert '<path class="whisker' not in panels.svg(nothing)


# ---------------------------------------------------------------------- from a plan and folders of scores


def test_a_plan_is_filled_with_what_was_measured(tmp_path: Path, capsys: pytest.CaptureFixture):
    made = world(tmp_path)
    poisoned = made.run("poisoned", made.poisoned)
    runs = (
        poisoned,
        made.run("clean", made.dataset, seed=0),
        made.run("mmcl-1e-3", made.clean_set, start=poisoned, objective="mmcl"),
    )
    Evaluation(
        runs=runs, testsets=(made.testset,), ledger=(made.ledger,), out=made.url("scores"), backend="local"
    ).run()
    lines = [
        "ledger undefended - 0 tried scores runs/poisoned",
        "ledger floor - 0 tried scores runs/clean",
        "ledger mmcl 1e-3 0 chosen scores runs/mmcl-1e-3",
        "ledger cleanclip 1e-3 0 chosen scores runs/cleanclip-1e-3",
        "other floor - 0 tried other-scores runs/clean",
    ]
    given = Frontier(plan=plan(tmp_path, *lines), out=made.url("out.md"), at="cleanclip")
    assert "table of 5 planned cells, 2 of them empty, at" in given.run()
    _, _, first, second = cells_of((tmp_path / "out.md").read_text())
    assert [line[0] for line in first] == ["never poisoned", "undefended", "mmcl (chosen)", "cleanclip (chosen)"]
    assert [line[2] == "-" for line in first] == [False, False, False, True]
    assert second == [["never poisoned", "", "-", "-", "0: -"]]
    assert "badnet: " in (tmp_path / "out.md").read_text()
    assert (tmp_path / "out.svg").read_text().startswith("<svg ")
    assert given.run().startswith("nothing to do")
    assert replace(given, out=made.url("no.md"), dry_run=True).run().startswith("dry run")
    assert not (tmp_path / "no.md").exists()

    capsys.readouterr()
    planned = study.read(plan(tmp_path, *lines[:2]))
    assert len(planned.cells) == 2
    assert "1 measured results are of no planned run" in capsys.readouterr().err
    with pytest.raises(ValueError, match="planned as floor of ledger, but it is trained on the poisoned pairs"):
        study.read(plan(tmp_path, "ledger floor - 0 tried scores runs/poisoned"))
    with pytest.raises(ValueError, match="planned with seed 4, but it has 0"):
        study.read(plan(tmp_path, "ledger undefended - 4 tried scores runs/poisoned"))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["a floor - x tried scores run"], "a line needs a seed and one of tried, chosen"),
        (["a floor - 0 perhaps scores run"], "a line needs a seed and one of tried, chosen"),
        (["a floor - 0 tried scores"], "a line needs a seed"),
        (["a floor - 0 tried s run", "a floor - 0 tried s run"], "plans floor - against a with seed 0 twice"),
        ([], "plans nothing"),
    ],
)
def test_a_plan_that_cannot_be_read_is_refused_by_its_line(lines: list[str], said: str, tmp_path: Path):
    with pytest.raises(ValueError, match=said):
        study.read(plan(tmp_path, *lines))


def test_a_plan_is_read_as_people_write_it(tmp_path: Path):
    lines = [HEAD.split(), ["a", "mm\u2028cl", "1e-3", "0", "tried", "scores", "run"]]
    path = tmp_path / "plan.tsv"
    path.write_bytes(("\ufeff" + "".join("\t".join(line) + "\r\n" for line in lines)).encode())
    assert study.read(str(path)).methods == ["mm\u2028cl"]


def test_bad_input_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture):
    good = plan(tmp_path, "a mmcl 1e-3 0 tried scores run")
    bad = tmp_path / "bad.tsv"
    bad.write_text("attack\tmethod\n")
    for words, said in (
        (["--plan", str(tmp_path / "none.tsv"), "--out", "t.md"], "no plan at"),
        (["--plan", str(bad), "--out", "t.md"], "is no plan: its columns are"),
        (["--plan", good, "--out", "t.txt"], "Markdown"),
        (["--plan", good, "--out", "t.md", "--at", "cleanclip"], "--at names a method of the plan (mmcl)"),
    ):
        with pytest.raises(SystemExit) as ended:
            frontier.main(words)
        assert ended.value.code == 2
        assert said in capsys.readouterr().err
