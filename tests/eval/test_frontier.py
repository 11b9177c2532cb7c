"""A study as tables and an image: every planned cell is there, measured or not."""

import itertools
import re
import xml.etree.ElementTree as tree
from dataclasses import replace

import pytest

from eval.studies import panels, tables
from eval.studies.study import Row, Study
from tests.support.frontier_cases import cell, emptied, rows, whole


def cells_of(text: str) -> list[list[list[str]]]:
    """Cells of every table in a Markdown text, without heads."""
    found = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [[[one.strip() for one in line.strip("|\n").split("|")] for line in part.splitlines()[2:]] for part in found]


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
    text = tables.frontier(replace(found, rows=tried), "x.svg")
    head = next(line for line in text.splitlines() if line.startswith("| attack"))
    assert "cleanclip" in head and "mmcl" not in head
    assert "| mmcl | " in text and "mmcl (chosen)" not in text


def test_the_first_table_has_every_method_as_it_was_chosen_and_names_what_is_missing():
    text = tables.frontier(whole(), "f.svg")
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
    text = tables.frontier(Study("lr", {"badnet": tuple(without if row is some else row for row in found)}), "f.svg")
    assert "32.0% at 94.5% (1 of 3 seeds)" in text
    assert "0: 94.5 / 32.0, 1: -, 2: -" in text


def test_an_attack_whose_name_does_not_say_it_is_named_by_its_plugin_too():
    assert whole().title("badnet-noise") == "badnet-noise"
    assert Study("epochs", {"robust": rows("robust")}).title("robust") == "robust (targeted)"


def test_every_planned_cell_has_a_line_and_each_seed_stands_in_it():
    planned = whole()
    _, *attacks = cells_of(tables.frontier(planned, "f.svg"))
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
    assert len(tables.frontier(planned, "f.svg", "tacleaner").splitlines()) <= 200


def test_at_matched_accuracy_each_method_is_the_run_of_that_seed_that_is_nearest():
    _, matched, *_ = cells_of(tables.frontier(whole(), "f.svg", "tacleaner"))
    assert matched[0] == [
        "badnet",
        "2.4% at 93.3%",
        "20.0% at 93.5% (lr 4e-3)",
        "2.2% at 92.9% (lr 4e-3)",
        "11.0% at 93.7% (lr 1e-3)",
        "0",
    ]
    assert matched[5] == ["badclip", *"-----"]


def test_a_star_marks_what_another_kind_of_processor_trained():
    one = cell("badnet", "mmcl", "2e-3", 1, (0.9, 0.25), True)
    assert one.result is not None
    there = replace(one, result=replace(one.result, machine="x86_64 without AVX-512"))
    text = tables.frontier(Study("lr", {"badnet": (Row((there,)),)}), None)
    assert "1: 90.0 / 25.0*" in text and "without AVX-512" in text
    assert "*" not in tables.frontier(Study("lr", {"badnet": (Row((one,)),)}), None).partition("In brackets")[0]


def test_a_line_an_attack_has_its_floor_and_of_several_seeds_mean_and_range():
    undefended = Row(tuple(cell("badnet", "undefended", "-", seed, (0.95, 0.9 + seed / 100)) for seed in range(2)))
    floor = Row((cell("badnet", "floor", "-", 0, (0.96, 0.02)), cell("badnet", "floor", "-", 1, None)))
    some, none = cells_of(
        tables.attacks(
            Study("-", {"badnet": (floor, undefended), "sig": emptied(rows("sig")[:2], ("floor", "undefended"))})
        )
    )[0]
    assert some == [
        "badnet",
        "badnet: size 42",
        "30 (1.00%)",
        "undefended",
        "95.0% [95.0, 95.0]",
        "90.5% [90.0, 91.0]",
        "2.0% [1.2, 3.1]",
        "0, 1",
    ]
    assert none == ["sig", "-", "-", "undefended", "-", "-", "-", "-"]


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
