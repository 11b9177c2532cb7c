import base64
import csv
import io
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import jinja2
import numpy as np
import pytest

from eval import report
from eval.judging.roles import compare
from eval.measuring.evaluation import Evaluation
from eval.reporting import page, rendering, results, tabular
from eval.reporting.page import Material
from eval.reporting.report import FILES, Report
from eval.store import predictions, records
from eval.store.answers import Asked
from eval.store.records import Example
from eval.studies.tabulation import Tabulation
from infra import storage
from infra.seeding import rng
from pipeline import captioned, images
from poison.sheets.layout import Shown, shrunk
from poison.sheets.sheet import Sheet
from tests.support import matrix_cases
from tests.support.eval_helpers import ATTACKED, CLASSES, TESTED, World, after, scored, smooth, some_run, world
from tests.support.pages import parsed
from tests.support.report_cases import CASES, html, material, preview_of


@pytest.fixture
def small(tmp_path: Path) -> World:
    """A grid of four runs, evaluated."""
    made = world(tmp_path / "here")
    poisoned = made.run("poisoned", made.poisoned)
    runs = (
        poisoned,
        made.run("clean", made.dataset, seed=1),
        made.run("cleanclip", made.clean_set, start=poisoned, objective="cleanclip"),
        made.run("mmcl", made.clean_set, start=poisoned, objective="mmcl", seed=2),
    )
    ledger, testsets = (made.ledger,), (made.testset,)
    Evaluation(runs=runs, testsets=testsets, ledger=ledger, out=made.url("scores"), backend="local").run()
    return made


def reported(small: World, name: str = "report") -> dict[str, bytes]:
    Report(scores=small.url("scores"), out=small.url(name)).run()
    return {file: storage.read(small.url(f"{name}/{file}")) for file in FILES}


def test_the_same_scores_give_the_same_bytes_also_where_all_was_moved(small: World, tmp_path: Path) -> None:
    first, second = reported(small), reported(small, "again")
    assert first == second
    shutil.copytree(small.folder, tmp_path / "there")
    shutil.rmtree(small.folder)
    there = tmp_path / "there"
    Report(scores=str(there / "scores"), out=str(there / "moved")).run()
    assert {file: (there / "moved" / file).read_bytes() for file in FILES} == first


def test_a_second_report_says_that_there_is_nothing_to_do(small: World, capsys) -> None:
    made = Report(scores=small.url("scores"), out=small.url("report"))
    capsys.readouterr()
    assert made.run() == f"report on 4 runs at {small.url('report')}/report.html"
    verdict, best = capsys.readouterr().out.splitlines()
    assert verdict.startswith("The badnet attack is not shown to work: the poisoned model takes 0.0% of ")
    assert f"\n\n{verdict}\n\n" in (told := Path(small.url("report"), "tables.md").read_text())
    assert best.startswith("cleanclip: attack success from 0.0% to 100.0%, ") and f"\n\n{best}\n\n" in told
    assert made.run().startswith("nothing to do: report on 4 runs")


def test_the_page_fetches_nothing_runs_nothing_and_closes_every_tag(small: World) -> None:
    text = reported(small)["report.html"].decode()
    found = parsed(text)
    assert found.fetched
    assert all(url.startswith(("data:image/png;base64,", "#")) for url in found.fetched)
    assert not {"script", "link", "iframe", "object", "form", "base"} & found.tags
    assert "url(" not in text
    assert "@import" not in text


def test_the_page_shows_runs_roles_trigger_curves_and_where_numbers_came_from(small: World) -> None:
    text = reported(small)["report.html"].decode()
    for name in ("clean", "poisoned", "cleanclip", "mmcl"):
        assert f"<b>{name}</b>" in text
    assert "finetuned from poisoned with cleanclip" in text
    for part in ("Never poisoned", "Poisoned, undefended", "Baseline, no defence", "Defended: cleanclip"):
        assert part in text
    assert text.count("<polyline") == 4
    assert text.count('class="triple"') == 5  # the trigger with its settings, four test images
    for digest in (small.dataset.digest, small.poisoned.digest, small.clean_set.digest):
        assert digest in text
    assert "step-0000005, sha256 " in text


