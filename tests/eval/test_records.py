from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from eval.store import predictions, records, scans
from eval.store.records import Example
from infra import storage
from infra.errors import Damaged
from infra.seeding import rng
from pipeline import images, testsets
from poison import carried
from poison.attacks.targeted import Targeted
from tests.support.eval_helpers import ATTACKED, CLASSES, TEMPLATES, TESTED, smooth


def test_places_on_one_disk_are_relative_and_lead_back(tmp_path: Path) -> None:
    scores, run = str(tmp_path / "a" / "scores"), str(tmp_path / "runs" / "r")
    assert records.relative(run, scores) == "../../runs/r"
    assert records.resolve("../../runs/r", scores) == run


def test_places_in_one_bucket_are_relative_and_lead_back() -> None:
    run, scores = "memory://shelf/x/runs/r", "memory://shelf/x/scores/"
    assert records.relative(run, scores) == "../runs/r"
    assert records.resolve("../runs/r", scores) == run
    assert records.relative(run, "memory://other/x/scores") == run
    assert records.resolve(run, "memory://other/x/scores") == run


def test_places_elsewhere_are_whole_urls(tmp_path: Path) -> None:
    assert records.relative("memory://bucket/run", str(tmp_path)) == "memory://bucket/run"
    assert records.resolve("memory://bucket/run", str(tmp_path)) == "memory://bucket/run"
    assert records.relative(str(tmp_path), "memory://scores") == str(tmp_path)
    assert records.resolve(str(tmp_path), "memory://scores") == str(tmp_path)


def test_records_are_read_back_equal_and_the_first_of_a_key_stands(tmp_path: Path) -> None:
    folder = str(tmp_path)
    for record in (ATTACKED, TESTED, replace(ATTACKED, place="../moved")):
        records.write(folder, record)
    assert records.read_attacks(folder) == [ATTACKED]
    assert records.read_testsets(folder) == [TESTED]


@pytest.mark.parametrize("text", ["[]", "{}", "3", '{"place": 1}', '{"worth": []}', "x"])
@pytest.mark.parametrize(
    ("name", "read"),
    [("attack-a", records.read_attacks), ("testset-a", records.read_testsets), ("scan-a", scans.read)],
)
def test_a_record_that_is_none_is_named(tmp_path: Path, name: str, read: Callable[[str], object], text: str) -> None:
    storage.write(f"{tmp_path}/about/{name}.json", text.encode())
    with pytest.raises(ValueError, match=f"^{tmp_path}/about/{name}.json"):
        read(str(tmp_path))


def test_a_map_that_is_none_is_named(tmp_path: Path) -> None:
    storage.write(place := f"{tmp_path}/predictions/map-a.parquet", b"PAR1")
    with pytest.raises(Damaged, match=f"{place} is damaged"):
        predictions.maps(str(tmp_path))
    predictions.write(place, pa.table({"x": [1.0]}), {"run": "run"})
    with pytest.raises(ValueError, match=f"{place} says nothing of 'checkpoint'"):
        predictions.maps(str(tmp_path))


def test_an_attack_with_a_trigger_is_one_in_earlier_words_too(tmp_path: Path) -> None:
    records.write(str(tmp_path), replace(ATTACKED, shown="triggered pictures"))
    assert [record.shown for record in records.read_attacks(str(tmp_path))] == [records.TRIGGERED]


def test_a_test_set_that_changed_in_its_place_is_another_one(tmp_path: Path) -> None:
    changed = replace(TESTED, digest="0ther", pictures=7)
    assert changed.key != TESTED.key
    for record in (TESTED, changed):
        records.write(str(tmp_path), record)
    assert sorted(records.read_testsets(str(tmp_path)), key=lambda record: record.pictures) == [changed, TESTED]


def test_examples_are_read_back_in_order_and_none_is_none(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert records.read_examples(folder, ATTACKED, TESTED) == []
    examples = [Example("cat", b"clean", b"triggered", 64 * "a"), Example("dog", b"1", b"2")]
    records.write_examples(folder, ATTACKED, TESTED, examples)
    assert records.read_examples(folder, ATTACKED, TESTED) == examples


def test_examples_of_earlier_versions_are_read_without_the_name_of_their_image(tmp_path: Path) -> None:
    folder = str(tmp_path)
    records.write_examples(folder, ATTACKED, TESTED, [Example("cat", b"clean", b"triggered", 64 * "a")])
    (told,) = tmp_path.glob("about/example-*.json")
    storage.write_json(str(told), ["cat"])
    assert records.read_examples(folder, ATTACKED, TESTED) == [Example("cat", b"clean", b"triggered")]


def test_examples_of_an_attack_with_images_of_its_own_show_those(tmp_path: Path) -> None:
    test, other = (str(tmp_path / name) for name in ("test", "other"))
    for url, first in ((test, 0), (other, 50)):
        samples = [(images.encode(smooth(first + n), "png"), "png", n % len(CLASSES)) for n in range(12)]
        testsets.write(url, samples, CLASSES, TEMPLATES)
    attack = Targeted(testset=other, images=8, target="car").resolved()
    drawn = records.draw_examples(testsets.read(test), attack, lambda _: rng(0))
    own = {data: name for name, data in attack.subjects(())}
    assert 0 < len(drawn) <= records.EXAMPLES
    assert all(one.clean == one.triggered and own[one.clean] == one.label for one in drawn)
    assert len({one.label for one in drawn}) == len(drawn)


def test_an_attack_is_told_to_people_without_the_images_in_it() -> None:
    uri = carried.uri(smooth(1))
    record = replace(ATTACKED, attack={"plugin": "targeted", "images": 1, "targets": [["car", uri]]})
    assert record.told["images"] == 1
    assert record.told["targets"].startswith("car; image 32 x 32, sha256 ")
