"""Labelled images as a dataset to learn from: a split as `testset` lays it out, or as anyone else does."""

import hashlib
import io
import itertools
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest

from infra.errors import Damaged
from pipeline import foreign as foreign_shards
from pipeline import sanity, shards
from pipeline.dataset import Dataset
from pipeline.picturebook import draw
from pipeline.sources.picturebook import Picturebook
from tests.support.drawn import drawn, labelled, samples

PICTURES = [sample.image for sample in samples(3)]


def foreign(folder: Path, *members: tuple[str, bytes]) -> str:
    """A folder of one tar, with nothing beside it."""
    folder.mkdir(parents=True)
    with tarfile.open(folder / "0.tar", "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(folder)


def test_a_split_of_a_labelled_set_is_a_dataset_with_labels_and_no_captions(tmp_path):
    place = labelled(str(tmp_path / "set"), 10)
    before = sorted(path.name for path in Path(place).iterdir())
    made = Dataset.open(place, labelled=True)
    index = made.index_of_samples(["label", "caption", "image_sha256"]).to_pylist()
    assert made.classes == ("car", "house", "fish", "cup")
    assert [line["label"] for line in index] == [row % 4 for row in range(10)]
    assert [line["image_sha256"] for line in index] == [hashlib.sha256(s.image).hexdigest() for s in samples(10)]
    assert {line["caption"] for line in index} == {""}
    assert Dataset.open(place, labelled=True) == made
    assert sorted(path.name for path in Path(place).iterdir()) == before


def test_nobody_gets_captions_that_are_not_there(tmp_path):
    with pytest.raises(
        ValueError, match=r"'s0000000' is not an image with a \.txt caption \(it has \['cls', 'jpg'\]\)"
    ):
        Dataset.open(labelled(str(tmp_path / "set"), 4))


def test_pictures_with_both_are_pairs_or_labelled_as_they_are_asked_for(tmp_path):
    place = foreign(tmp_path / "both", ("a.jpg", PICTURES[0]), ("a.txt", b"a car"), ("a.cls", b"7"))
    pairs, made = Dataset.open(place), Dataset.open(place, labelled=True)
    assert pairs.classes == ()
    assert "label" not in pairs.index(pairs.shards[0]).column_names
    assert made.index(made.shards[0])["caption"].to_pylist() == ["a car"]
    assert made.index(made.shards[0])["label"].to_pylist() == [7]
    assert made.index(made.shards[0])["row"].equals(pairs.index(pairs.shards[0])["row"])  # the ledger knows it by that
    assert Dataset.open(place) == pairs


def test_classes_without_names_are_called_by_their_numbers(tmp_path):
    place = foreign(tmp_path / "set" / "train", ("a.jpg", PICTURES[0]), ("a.cls", b"2\n"))
    assert Dataset.open(place, labelled=True).classes == ("0", "1", "2")


def test_classes_of_which_there_are_no_pictures_count_too(tmp_path):
    assert len(Dataset.open(labelled(str(tmp_path / "set"), 2), labelled=True).classes) == 4


def test_a_label_beyond_the_names_is_refused_with_both_numbers(tmp_path):
    place = labelled(str(tmp_path / "set"), 4)
    (tmp_path / "set" / "classnames.txt").write_text("car\nhouse\nfish\n")
    with pytest.raises(ValueError, match=r"has label 3; classnames.txt beside it has 3 classes, from 0"):
        Dataset.open(place, labelled=True)


def test_a_blank_line_among_the_names_is_a_class_without_one_and_moves_no_other(tmp_path):
    place = labelled(str(tmp_path / "set"), 4)
    (tmp_path / "set" / "classnames.txt").write_bytes("\ufeffcar\r\n\r\nfish\u2028\r\ncup\r\n".encode())
    assert Dataset.open(place, labelled=True).classes == ("car", "", "fish", "cup")


@pytest.mark.parametrize("label", [b"-1", b"cat", b"1.0", b"", b" ", b"1000000", b"\xff", "\u0663".encode()])
def test_what_is_no_class_is_refused(tmp_path, label):
    place = foreign(tmp_path / "set", ("a.jpg", PICTURES[0]), ("a.cls", label))
    with pytest.raises(ValueError, match=r"0.tar: the label of 'a' is .*, no whole number from 0 to 999,999"):
        Dataset.open(place, labelled=True)


def test_a_huge_label_is_not_read(tmp_path):
    place = foreign(tmp_path / "set", ("a.jpg", PICTURES[0]), ("a.cls", b"1" * 21))
    with pytest.raises(ValueError, match="the label of 'a' has 21 bytes; at most 20 are read"):
        Dataset.open(place, labelled=True)


def test_a_picture_without_a_label_among_others_is_refused(tmp_path):
    pair = (("b.jpg", PICTURES[1]), ("b.txt", b"a house"))
    place = foreign(tmp_path / "set", ("a.jpg", PICTURES[0]), ("a.cls", b"0"), *pair)
    with pytest.raises(ValueError, match=r"'b' is not an image with a \.cls label \(it has \['jpg', 'txt'\]\)"):
        Dataset.open(place, labelled=True)


def test_a_picture_that_cannot_be_read_is_counted_and_left_out(tmp_path):
    place = foreign(tmp_path / "set", ("a.jpg", PICTURES[0]), ("a.cls", b"0"), ("b.jpg", b"no image"), ("b.cls", b"1"))
    made = Dataset.open(place, labelled=True, max_bad_share=0.5)
    assert (made.samples, made.outcomes) == (1, {"not_an_image": 1, "success": 1})
    with pytest.raises(ValueError, match=r"1 of 2 samples cannot be used \(1 not_an_image\): 0.tar: the image of 'b'"):
        Dataset.open(place, labelled=True)


def test_another_label_is_another_dataset(tmp_path):
    digests = set()
    for name, label in (("one", b"0"), ("two", b"1")):
        place = foreign(tmp_path / name, ("a.jpg", PICTURES[0]), ("a.cls", label))
        digests.add(Dataset.open(place, labelled=True).digest)
    assert len(digests) == 2


def test_what_holds_no_labelled_pictures_is_refused_with_what_to_give(tmp_path):
    labelled(str(tmp_path / "set"), 4)
    pairs = drawn(str(tmp_path / "pairs"), 4, 1)
    for url in (str(tmp_path / "set"), pairs.url, str(tmp_path / "nothing")):
        with pytest.raises(ValueError, match=r"no labelled images at .*such as data/labelled/train"):
            Dataset.open(url, labelled=True)


@pytest.mark.parametrize("label", [-1, None, foreign_shards.MAX_CLASSES])
def test_an_index_with_a_label_that_is_none_is_damaged(tmp_path, label):
    made = Dataset.open(labelled(str(tmp_path / "set"), 4), labelled=True)
    index = made.index(made.shards[0])
    labels = pa.array([0, 1, 2, label], pa.int32())
    lying = index.set_column(index.column_names.index("label"), shards.LABELLED.field("label"), labels)
    with pytest.raises(Damaged, match="label"):
        sanity.index("x", lying, made.shards[0].bytes, labelled=True)


def test_the_picture_books_labelled_pictures_are_those_of_no_other_split_and_of_no_row():
    book = Picturebook()
    splits = [{data for data, _, _ in book.labelled(30, 0, name).samples} for name in ("train", "test", "validation")]
    rows = {draw.encoded(0, row, 32) for row in range(30)}
    assert all(len(pictures) == 30 for pictures in (*splits, rows))
    assert not any(one & other for one, other in itertools.combinations([*splits, rows], 2))