def test_the_trigger_shown_is_the_one_that_was_measured(small: World) -> None:
    folder = small.url("scores/about")
    names = [name for name in storage.names(folder) if name.endswith("0-triggered.png")]
    shown = images.decode(storage.read(f"{folder}/{names[0]}"))
    clean = images.decode(storage.read(f"{folder}/{names[0].replace('triggered', 'clean')}"))
    changed = (shown != clean).any(axis=2)
    assert 0 < changed.sum() <= 64  # a patch of 56 in 224 geometry is 8 x 8 of 32 pixels
    assert set(shown[changed].ravel()) <= {0, 255}


def test_the_preview_is_shown_pair_by_pair_with_its_captions(small: World) -> None:
    places = {"ledger": small.ledger, "dataset": small.dataset.url, "poisoned": small.poisoned.url}
    Sheet(**places, out=small.url("preview")).run()
    Report(scores=small.url("scores"), out=small.url("report"), preview=small.url("preview")).run()
    text = storage.read(small.url("report/report.html")).decode()
    assert text.count('class="triple"') == 5 + 4
    assert "4 of the pairs that a poisoned model learns from" in text
    for line in storage.read_json(small.url("preview/preview.json"))["pairs"]:
        assert line["after"] in text
        for image in line["images"].values():
            stored = storage.read(small.url(f"preview/{image['name']}"))
            assert base64.b64encode(stored).decode() in text, "small images are shown byte for byte"


def test_a_pair_of_large_images_takes_little_room_in_the_page() -> None:
    large = rng(0, "large").integers(0, 256, (900, 600, 3), np.uint8)
    pair = shrunk(preview_of(large, large, "was", "now"))
    assert [images.check_header(png).size for png in (pair.clean, pair.poisoned, pair.difference)] == [(149, 224)] * 3
    assert (pair.was, pair.now) == ("was", "now")
    small = preview_of(large[:200, :224], large[:200, :224], "was", "now")
    assert shrunk(small) == small


def test_seeds_are_averaged_above_their_single_rows() -> None:
    comparisons = material("several seeds").comparisons
    assert "| cleanclip, mean | 3 seeds | 94.0% [94.0, 94.0] | 8.0% [3.0, 13.0] | 1,000 | - |" in tabular.markdown(
        comparisons
    )
    text = html("several seeds")
    assert text.count('class="seed"') == 12
    assert "<b>cleanclip</b><small>3 seeds: mean, lowest–highest</small>" in text


def test_a_large_grid_shows_at_the_head_what_matters_and_below_it_all() -> None:
    text = html("many runs")
    chart, rest = text.split("<h3>All numbers</h3>")
    table, parents = rest.split("<h3>Beside what each started from</h3>")
    assert chart.count('<th scope="row">') == results.MOST
    assert "8 more in the table of all numbers" in chart
    assert table.count('<th scope="row">') == 15
    assert parents.count('<th scope="row">') == 13


@pytest.mark.parametrize("case", CASES)
def test_every_shape_of_grid_gives_a_well_formed_page(case: str) -> None:
    text = html(case)
    assert text == page.render(CASES[case]())
    found = parsed(text)
    assert found.headings[0] == "h1"
    assert found.headings.count("h1") == 1
    assert all(alt for alt in found.alts)


def test_markdown_and_csv_hold_the_same_numbers(small: World) -> None:
    made = reported(small)
    rows = list(csv.DictReader(io.StringIO(made["scores.csv"].decode())))
    assert {row["role"] for row in rows} == {"floor", "poisoned", "baseline", "defended"}
    assert {(row["run"], row["objective"], row["run_seed"]) for row in rows} >= {("../runs/mmcl", "mmcl", "2")}
    accuracy = next(
        row for row in rows if row["run"] == "../runs/clean" and row["metric"] == "accuracy" and row["k"] == "1"
    )
    assert (
        f"| clean | trained on the same pairs, without the poison | {100 * float(accuracy['value']):.1f}% ["
        in made["tables.md"].decode()
    )


