"""Class names and templates of well-known sets, put on images that somebody brings."""

from pathlib import Path

import pytest

from infra import config
from pipeline import naming, testsets
from pipeline.labelling import Labelling
from pipeline.sources.folder import Folder
from tests.pipeline.test_testsets import picture

COUNTS = {
    "caltech101": 102,
    "cifar10": 10,
    "cifar100": 100,
    "dtd": 47,
    "flowers": 102,
    "food101": 101,
    "gtsrb": 43,
    "imagenet1k": 1000,
    "pets": 37,
    "stl10": 10,
    "svhn": 10,
}


def folders(root: Path, *names: str) -> Folder:
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        (root / name / "a.png").write_bytes(picture(number))
    return Folder(path=str(root), captions="folder")


@pytest.mark.parametrize("name", COUNTS)
def test_every_set_has_all_its_classes_each_once_and_templates(name):
    found = naming.known(name)
    assert len(found.names) == len(found.folders or found.names) == COUNTS[name]
    assert found.templates and all("{c}" in template for template in found.templates)
    assert all(word == word.strip() and word for word in (*found.names, *found.templates))
    words = found.folders or found.names
    assert naming.matched(words, found, numbered=False) == list(range(COUNTS[name])), "no two are spelled alike"
    assert naming.sets() == sorted(COUNTS)


def test_the_lists_are_those_that_the_libraries_have():
    torchvision = pytest.importorskip("torchvision.datasets")
    ours = naming.known("flowers").names
    assert sum(one != other for one, other in zip(ours, torchvision.Flowers102.classes, strict=True)) == 3
    assert naming.known("imagenet1k").names[954] == "banana"
    assert naming.known("imagenet1k").folders[954] == "n07753592"
    assert len(naming.known("imagenet1k").templates) == 80


def test_a_folder_of_some_synsets_gets_imagenets_labels_names_and_prompts(tmp_path):
    source = folders(tmp_path / "some", "n07753592", "n01440764")
    last = Labelling(source=source, classes="imagenet1k", out=str(tmp_path / "out")).run()
    assert "test set of 1000 classes and 80 templates, 2 images" in last
    test = testsets.read(str(tmp_path / "out"))
    assert [test.classes[one.label] for one in test.pictures] == ["tench", "banana"]


@pytest.mark.parametrize(
    ("name", "words", "labels"),
    [
        ("gtsrb", ["00000", "00042"], [0, 42]),
        ("svhn", ["9", "0"], [9, 0]),
        ("flowers", ["1", "102"], [0, 101]),
        ("flowers", ["0", "101"], [0, 101]),
        ("food101", ["apple_pie", "Cheese Plate"], [0, 16]),
        ("caltech101", ["BACKGROUND_Google", "yin_yang", "leopard"], [0, 101, 3]),
        ("pets", ["american_bulldog", "Yorkshire Terrier"], [1, 36]),
        ("cifar10", ["truck", "unicorn"], [9, None]),
        ("cifar10", ["10"], [None]),
    ],
)
def test_a_class_is_known_by_its_number_or_by_its_name_however_it_is_spelled(name, words, labels):
    assert naming.matched(words, naming.known(name), numbered=False) == labels


def test_numbered_classes_go_by_their_place_unless_a_name_stands_elsewhere():
    known = naming.known("cifar10")
    long = [f"{name}, a thing" for name in known.names]
    assert naming.matched([*long[:9], "truck"], known, numbered=True) == list(range(10))
    assert naming.matched([*long[:9], "truck"], known, numbered=False)[:9] == [None] * 9
    assert naming.matched(["truck", *long[1:]], known, numbered=True)[0] == 9, "so the order is another one"
    assert naming.matched(["truck", *long[1:]], known, numbered=True)[1] is None


def test_a_class_that_the_set_does_not_have_is_named_with_those_near_to_it(tmp_path):
    source = folders(tmp_path / "some", "truk", "dog", "unicorn")
    with pytest.raises(ValueError, match=r"cifar10 has no class 'truk' and 1 more; it has 10, e.g. truck"):
        Labelling(source=source, classes="cifar10", out=str(tmp_path / "out")).run()
    with pytest.raises(
        ValueError, match="no class names are known of 'cifar'; --classes is one of caltech101, cifar10"
    ):
        Labelling(source=source, classes="cifar", out=str(tmp_path / "out")).run()
    assert not (tmp_path / "out").exists()


def test_the_same_folder_with_other_class_names_is_refused(tmp_path):
    source = folders(tmp_path / "some", "dog", "cat")
    Labelling(source=source, out=str(tmp_path / "out")).run()
    with pytest.raises(ValueError, match="was made by a different command"):
        Labelling(source=source, classes="cifar10", out=str(tmp_path / "out")).run()
    labelling = Labelling(source=source, classes="cifar10", out=str(tmp_path / "other"))
    assert config.from_json(Labelling, config.to_json(labelling)) == labelling
