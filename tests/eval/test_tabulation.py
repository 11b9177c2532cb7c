"""Many grids in one table."""

from dataclasses import replace
from pathlib import Path

import pytest

from eval import table
from eval.judging.roles import compare
from eval.measuring.evaluation import Evaluation
from eval.studies.tabulation import Line, Tabulation, markdown, shown
from infra import storage
from pipeline import images, testsets
from poison.attacks.badnet import BadNet
from poison.attacks.blended import Blended
from tests.support.eval_helpers import ATTACKED, CLASSES, TEMPLATES, TESTED, after, scored, smooth, some_run, world

BADNET = replace(ATTACKED, attack={"plugin": "badnet", "size": 42, "trigger_seed": 5})


def lines(seed: int, success: float = 0.9, attack=BADNET, floor: float | None = 0.01) -> list[Line]:
    """One book of the experiment: a clean run, a poisoned one, one cured."""
    clean = some_run("clean", attack.parent_digest, seed=seed)
    poisoned = some_run(f"badnet-{seed}", attack.dataset_digest, seed=seed)
    cured = some_run("cured", "other", after(poisoned), objective="cleanclip", seed=seed)
    numbers = [(poisoned, 0.9, success), (cured, 0.88, 0.05)]
    if floor is not None:
        numbers.append((clean, 0.91, floor))
    scores = [score for run, *values in numbers for score in scored(run, *values)]
    rows = compare(scores, [run for run, *_ in numbers], [TESTED], [attack])[0]
    floors = rows.of("floor")
    return [Line(attack, row, floors[0].success if floors else None) for row in rows.rows if row.role.kind != "floor"]


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|\n").split("|")] for line in text.splitlines()[2:]]


def test_a_line_says_attack_knobs_poisons_scores_floor_and_seed():
    undefended, cured = cells(markdown(lines(0)))
    assert undefended == [
        "ledger",
        "badnet: size 42",
        "30 (1.00%)",
        "undefended",
        "90.0% [88.0, 92.0]",
        "90.0% [88.0, 92.0]",
        "1.0% [0.0, 3.0]",
        "0",
    ]
    assert cured[3] == "finetuned from badnet-0 with cleanclip"
    assert cured[5] == "5.0% [3.0, 7.0]"


def test_seeds_are_averaged_with_their_range_whatever_the_trigger_seed():
    other = replace(BADNET, attack=BADNET.attack | {"trigger_seed": 6}, poisons=32)
    first, *_ = cells(markdown([*lines(1, 0.7, other), *lines(0, 0.9)]))
    assert first[2] == "30 to 32 (1.03%)"
    assert first[5] == "80.0% [70.0, 90.0]"
    assert first[7] == "0, 1"


def test_attacks_of_other_knobs_or_another_name_have_lines_of_their_own():
    smaller = replace(BADNET, attack=BADNET.attack | {"size": 16})
    elsewhere = replace(BADNET, place="../badnet-again")
    assert len(cells(markdown([*lines(0), *lines(1, attack=smaller), *lines(2, attack=elsewhere)]))) == 6


def test_what_is_no_other_seed_is_not_averaged():
    longer = [
        replace(line, row=replace(line.row, run=replace(line.row.run, config={"recipe": {"epochs": 14}})))
        for line in lines(1)
    ]
    assert len(cells(markdown([*lines(0), *longer]))) == 4
    with pytest.raises(ValueError, match="more than once with seed 0"):
        markdown([*lines(0), *lines(0)])


def test_what_was_not_measured_is_a_dash_and_not_left_out():
    undefended, _ = cells(markdown(lines(0, floor=None)))
    assert undefended[6] == "-"
    first, *_ = cells(markdown([*lines(0), *lines(1, floor=None)]))
    assert first[6] == "-", "a mean over fewer seeds than the line names would be another number"


