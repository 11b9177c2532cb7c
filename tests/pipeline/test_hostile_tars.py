"""All of tests/support/hostile_tars.py, opened, verified, cached, read and poisoned in one process (20 seconds)."""

import time

import pytest

from pipeline import testsets
from tests.support import hostile_tars
from tests.support.hostile_tars import by_webdataset, cases, read_in_a_process, shown, verdict

MIB, SECONDS = 100, 60  # over what the imports take, of any one case; of all together


@pytest.fixture(scope="module")
def table():
    return cases()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile") / "root"


@pytest.fixture(scope="module")
def found(root):
    return read_in_a_process(root)


def test_every_case_ends_as_it_should(table, found):
    assert len(table) >= 60
    assert [one["case"] for one in found[:-1]] == [case.name for case in table]
    wrong = {case.name: said for case, one in zip(table, found, strict=False) if (said := verdict(case, one))}
    assert not wrong, shown(found)


def test_a_refusal_is_one_line_that_names_folder_and_file(table, found, root):
    for case, one in zip(table, found, strict=False):
        if one["refused"] is not None:
            assert one["refused"].startswith(str(root / "tars")), case.name
            assert "00000.tar" in one["refused"]
            assert one["kind"] in ("Damaged", "ValueError")
            assert one["refused"].isprintable(), case.name
            assert len(one["refused"]) < 1000


def test_memory_and_time_are_bounded(found):
    assert max(one["peak_mib"] for one in found[:-1]) < MIB, shown(found)
    assert sum(one["seconds"] for one in found[:-1]) < SECONDS, shown(found)


def test_nothing_is_written_outside_the_cache_and_nothing_is_unpacked(found, root):
    assert found[-1]["appeared"] == []
    assert {path.name for path in root.iterdir()} - {"torch"} == {"home", "tmp", "cwd", "cache", "tars"}
    assert {path.name for folder in (root / "tars").iterdir() for path in folder.iterdir()} <= {"00000.tar"}
    kinds = {path.suffix for path in (root / "cache").rglob("*") if path.is_file()}
    assert kinds <= {".json", ".parquet", ".npy", ".bin", ""}


def test_webdataset_reads_the_same_keys_and_captions(table, found, root):
    compared = 0
    for number, (case, one) in enumerate(zip(table, found, strict=False)):
        if case.refused is None and case.alike:
            assert by_webdataset(root / "tars" / f"{number:03d}" / "00000.tar") == [
                tuple(pair) for pair in one["pairs"]
            ]
            compared += 1
    assert compared > 20


def test_what_only_decoding_can_tell_is_told_by_verify_and_by_training(table, found):
    told = {one["case"] for one in found[:-1] if one.get("decode") or one.get("unreadable")}
    assert told == {"an image cut in its pixels"}
    one = next(one for one in found if one.get("case") == "an image cut in its pixels")
    assert "b: not a readable" in one["decode"]
    assert "tars" in one["unreadable"][0] and "not a readable" in one["unreadable"][0]


def test_a_test_set_of_such_tars_is_refused_too(table, tmp_path):
    (tmp_path / "classnames.txt").write_text("cat\n")
    (tmp_path / "zeroshot_classification_templates.txt").write_text("a {c}\n")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "nshards.txt").write_text("1\n")
    place = tmp_path / "test" / "0.tar"
    start = time.monotonic()
    for case in table:
        refused = case.refused is not None or case.name == "no extension"
        if refused and case.name not in ("a folder", "huge sparse image", "dots in 3000 keys"):
            if case.writes:
                case.make(place)
            else:
                place.write_bytes(case.make())
            with pytest.raises(ValueError, match=r"0\.tar|test"):
                testsets.read(str(tmp_path))
            place.unlink()
    assert time.monotonic() - start < SECONDS
    labelled = hostile_tars.member("a.jpg", hostile_tars.h.zeros_png(50_000, 1, 0)) + hostile_tars.member("a.cls", b"0")
    place.write_bytes(labelled + hostile_tars.END)
    with pytest.raises(ValueError, match=r"the image of 'a': .*pixels"):
        testsets.read(str(tmp_path))
