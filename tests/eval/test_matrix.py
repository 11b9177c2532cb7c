"""What a report shows besides headline numbers: a matrix, interfaces, maps, classes, training, parents, answers."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from eval.judging.roles import compare
from eval.judging.verdict import judge
from eval.reporting import beside, classes, details, formatting, heat, light, maps, page, tabular, through
from eval.reporting.details import concerned
from eval.store.answers import Asked
from pipeline import images
from tests.support import matrix_cases
from tests.support.eval_helpers import ATTACKED, TESTED, after, scored, some_run
from tests.support.matrix_cases import CAPTIONED, attack, number
from tests.support.report_cases import CASES, material

CLEAN, POISONED = some_run("clean", "clean"), some_run("poisoned", "poisoned")


@pytest.fixture(scope="module")
def small() -> page.Material:
    return matrix_cases.grid(2, 3)


def first(found: page.Material) -> page.Judged:
    return page.judged_of(found.comparisons)[0]


def matrices(found: page.Material) -> list[heat.Heat]:
    return heat.matrices([(one.verdict, one.comparison, one.anchor) for one in page.judged_of(found.comparisons)])


def test_a_matrix_has_a_line_an_attack_a_column_a_method_and_says_what_was_not_measured() -> None:
    kept = [attack(0), attack(1)]
    poisoned = [some_run(f"p{n}", one.dataset_digest) for n, one in enumerate(kept)]
    cured = [some_run(f"c{n}", "other", after(run), objective="cleanclip") for n, run in enumerate(poisoned)]
    other = some_run("t0", "other", after(poisoned[0]), objective="tacleaner")
    scores = [number(CLEAN, "zeroshot", "accuracy", 0.94, None)]
    scores += [number(CLEAN, "attack_success", "attack_success", 0.01, one) for one in kept]
    for run, accuracy, success, one in (
        (poisoned[0], 0.95, 0.9, kept[0]),
        (poisoned[1], 0.95, 0.8, kept[1]),
        (cured[0], 0.94, 0.3, kept[0]),
        (cured[1], 0.80, 0.1, kept[1]),
        (other, 0.93, 0.2, kept[0]),
    ):
        scores.append(number(run, "zeroshot", "accuracy", accuracy, None))
        scores.append(number(run, "attack_success", "attack_success", success, one))
    comparisons = compare(scores, [CLEAN, *poisoned, *cured, other], [TESTED], kept)
    judged = [(judge(one), one, f"at-{n}") for n, one in enumerate(comparisons)]
    (found,) = heat.matrices(judged)
    assert found.columns == ["never poisoned", "undefended", "cleanclip", "tacleaner"]
    assert [line.name for line in found.lines] == ["badnet", "blended"]
    assert [line.anchor for line in found.lines] == ["at-0", "at-1"]
    shown = [[spot.success if spot else None for spot in line.spots] for line in found.lines]
    assert shown == [["1.0%", "90.0%", "30.0%", "20.0%"], ["1.0%", "80.0%", "10.0%", None]]
    assert [spot.best for spot in found.lines[0].spots if spot] == [False, False, False, True]
    assert [spot.costly for spot in found.lines[1].spots if spot] == [False, False, True]
    assert found.costly
    assert [spot.heat for spot in found.lines[0].spots if spot] == [1, 90, 30, 20]
    assert heat.matrices(judged[:1]) == [], "one attack is no matrix"


def test_of_several_settings_the_matrix_shows_the_one_that_the_verdict_takes() -> None:
    (found,) = material("many runs").comparisons
    other = replace(found, attack=replace(ATTACKED, key="badnet-11111111", place="../another"))
    (matrix,) = heat.matrices([(judge(one), one, "") for one in (found, other)])
    verdict = judge(found)
    assert verdict.first is not None
    column = matrix.columns.index("cleanclip")
    spot = matrix.lines[0].spots[column]
    assert spot is not None
    assert spot.said.startswith(f"{verdict.first.name}: ")
    assert not spot.costly
    assert [line.name for line in matrix.lines] == ["badnet ledger", "badnet another"]


@pytest.mark.parametrize("case", CASES)
def test_a_matrix_is_there_only_for_several_attacks(case: str) -> None:
    assert bool(matrices(material(case))) == (case == "two attacks, two test sets")


def test_a_run_of_another_attack_is_no_gap_in_the_grid_and_one_of_this_attack_is() -> None:
    kept = [attack(0), attack(1)]
    runs = [some_run(f"p{n}", one.dataset_digest) for n, one in enumerate(kept)]
    scores = [number(run, "zeroshot", "accuracy", 0.9, None) for run in runs]
    scores += [number(run, "attack_success", "attack_success", 0.9, one) for run, one in zip(runs, kept, strict=True)]
    found = compare(scores, runs, [TESTED], kept)
    assert [[row.run for row in one.rows] for one in found] == [[runs[0]], [runs[1]]]
    scores[-1] = number(runs[0], "attack_success", "attack_success", 0.01, kept[1])
    scores.append(number(runs[1], "attack_success", "attack_success", 0.01, kept[0]))
    found = compare(scores, runs, [TESTED], kept)
    assert [one.measured() for one in found] == [True, False]
    assert found[1].missing(next(row for row in found[1].rows if row.run is runs[1])) == ["attack_success"]


def test_every_interface_has_a_column_and_retrieval_comes_from_its_own_test_set(small: page.Material) -> None:
    one = first(small)
    found = heat.exposure(concerned(one.verdict), one.comparison, one.captioned)
    assert found is not None
    assert found.columns == ["zero-shot", "linear probe", "nearest neighbours", "retrieval, first place"]
    assert [line.name for line in found.lines] == [
        "clean",
        *(f"badnet/{n}" for n in ("poisoned", "mmcl", "cleanclip", "roclip")),
    ]
    poisoned = [spot for spot in found.lines[1].spots if spot]
    assert [spot.success for spot in poisoned] == ["98.0%", "89.0%", "71.0%", "49.0%"]
    assert [f"{spot.word} {spot.accuracy}" for spot in poisoned] == ["CA 95.0%", "CA 94.0%", "CA 92.0%", "recall 55.0%"]
    assert one.captioned[0].testset == CAPTIONED
    assert not one.captioned[0].zero_shot
    (alone,) = (other for other in material("whole").comparisons)
    assert heat.exposure(concerned(judge(alone)), alone, []) is None


def test_retrieval_alone_is_a_page_too(small: page.Material) -> None:
    only = replace(small, comparisons=[one for one in small.comparisons if not one.zero_shot])
    text = page.render(only)
    assert "<h2>badnet on flickr</h2>" in text
    assert "recall 55.0%" in text
    assert "retrieval, first place" in tabular.markdown(only.comparisons)


def test_a_change_is_called_one_only_where_the_intervals_are_apart() -> None:
    near, far = some_run("near", "other", after(POISONED)), some_run("far", "other", after(POISONED))
    scores = scored(POISONED, 0.95, 0.9) + scored(near, 0.94, 0.87) + scored(far, 0.90, 0.5)
    (found,) = compare(scores, [POISONED, near, far], [TESTED], [ATTACKED])
    table = beside.parents(judge(found).groups, found)
    assert table is not None
    rows = {row.name: row.cells for row in table.rows}
    assert [cell.number for cell in rows["near"]] == ["poisoned", "95.0% → 94.0%", "90.0% → 87.0%"]
    assert [cell.ends for cell in rows["near"][1:]] == [
        "−1.0 points, no clear difference",
        "−3.0 points, no clear difference",
    ]
    assert [cell.ends for cell in rows["far"][1:]] == ["−5.0 points", "−40.0 points"]
    assert beside.parents(judge(found).groups, replace(found, rows=found.rows[1:])) is None, (
        "its start was not measured"
    )


def test_seeds_are_held_each_against_its_own_start() -> None:
    (found,) = material("several seeds").comparisons
    table = beside.parents(judge(found).groups, found)
    assert table is not None
    row = next(row for row in table.rows if row.name == "cleanclip")
    assert row.cells[0].number == "3 runs, each its own"
    assert row.cells[2].number == "97.0% → 8.0%"
    assert row.cells[2].ends == "−89.0 points (−96.0 to −82.0)"


@pytest.mark.parametrize(("change", "shown"), [(0.02, "+2.0"), (-0.0104, "−1.0"), (0.0, "0.0"), (-0.0001, "0.0")])
def test_a_difference_has_its_sign(change: float, shown: str) -> None:
    assert formatting.points(change) == shown


def test_earlier_checkpoints_are_curves_and_no_rows(small: page.Material) -> None:
    one = first(small)
    assert [row.run.name for row in one.comparison.rows if row.role.kind == "poisoned"] == ["badnet/poisoned"]
    steps = [row.run.checkpoint for row in one.comparison.earlier]
    assert steps == [f"step-{step:07d}" for step in matrix_cases.STEPS]
    charts = through.curves(concerned(one.verdict), one.comparison)
    assert [len(chart.curves) for chart in charts] == [1, 1, 2]
    assert [curve.name for curve in charts[2].curves] == [
        "badnet/poisoned: clean pairs",
        "badnet/poisoned: poisoned pairs",
    ]
    accuracy, success = (chart.curves[0].points for chart in charts[:2])
    assert len(accuracy) == len(success) == 5
    assert [y for _, y in accuracy] == sorted((y for _, y in accuracy), reverse=True), "it rises, and y points down"
    table = through.checkpoints(concerned(one.verdict), one.comparison)
    assert table is not None
    assert [cell.number for cell in table.rows[0].cells] == ["19.0%", "3.9%", "0.310", "0.108"]
    (alone,) = material("whole").comparisons
    assert through.curves(judge(alone).groups, alone) == []
    assert through.checkpoints(judge(alone).groups, alone) is None


def test_a_cosine_below_zero_is_shown(small: page.Material) -> None:
    one = first(small)
    row = one.comparison.rows[0]
    key = (*through.SIMILARITY, "clean")
    below = replace(row, found=row.found | {key: replace(row.found[key], value=-0.2, low=-0.25, high=-0.15)})
    group = replace(concerned(one.verdict)[0], rows=(below,))
    table = through.similarity([group])
    assert table is not None
    assert (table.rows[0].cells[0].number, table.rows[0].cells[0].ends) == ("-0.200", "-0.250–-0.150")


def test_classes_stand_in_the_order_of_the_first_run_whatever_the_second_does(small: page.Material) -> None:
    two = details.before_and_after(first(small).verdict)
    assert [row.run.name for row in two] == ["badnet/poisoned", "badnet/roclip"]
    found = classes.bars(two)
    orders = [[row.name for row in one.table.rows] for one in found]
    assert orders == [["car", "house", "fish", "cup", "tree", "banana"]] * 2
    assert [cell.number for cell in found[0].table.rows[0].cells] == ["95.0%", "98.0%"]
    assert [cell.number for cell in found[0].table.rows[-1].cells] == ["87.0%", "–"]
    assert classes.bars(material("whole").comparisons[0].rows) == []


def test_of_many_classes_the_most_taken_are_shown_and_the_rest_counted() -> None:
    scores = scored(POISONED, 0.9, 0.9)
    for place in range(30):
        scores.append(number(POISONED, "per_class", "class_accuracy", 0.5, None, of=f"class {place}"))
        scores.append(number(POISONED, "per_class", "taken_for_target", place / 30, ATTACKED, of=f"class {place}"))
    (found,) = compare(scores, [POISONED], [TESTED], [ATTACKED])
    (bars,) = classes.bars(found.rows)
    assert [row.name for row in bars.table.rows] == [f"class {place}" for place in range(29, 9, -1)]
    assert bars.table.left == 10


def test_a_map_keeps_shape_and_direction_and_thins_what_is_many() -> None:
    table, target = matrix_cases.map_of(0, 0.5, size=700)
    found = maps.drawn(table, "banana", target, "poisoned", "undefended")
    layers = {layer.kind: layer.points for layer in found.layers}
    assert len(layers["under"]) == maps.MOST
    assert len(layers["aim"]) == 1
    every = [value for points in layers.values() for point in points for value in point]
    assert min(every) >= maps.EDGE - 1e-6
    assert max(every) <= maps.SIDE - maps.EDGE + 1e-6
    rows = table.to_pylist()
    left = min(range(len(rows)), key=lambda row: rows[row]["x"])
    at = maps.drawn(table.slice(left, 1), "banana", target, "one", "").layers[0].points
    assert at == [(maps.SIDE / 2, maps.SIDE / 2)], "a single place is drawn in the middle"
    high, low = ({"x": 0.0, "y": y} for y in (1.0, -1.0))
    pair = table.slice(0, 2).set_column(3, "x", [[high["x"], low["x"]]]).set_column(4, "y", [[high["y"], low["y"]]])
    one, other = (point for layer in maps.drawn(pair, "x", None, "", "").layers for point in layer.points)
    assert one[1] < other[1], "what lies higher is drawn higher"


def test_examples_say_what_each_model_answered(small: page.Material) -> None:
    text = page.render(small)
    assert text.count('<table class="answers">') == 2 * 4
    part = text.split('<table class="answers">')[1].split("</table>")[0]
    assert '<th scope="row">badnet/poisoned</th><td data-label="untouched">fish</td>' in part
    assert '<td data-label="under the attack"><b class="asr-ink">banana</b></td>' in part
    run = next(row.run for row in first(small).comparison.rows if row.run.name == "badnet/poisoned")
    asked = Asked.of(run, TESTED.key, None)
    without = replace(small, answers={key: kept for key, kept in small.answers.items() if key != asked})
    assert '<th scope="row">badnet/poisoned</th><td data-label="untouched">–</td>' in page.render(without)


def test_images_that_fit_stay_as_they_are_and_others_are_smaller_not_gone() -> None:
    few = material("large images")
    assert light.of(few.examples, few.triggers, few.preview) == light.Look()
    many = matrix_cases.grid(4, 1, training=False)
    look = light.of(many.examples, many.triggers, many.preview)
    assert look.side is not None
    photo = matrix_cases.photograph(0)
    data, mime = look.fitted(photo)
    assert mime == "image/webp"
    shown = Image.open(io.BytesIO(data))
    assert (shown.format, max(shown.size)) == ("WEBP", look.side)
    small = images.decode(photo)[:20, :20]
    assert look.fitted(images.encode(small, "png")) == (images.encode(small, "png"), "image/png")
    flat = np.asarray(Image.fromarray(images.decode(photo)).resize((8, 8)), int)
    assert np.abs(np.asarray(shown.convert("RGB").resize((8, 8)), int) - flat).max() < 12, "it is the same image"