def test_names_that_look_like_html_are_shown_as_text() -> None:
    """Of runs, objectives, attacks, settings, targets, classes, test sets and facts; in text and in attributes."""
    evil = """<script>alert(1)</script>'>"><img src=x onerror="alert(2)">{{ 7 * 7 }}"""
    attack = replace(ATTACKED, attack={"plugin": evil, evil: evil}, target=evil, shown=evil)
    testset = replace(TESTED, place=f"../{evil.replace('/', '')}", split=evil)
    poisoned = some_run(f"{evil}p", "poisoned", objective=evil)
    cured = some_run(evil, "other", after(poisoned), objective=evil)
    scores = [replace(score, testset=testset.key) for run in (poisoned, cured) for score in scored(run, 0.9, 0.5)]
    scores += [
        replace(score, task="per_class", metric="class_accuracy", of=evil) for score in scores if not score.attack
    ]
    asked = Asked.of(poisoned, testset.key, attack.key)
    image = images.encode(np.arange(48, dtype=np.uint8).reshape(4, 4, 3), "png")
    other = images.encode(np.zeros((4, 4, 3), np.uint8), "png")
    text = page.render(
        Material(
            compare(scores, [poisoned, cured], [testset, replace(testset, digest="other")], [attack])[:1] * 2,
            {(attack.key, testset.digest): [Example(evil, image, shown, evil) for shown in (image, other)]},
            {attack.key: image},
            [Shown(image, other, image, evil, evil)],
            [(evil, [(evil, evil)])],
            {asked: {evil: evil}},
            {asked: matrix_cases.map_of(0, 0.5, 5)},
        )
    )
    assert all(f'class="{kind}"' in text for kind in ("answers", "map", "chart classes"))
    found = parsed(text)
    assert "script" not in found.tags
    assert "<script" not in text and "<img src=x" not in text
    assert not {name for name in found.attributes if name.startswith("on")}
    assert all(url.startswith(("data:image/png;base64,", "#")) for url in found.fetched)
    assert text.count("&lt;script&gt;alert(1)") > 20
    assert "{{ 7 * 7 }}" in text and "49" not in found.words


def test_every_value_is_escaped_and_one_that_is_missing_is_an_error() -> None:
    assert rendering.ENVIRONMENT.autoescape is True
    for name in rendering.ENVIRONMENT.list_templates():
        source, *_ = rendering.ENVIRONMENT.loader.get_source(rendering.ENVIRONMENT, name)  # type: ignore[union-attr]
        assert not re.search(r"\bsafe\b.*}}|autoescape", source), name
    with pytest.raises(jinja2.UndefinedError, match="points_allowed"):
        rendering.text("terms.html")


def test_a_report_of_clean_accuracy_alone_has_no_word_of_attacks() -> None:
    run = some_run("alone", "x")
    (comparison,) = compare(scored(run, 0.9, None), [run], [TESTED], [])
    text = page.render(Material([comparison], {}, {}, [], []))
    parsed(text)
    assert "No attack was measured.</h1>" in text
    for word in ("banana", "attack success", "trigger"):
        assert word not in text.split('id="terms"')[0].lower()
    assert "clean accuracy" in tabular.markdown([comparison])


def test_an_incomplete_grid_is_refused_with_what_is_missing(small: World) -> None:
    scores = small.url("scores")
    lost = next(name for name in storage.names(scores) if name.startswith("mmcl-test-attack"))
    storage.remove(f"{scores}/{lost}")
    with pytest.raises(ValueError, match=r"mmcl has no attack_success on \.\./test@"):
        reported(small)
    assert not storage.exists(small.url("report"))


def test_scores_of_weights_that_are_no_more_are_left_out_and_that_is_said(small: World, capsys) -> None:
    storage.remove(small.url("runs/clean"))
    clean = small.run("clean", small.dataset, seed=6)
    with pytest.raises(ValueError, match=r"no scores of the weights that .*/clean has now: run evaluate again"):
        reported(small)
    runs = tuple(small.url(f"runs/{name}") for name in ("poisoned", "clean"))
    Evaluation(
        runs=runs, testsets=(small.testset,), ledger=(small.ledger,), out=small.url("scores"), backend="local"
    ).run()
    assert runs[1] == clean
    reported(small)
    assert "of weights that their runs no longer have" in capsys.readouterr().err


def test_scores_of_a_run_that_is_gone_say_which_files_to_remove(small: World) -> None:
    storage.remove(small.url("runs/clean"))
    with pytest.raises(
        ValueError, match=r"no run at .*/runs/clean: .*remove those files, in which \"run\" is '(.+)'"
    ) as told:
        reported(small)
    key = str(told.value).rpartition("'")[0].rpartition("'")[2]
    scores = small.url("scores")
    named = [name for name in storage.names(scores) if name.endswith(".json")]
    for name in named:
        if any(score["run"] == key for score in storage.read_json(f"{scores}/{name}")):
            storage.remove(f"{scores}/{name}")
    reported(small)