def test_an_attack_is_shown_by_what_differs_from_its_defaults():
    from infra import config

    assert shown(config.to_json(BadNet())) == "badnet"
    assert shown(config.to_json(BadNet(size=42, place="centre", trigger_seed=3))) == "badnet: place centre, size 42"
    assert shown(config.to_json(Blended(alpha=0.25))) == "blended: alpha 0.25"


def test_folders_of_scores_become_a_file_once(tmp_path: Path, capsys: pytest.CaptureFixture):
    made = world(tmp_path)
    runs = (made.run("poisoned", made.poisoned), made.run("clean", made.dataset, seed=1))
    grid = {"testsets": (made.testset,), "ledger": (made.ledger,), "out": made.url("scores"), "backend": "local"}
    Evaluation(runs=runs, **grid).run()
    table = Tabulation(scores=(made.url("scores"),), out=made.url("table.md"))
    assert "table of 1 runs at" in table.run()
    written = (tmp_path / "table.md").read_text()
    assert len(cells(written)) == 1
    assert table.run().startswith("nothing to do")
    capsys.readouterr()
    assert replace(table, out=made.url("other.md"), dry_run=True).run().startswith("dry run")
    assert capsys.readouterr().out == written
    assert not (tmp_path / "other.md").exists()


def test_two_test_sets_in_one_folder_of_scores_have_a_line_each(tmp_path: Path):
    made = world(tmp_path)
    others = [storage.join(made.folder, name) for name in ("harder", "x/test")]
    for number, url in enumerate(others):
        images_of = [(images.encode(smooth(50 + 20 * number + n), "png"), "png", n % len(CLASSES)) for n in range(12)]
        testsets.write(url, images_of, CLASSES, TEMPLATES)
    runs = (made.run("poisoned", made.poisoned), made.run("clean", made.dataset, seed=1))
    for out, sets, names in (("a", others[:1], ["harder", "test"]), ("b", others[1:], ["../test", "../x/test"])):
        grid = {"ledger": (made.ledger,), "out": made.url(out), "backend": "local"}
        Evaluation(runs=runs, testsets=(made.testset, *sets), **grid).run()
        Tabulation(scores=(made.url(out),), out=made.url(f"{out}.md")).run()
        rows = cells((tmp_path / f"{out}.md").read_text())
        assert [row[3] for row in rows] == [f"undefended, on {name}" for name in names]
        assert all(row[7] == "0" for row in rows)


def test_one_training_under_two_names_is_refused_with_both(tmp_path: Path):
    made = world(tmp_path)
    runs = (made.run("poisoned", made.poisoned), made.run("again", made.poisoned), made.run("clean", made.dataset))
    grid = {"testsets": (made.testset,), "ledger": (made.ledger,), "out": made.url("scores"), "backend": "local"}
    Evaluation(runs=runs, **grid).run()
    with pytest.raises(ValueError, match=r"runs/again and .*/runs/poisoned are one training under two names"):
        Tabulation(scores=(made.url("scores"),), out=made.url("table.md")).run()
    with pytest.raises(ValueError, match=r"--scores names .*/scores/ twice"):
        Tabulation(scores=(made.url("scores"), f"{made.folder}/scores/"), out=made.url("table.md"))


def test_two_trainings_of_one_seed_are_refused_with_both():
    other = [replace(one, row=replace(one.row, run=replace(one.row.run, url=f"{one.row.run.url}-again",
             weights_sha256="other"))) for one in lines(0)]  # fmt: skip
    with pytest.raises(ValueError, match="in /runs/badnet-0 and /runs/badnet-0-again: ledgers of different"):
        markdown([*lines(0), *other])


@pytest.mark.parametrize(("words", "said"), [(["--scores", "nowhere", "--out", "t.md"], "no scores at")])
def test_bad_input_is_one_line_and_status_2(words: list[str], said: str, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        table.main(words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    with pytest.raises(ValueError, match="Markdown"):
        Tabulation(scores=("a",), out="table.txt")
