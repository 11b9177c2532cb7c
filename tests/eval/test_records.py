from dataclasses import replace
from pathlib import Path

from eval_helpers import ATTACKED, TESTED

from eval import records
from eval.records import Example


def test_places_on_one_disk_are_relative_and_lead_back(tmp_path: Path) -> None:
    scores, run = str(tmp_path / "a" / "scores"), str(tmp_path / "runs" / "r")
    assert records.place(run, scores) == "../../runs/r"
    assert records.resolve("../../runs/r", scores) == run


def test_places_in_one_bucket_are_relative_and_lead_back() -> None:
    run, scores = "memory://shelf/x/runs/r", "memory://shelf/x/scores/"
    assert records.place(run, scores) == "../runs/r"
    assert records.resolve("../runs/r", scores) == run
    assert records.place(run, "memory://other/x/scores") == run
    assert records.resolve(run, "memory://other/x/scores") == run


def test_places_elsewhere_are_whole_urls(tmp_path: Path) -> None:
    assert records.place("memory://bucket/run", str(tmp_path)) == "memory://bucket/run"
    assert records.resolve("memory://bucket/run", str(tmp_path)) == "memory://bucket/run"
    assert records.place(str(tmp_path), "memory://scores") == str(tmp_path)
    assert records.resolve(str(tmp_path), "memory://scores") == str(tmp_path)


def test_records_are_read_back_equal_and_the_first_of_a_key_stands(tmp_path: Path) -> None:
    folder = str(tmp_path)
    for record in (ATTACKED, TESTED, replace(ATTACKED, place="../moved")):
        records.write(folder, record)
    assert records.read_attacks(folder) == [ATTACKED]
    assert records.read_testsets(folder) == [TESTED]


def test_a_test_set_that_changed_in_its_place_is_another_one(tmp_path: Path) -> None:
    changed = replace(TESTED, digest="0ther", pictures=7)
    assert changed.key != TESTED.key
    for record in (TESTED, changed):
        records.write(str(tmp_path), record)
    assert sorted(records.read_testsets(str(tmp_path)), key=lambda record: record.pictures) == [changed, TESTED]


def test_examples_are_read_back_in_order_and_none_is_none(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert records.read_examples(folder, ATTACKED, TESTED) == []
    examples = [Example("cat", b"clean", b"triggered"), Example("dog", b"1", b"2")]
    records.write_examples(folder, ATTACKED, TESTED, examples)
    assert records.read_examples(folder, ATTACKED, TESTED) == examples
