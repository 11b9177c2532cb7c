from pathlib import Path

import pytest

from infra import storage
from pipeline import captioned, images, testsets
from pipeline.labelling import Labelling
from pipeline.sources.cc3m import Cc3m
from pipeline.sources.folder import Folder
from tests.pipeline.test_testsets import CLASSES, SAMPLES, TEMPLATES, picture, tar_of

PAIRS = [(picture(seed), "png", [f"first of {seed}", f"second of {seed}"][: 1 + seed % 2]) for seed in range(5)]


def foreign(folder: Path, members: dict[str, bytes], kind: str = "Retrieval\n") -> str:
    """A set as someone else would lay it out, by hand."""
    tar_of(folder / "test" / "0.tar", members)
    (folder / "test" / "nshards.txt").write_text("1\n")
    (folder / "dataset_type.txt").write_text(kind)
    return str(folder)


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_captions_are_read_back_with_the_image_that_each_belongs_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(testsets, "PER_TAR", 2)
    url = str(tmp_path / "set") if place == "disk" else f"memory://captioned/{tmp_path.name}"
    assert captioned.write(url, PAIRS) == 5
    made = captioned.read(url)
    assert [list(some) for some in made.captions] == [captions for _, _, captions in PAIRS]
    assert made.texts[1:3] == ("first of 1", "second of 1")
    assert made.owners.tolist() == [0, 1, 1, 2, 3, 3, 4]
    assert [data for _, data in testsets.stored(made)] == [data for data, _, _ in PAIRS]
    assert {one.label for one in made.pictures} == {-1}


def test_the_digest_knows_captions_and_their_images_and_not_the_tars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swapped = [(data, ending, captions) for (data, ending, _), (_, _, captions) in zip(PAIRS, PAIRS[::-1], strict=True)]
    one, other, cut = (str(tmp_path / name) for name in ("one", "other", "cut"))
    captioned.write(one, PAIRS)
    captioned.write(other, swapped)
    monkeypatch.setattr(testsets, "PER_TAR", 3)
    captioned.write(cut, PAIRS)
    assert captioned.read(one).digest == captioned.read(cut).digest != captioned.read(other).digest


def test_lines_are_those_that_clip_benchmark_reads(tmp_path: Path) -> None:
    said = " a cat \n\nno end\u2028here".encode()
    made = captioned.read(
        foreign(tmp_path, {"s0.webp": images.encode(images.decode(picture(0)), "webp"), "s0.txt": said})
    )
    assert made.captions == ((" a cat ", "", "no end", "here"),)


def test_a_line_break_in_a_caption_is_a_blank_for_a_line_is_a_caption(tmp_path: Path) -> None:
    captioned.write(str(tmp_path), [(picture(0), "png", ["two\nlines ", "one"])])
    assert captioned.read(str(tmp_path)).captions == (("two lines", "one"),)


def test_the_two_kinds_are_never_taken_for_each_other(tmp_path: Path) -> None:
    captions, classes = str(tmp_path / "captions"), str(tmp_path / "classes")
    captioned.write(captions, PAIRS)
    testsets.write(classes, SAMPLES, CLASSES, TEMPLATES)
    with pytest.raises(ValueError, match=r"of kind 'retrieval'.*a class for each image is needed"):
        testsets.read(captions)
    with pytest.raises(ValueError, match=r"no test set with captions .* dataset_type.txt is not there"):
        captioned.read(classes)
    with pytest.raises(ValueError, match="of another kind"):
        captioned.write(classes, PAIRS, split="train")
    with pytest.raises(ValueError, match="of another kind"):
        testsets.write(captions, SAMPLES, CLASSES, TEMPLATES, split="train")


@pytest.mark.parametrize(
    ("captions", "complaint"), [([], "image 1 has no caption"), (["good", " \n"], "image 1 has a blank caption")]
)
def test_an_image_without_a_caption_is_not_written(tmp_path: Path, captions: list[str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        captioned.write(str(tmp_path), [PAIRS[0], (picture(1), "png", captions)])
    assert not storage.exists(str(tmp_path / "test" / "nshards.txt"))


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ({"a.png": picture(0), "a.txt": b""}, "'a' has no caption"),
        ({"a.png": picture(0), "a.txt": b"caf\xe9"}, "'a' has captions that are not UTF-8"),
        ({"a.png": picture(0), "a.cls": b"1"}, "'a' is not an image with its captions in a .txt"),
        ({"a.png": b"x", "a.txt": b"x"}, "the image of 'a'"),
        ({}, "holds no images with captions"),
    ],
)
def test_a_wrong_one_is_refused_with_what_is_wrong(tmp_path: Path, members: dict[str, bytes], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        captioned.read(foreign(tmp_path, members))


@pytest.mark.parametrize("captions", ["table", "sidecar"])
def test_a_folder_with_several_captions_an_image_makes_one(tmp_path: Path, captions: str) -> None:
    for number in range(3):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / f"{number}.png").write_bytes(picture(number))
        (tmp_path / "images" / f"{number}.txt").write_text(f"first of {number}\n\nsecond of {number}\n")
    table = tmp_path / "table.tsv"
    table.write_text("".join(f"{n}.png\t{which} of {n}\n" for which in ("first", "second") for n in range(3)))
    given = {"captions_table": str(table)} if captions == "table" else {}
    source = Folder(path=str(tmp_path / "images"), captions=captions, **given)  # type: ignore[arg-type]
    last = Labelling(source=source, kind="captions", out=str(tmp_path / "out")).run()
    assert last == f"test set with captions, 6 captions of 3 images, at {tmp_path}/out"
    assert captioned.read(str(tmp_path / "out")).captions == tuple(
        (f"first of {n}", f"second of {n}") for n in range(3)
    )
    table.write_text(table.read_text().replace("first of 1", "another"))
    (tmp_path / "images" / "1.txt").write_text("another")
    with pytest.raises(ValueError, match="was made from other input: captions"):
        Labelling(source=source, kind="captions", out=str(tmp_path / "out")).run()


def test_classes_and_captions_are_not_asked_for_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give one of them"):
        Labelling(source=Folder(path="x"), kind="captions", classes="dtd", out="y")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a.png").write_bytes(picture(0))
    with pytest.raises(ValueError, match="are classes, not captions"):
        Folder(path=str(tmp_path), captions="folder").captioned(None, 0, "test")
    with pytest.raises(ValueError, match="test sets with captions are made from picturebook, folder or parquet"):
        Labelling(source=Cc3m(urls="t.tsv"), kind="captions", samples=3, out=str(tmp_path / "out")).run()