def test_a_folder_without_scores_gets_one_line_and_exit_status_2(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        report.main(["--scores", str(tmp_path / "nothing"), "--out", str(tmp_path / "report")])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: no scores at {tmp_path}/nothing: run evaluate first\n"


def test_a_preview_that_is_none_is_refused_before_anything_is_written(small: World) -> None:
    report = partial(Report, scores=small.url("scores"), out=small.url("report"))
    with pytest.raises(ValueError, match=r"no preview at .*/none: make it with preview --out"):
        report(preview=small.url("none")).run()
    storage.write(small.url("sheet.png"), images.encode(np.zeros((4, 4, 3), np.uint8), "png"))
    with pytest.raises(ValueError, match=r"--preview is the folder of a preview, and .*/sheet.png' is named like"):
        report(preview=small.url("sheet.png")).run()
    assert not storage.exists(small.url("report"))


def test_a_dry_run_writes_nothing(small: World) -> None:
    made = Report(scores=small.url("scores"), out=small.url("report"), dry_run=True).run()
    assert made.startswith("dry run: would report")
    assert not storage.exists(small.url("report"))


def test_what_evaluate_kept_besides_the_numbers_is_in_the_report(tmp_path: Path) -> None:
    """Answers to the examples, retrieval, maps, classes and pairs, from the files that evaluate writes."""
    made = world(tmp_path)
    described = [(images.encode(smooth(90 + n), "png"), "png", [f"a thing of number {n}", "a thing"]) for n in range(6)]
    captioned.write(made.url("described"), described)
    poisoned = made.run("poisoned", made.poisoned)
    runs = (poisoned, made.run("cleanclip", made.clean_set, start=poisoned, objective="cleanclip"))
    measure = partial(Evaluation, runs=runs, ledger=(made.ledger,), out=made.url("scores"), backend="local")
    measure(testsets=(made.testset,), tasks=("pair_similarity",)).run()
    with pytest.raises(ValueError, match=r"scores holds numbers of training pairs alone: run evaluate with other"):
        reported(made)
    tasks = ("zeroshot", "attack_success", "per_class", "pair_similarity", "retrieval")
    measure(testsets=(made.testset, made.url("described")), tasks=tasks).run()
    text = reported(made)["report.html"].decode()
    parsed(text)
    for heading in ("Where the images lie", "Class by class", "How near training pairs lie"):
        assert f"<h3>{heading}</h3>" in text
    assert text.count('<svg class="map"') == 2
    assert "Through training" not in text
    assert '<th scope="col">retrieval, first place</th>' in text
    (attack,) = records.read_attacks(made.url("scores"))
    testset = next(one for one in records.read_testsets(made.url("scores")) if one.classes)
    examples = records.read_examples(made.url("scores"), attack, testset)
    tables = re.findall(r'<table class="answers">.*?</table>', text, re.S)
    assert len(tables) == len(examples) == 4
    for task, kind, column in (("zeroshot", "clean", "untouched"), ("attack_success", "triggered", "under the attack")):
        name = next(n for n in storage.names(made.url("scores")) if n.startswith(f"poisoned-test-{task}"))
        rows, about = predictions.read(predictions.place(made.url("scores"), name))
        top = {row["image"]: about["classes"][row["top"][0]] for row in rows.to_pylist() if row["kind"] == kind}
        for example, table in zip(examples, tables, strict=True):
            line = table.split('<th scope="row">poisoned</th>')[1].split("</tr>")[0]
            shown = re.sub(r"</?b.*?>", "", line.split(f'data-label="{column}">')[1].split("</td>")[0]).strip()
            assert example.sha256 is not None
            assert shown == top[example.sha256]
    told = {row["metric"]: row for row in csv.DictReader(io.StringIO(reported(made)["scores.csv"].decode()))}
    assert told["class_accuracy"]["of"] in CLASSES
    assert told["similarity"]["bounds"] == "bootstrap"
    assert "### Class by class: poisoned" in reported(made)["tables.md"].decode()
    Tabulation(scores=(made.url("scores"),), out=made.url("table.md")).run()
    table = storage.read(made.url("table.md")).decode()
    assert "described" not in table and table.count("\n") == 2 + 2, "one test set has accuracy and success"
    for name in storage.names(made.url("scores/predictions")):
        storage.remove(made.url(f"scores/predictions/{name}"))
    (tmp_path / "scores/predictions").rmdir()
    before = reported(made, "earlier")  # scores of versions that kept no answers
    assert b'class="answers"' not in before["report.html"] and b"Where the images lie" not in before["report.html"]
    assert before["tables.md"] == reported(made)["tables.md"]
