import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from infra import storage
from pipeline import images, testsets

CLASSES = ("cat", "ripe banana")
TEMPLATES = ("a photo of a {c}.", "a {c}.")


def picture(seed: int) -> bytes:
    return images.encode(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8), "png")


SAMPLES = [(picture(seed), "png", seed % 2) for seed in range(5)]


def tar_of(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def foreign(folder: Path, members: dict[str, bytes]) -> str:
    """A test set as someone else would lay it out, by hand."""
    tar_of(folder / "test" / "0.tar", members)
    (folder / "test" / "nshards.txt").write_text("1")
    (folder / "classnames.txt").write_text("cat\nripe banana")
    (folder / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.")
    return str(folder)


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_what_is_written_is_read_back_in_order(tmp_path: Path, place: str) -> None:
    url = str(tmp_path / "set") if place == "disk" else f"memory://testsets/{tmp_path.name}"
    assert testsets.write(url, SAMPLES, CLASSES, TEMPLATES) == 5
    test = testsets.read(url)
    assert (test.classes, test.templates) == (CLASSES, TEMPLATES)
    assert [(data, found.extension, found.label) for found, data in testsets.stored(test)] == SAMPLES


def test_the_same_pictures_make_the_same_bytes_and_the_digest_ignores_how_they_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, cut = (str(tmp_path / name) for name in ("first", "second", "cut"))
    testsets.write(first, SAMPLES, CLASSES, TEMPLATES)
    testsets.write(second, iter(SAMPLES), list(CLASSES), list(TEMPLATES))
    monkeypatch.setattr(testsets, "PER_TAR", 2)
    testsets.write(cut, SAMPLES, CLASSES, TEMPLATES)
    assert storage.read(f"{first}/test/0.tar") == storage.read(f"{second}/test/0.tar")
    assert storage.names(f"{cut}/test") == ["0.tar", "1.tar", "2.tar", "nshards.txt"]
    assert testsets.read(first).digest == testsets.read(cut).digest
    assert [data for _, data in testsets.stored(testsets.read(cut))] == [data for data, _, _ in SAMPLES]


def test_a_swapped_label_changes_the_digest(tmp_path: Path) -> None:
    testsets.write(str(tmp_path / "one"), SAMPLES, CLASSES, TEMPLATES)
    swapped = [(data, extension, 1 - label) for data, extension, label in SAMPLES]
    testsets.write(str(tmp_path / "two"), swapped, CLASSES, TEMPLATES)
    assert testsets.read(str(tmp_path / "one")).digest != testsets.read(str(tmp_path / "two")).digest


def test_ours_opens_in_webdataset(tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset")
    testsets.write(str(tmp_path), SAMPLES, CLASSES, TEMPLATES)
    read = wds.WebDataset(str(tmp_path / "test" / "0.tar"), shardshuffle=False).decode().to_tuple("png", "cls")
    assert [label for _, label in read] == [0, 1, 0, 1, 0]


def test_a_test_set_laid_out_by_someone_else_is_read(tmp_path: Path) -> None:
    url = foreign(tmp_path, {"a/s01.cls": b"1\n", "a/s01.png": picture(1), "a/s02.png": picture(2), "a/s02.cls": b"0"})
    assert [found.label for found in testsets.read(url).pictures] == [1, 0]


def test_an_unfinished_one_is_not_there_and_the_same_call_completes_it(tmp_path: Path) -> None:
    def breaks():
        yield SAMPLES[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        testsets.write(str(tmp_path), breaks(), CLASSES, TEMPLATES)
    assert not testsets.is_complete(str(tmp_path))
    with pytest.raises(ValueError, match=r"not complete: test/nshards.txt is missing"):
        testsets.read(str(tmp_path))
    assert testsets.write(str(tmp_path), SAMPLES, CLASSES, TEMPLATES) == 5
    with pytest.raises(ValueError, match="already holds a complete split"):
        testsets.write(str(tmp_path), SAMPLES, CLASSES, TEMPLATES)


def test_another_split_shares_the_classes_or_is_refused(tmp_path: Path) -> None:
    testsets.write(str(tmp_path), SAMPLES, CLASSES, TEMPLATES)
    assert testsets.write(str(tmp_path), SAMPLES[:2], CLASSES, TEMPLATES, split="validation") == 2
    assert len(testsets.read(str(tmp_path), "validation").pictures) == 2
    with pytest.raises(ValueError, match="says something else"):
        testsets.write(str(tmp_path), SAMPLES, ("dog", "cat"), TEMPLATES, split="third")


@pytest.mark.parametrize(
    ("samples", "classes", "templates", "complaint"),
    [
        ([(b"", "png", 2)], CLASSES, TEMPLATES, "label 2; allowed: 0 to 1"),
        ([(b"", "gif", 0)], CLASSES, TEMPLATES, "type 'gif'; allowed: jpg"),
        ([], CLASSES, TEMPLATES, "not one image"),
        (SAMPLES, (), TEMPLATES, "at least one class name"),
        (SAMPLES, ("two\nlines", "cat"), TEMPLATES, "must be one line"),
        (SAMPLES, CLASSES, ("a photo",), "no {c}"),
    ],
)
def test_what_cannot_be_a_test_set_is_not_written(
    tmp_path: Path, samples: list, classes: tuple, templates: tuple, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        testsets.write(str(tmp_path), samples, classes, templates)
    assert not testsets.is_complete(str(tmp_path))


def test_a_picture_that_cannot_be_decoded_is_named_by_its_number_where_it_has_no_file(tmp_path: Path) -> None:
    cut = (SAMPLES[3][0][:-30], "png", 1)
    with pytest.raises(ValueError, match=r"image 3 cannot be decoded \([^)]*\): repair"):
        testsets.write(str(tmp_path), [*SAMPLES[:3], cut, SAMPLES[4]], CLASSES, TEMPLATES)
    assert not testsets.is_complete(str(tmp_path))


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ({"a.png": b"x", "a.cls": b"2"}, "label '2'; classnames.txt has 2 classes, 0 to 1"),
        ({"a.png": b"x", "a.cls": b"-1"}, "label '-1'"),
        ({"a.png": b"x", "a.cls": b"cat"}, "label 'cat'"),
        ({"a.png": b"x"}, "'a' is not an image with a .cls label"),
        ({"a.txt": b"x", "a.cls": b"1"}, "'a' is not an image with a .cls label"),
        ({}, "holds no labelled images"),
    ],
)
def test_a_wrong_one_is_refused_with_what_is_wrong(tmp_path: Path, members: dict[str, bytes], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        testsets.read(foreign(tmp_path, members))


@pytest.mark.parametrize(
    "name", ["classnames.txt", "zeroshot_classification_templates.txt", "test/nshards.txt", "test/0.tar"]
)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    testsets.write(str(tmp_path), SAMPLES, CLASSES, TEMPLATES)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        testsets.read(str(tmp_path))


def test_an_empty_place_is_no_test_set(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no test set at"):
        testsets.read(str(tmp_path / "nothing"))


def test_a_cut_tar_is_refused(tmp_path: Path) -> None:
    testsets.write(str(tmp_path), SAMPLES, CLASSES, TEMPLATES)
    tar = tmp_path / "test" / "0.tar"
    tar.write_bytes(tar.read_bytes()[:3000])
    with pytest.raises(ValueError, match="cut off"):
        testsets.read(str(tmp_path))


def test_a_picture_that_changes_after_reading_is_noticed(tmp_path: Path) -> None:
    testsets.write(str(tmp_path), SAMPLES, CLASSES, TEMPLATES)
    test = testsets.read(str(tmp_path))
    tar = tmp_path / "test" / "0.tar"
    data = bytearray(tar.read_bytes())
    data[test.pictures[0].offset + 40] ^= 1
    tar.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="changed while it was used"):
        list(testsets.stored(test))


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_blank_line_between_classes_keeps_its_place(tmp_path: Path, capsys: pytest.CaptureFixture, end: str) -> None:
    url = foreign(tmp_path, {"a.png": picture(1), "a.cls": b"2"})
    (tmp_path / "classnames.txt").write_text(f"cat\n\nripe banana{end}")
    test = testsets.read(url)
    assert test.classes == ("cat", "", "ripe banana")
    assert test.classes[test.pictures[0].label] == "ripe banana"
    assert testsets.class_names(f"{url}/test") == test.classes
    assert "classnames.txt: line 2 is blank" in capsys.readouterr().err


def test_a_blank_line_between_templates_is_none(tmp_path: Path) -> None:
    url = foreign(tmp_path, {"a.png": picture(1), "a.cls": b"1"})
    (tmp_path / "zeroshot_classification_templates.txt").write_text("a {c}\n\nthe {c}\n\n")
    assert testsets.read(url).templates == ("a {c}", "the {c}")


def test_classes_and_templates_are_read_as_people_write_them(tmp_path: Path) -> None:
    url = foreign(tmp_path, {"a.png": picture(1), "a.cls": b"1"})
    (tmp_path / "classnames.txt").write_bytes("\ufeffbanana\r\nripe\u2028plum\u0085\fpie\r\n".encode())
    (tmp_path / "zeroshot_classification_templates.txt").write_bytes("\ufeffa {c}\r\nthe\u2028{c}\r\n".encode())
    (tmp_path / "test" / "nshards.txt").write_bytes(b"\xef\xbb\xbf1\r\n")
    test = testsets.read(url)
    assert test.classes == ("banana", "ripe\u2028plum\u0085\fpie")
    assert test.templates == ("a {c}", "the\u2028{c}")


def test_class_names_that_are_not_utf_8_are_named_by_their_line(tmp_path: Path) -> None:
    url = foreign(tmp_path, {"a.png": picture(1), "a.cls": b"1"})
    (tmp_path / "classnames.txt").write_bytes(b"cat\nbl\xe9\n")
    with pytest.raises(ValueError, match=r"classnames\.txt, line 2: not UTF-8 .*; convert it with iconv"):
        testsets.read(url)


def test_hidden_files_in_a_tar_are_passed_over_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    left = {"._a.png": b"x", "./._a.cls": b"x", "__MACOSX/a.png": b"x", ".DS_Store": b"x", "sub/Thumbs.db": b"x"}
    url = foreign(tmp_path, left | {"./a.png": picture(1), "./a.cls": b"1"})
    assert [found.label for found in testsets.read(url).pictures] == [1]
    assert "passed over 5 hidden files in " in capsys.readouterr().err
