import os
from dataclasses import replace

import numpy as np
import pytest

from infra import storage
from pipeline import dataset, images, testsets
from pipeline.dataset import Dataset
from pipeline.labelling import Labelling
from pipeline.preparation import Preparation
from pipeline.shards import write_shard
from pipeline.sources.cc3m import Cc3m
from pipeline.sources.folder import Folder
from pipeline.sources.picturebook import Picturebook
from tests.support.drawn import drawn, samples
from tests.support.hostile_pictures import encoded, picture, zeros_png


@pytest.fixture
def folder(tmp_path):
    for number, sample in enumerate(samples(12)):
        place = tmp_path / "pictures" / ("tabby_cat" if number % 2 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:02d}.jpg").write_bytes(sample.image)
    return tmp_path / "pictures"


def prepare(out, source, **more):
    Preparation(source=source, out=str(out), backend="local", rows_per_shard=5, **more).run()
    return Dataset.open(str(out))


def test_folder_names_become_captions(tmp_path, folder):
    made = prepare(tmp_path / "out", Folder(path=str(folder), captions="folder"))
    captions = made.index_of_samples(["caption"])["caption"].to_pylist()
    assert made.samples == 12
    assert sum("tabby cat" in caption for caption in captions) == 6
    assert len(set(captions)) > 4, "templates vary"


def test_sidecar_texts_and_tables_are_read_and_missing_ones_named(tmp_path, folder):
    with pytest.raises(ValueError, match="has no caption beside it"):
        Folder(path=str(folder)).table()
    for path in folder.rglob("*.jpg"):
        path.with_suffix(".txt").write_text(f"number {path.stem}\n")
    assert Folder(path=str(folder)).table()["caption"].to_pylist()[0] == "number 00"
    table = tmp_path / "captions.tsv"
    table.write_text("dog/00.jpg\tfirst\n")
    with pytest.raises(ValueError, match=r"no caption for 11 images, dog/02\.jpg the first"):
        Folder(path=str(folder), captions="table", captions_table=str(table)).table()
    with pytest.raises(ValueError, match="go together"):
        Folder(path=str(folder), captions="table")


def test_small_pictures_keep_their_bytes_and_large_ones_are_shrunk(tmp_path, folder):
    large = np.zeros((300, 600, 3), np.uint8)
    (folder / "dog" / "large.png").write_bytes(images.encode(large, "png"))
    (folder / "dog" / "zbroken.jpg").write_bytes(b"not an image")
    made = prepare(tmp_path / "out", Folder(path=str(folder), captions="folder"), image_size=100)
    rows = {row["url"].rsplit("/", 1)[1]: row for row in made.index_of_samples().to_pylist()}
    assert (rows["large.png"]["width"], rows["large.png"]["height"]) == (200, 100)
    assert rows["00.jpg"]["image_sha256"] == rows["00.jpg"]["source_sha256"]
    assert made.outcomes == {"not_an_image": 1, "success": 13}


def test_what_is_no_plain_file_or_a_bomb_is_counted_and_not_waited_for(tmp_path, folder):
    os.mkfifo(folder / "dog" / "pipe.jpg")
    (folder / "dog" / "endless.jpg").symlink_to("/dev/zero")
    (folder / "dog" / "large.jpg").write_bytes(b"")
    os.truncate(folder / "dog" / "large.jpg", 1 << 40)
    (folder / "dog" / "bomb.png").write_bytes(zeros_png(50_000, 1, 0))
    (folder / "dog" / "phone.jpg").write_bytes(encoded(picture(32), "MPO", save_all=True, append_images=[picture(16)]))
    made = prepare(tmp_path / "out", Folder(path=str(folder), captions="folder"))
    assert made.outcomes == {"not_an_image": 3, "success": 13, "too_many_pixels": 1}
    os.mkfifo(folder / "dog" / "00.txt")
    with pytest.raises(ValueError, match=r"00\.txt is not a plain file"):
        Folder(path=str(folder)).table()


def test_a_limit_and_its_complement_share_no_row(tmp_path, folder):
    source = Folder(path=str(folder), captions="folder")
    part = prepare(tmp_path / "part", source, limit=8)
    rest = prepare(tmp_path / "rest", source, disjoint_from=(str(tmp_path / "part"),))
    rows = [set(made.index_of_samples(["row"])["row"].to_pylist()) for made in (part, rest)]
    assert (len(rows[0]), len(rows[1])) == (8, 4)
    assert not rows[0] & rows[1]
    with pytest.raises(ValueError, match="limit is 13, but only 12 rows"):
        prepare(tmp_path / "more", source, limit=13)


def test_a_test_set_has_the_folders_as_classes(tmp_path, folder):
    run = Labelling(source=Folder(path=str(folder), captions="folder"), out=str(tmp_path / "test")).run
    assert run().startswith("test set of 2 classes")
    assert run().startswith("nothing to do")
    made = testsets.read(str(tmp_path / "test"))
    assert made.classes == ("dog", "tabby cat")
    assert [picture.label for picture in made.pictures] == [0] * 6 + [1] * 6


def test_no_test_set_is_made_of_damaged_pictures_and_the_first_file_is_named(tmp_path, folder):
    """A test set is not quietly made smaller: its size is part of what it means. Once mended, the command goes on."""
    damaged = [folder / "dog" / "04.jpg", folder / "dog" / "08.jpg", folder / "tabby_cat" / "11.jpg"]
    whole = {path: path.read_bytes() for path in damaged}
    damaged[0].write_bytes(whole[damaged[0]][:-100])
    damaged[1].write_bytes(b"")
    damaged[2].write_bytes(b"<html>not found</html>")
    run = Labelling(source=Folder(path=str(folder), captions="folder"), out=str(tmp_path / "test")).run
    for _ in range(2):
        with pytest.raises(ValueError, match=r"dog/04\.jpg cannot be decoded \(.*truncated.*\); nor can 2 more: rep"):
            run()
    assert not testsets.is_complete(str(tmp_path / "test"))
    for path, data in whole.items():
        path.write_bytes(data)
    assert run().startswith("test set of 2 classes")
    assert len(testsets.read(str(tmp_path / "test")).pictures) == 12


def test_a_folder_without_pictures_says_so(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images"):
        Folder(path=str(tmp_path / "empty")).table()


# What its result depends on


def corrected(folder):
    """Sidecar captions for every image; returns a function that corrects the one of the first."""
    for path in folder.rglob("*.jpg"):
        path.with_suffix(".txt").write_text(f"number {path.stem}\n")
    return lambda: (folder / "dog" / "00.txt").write_text("corrected\n")


def interrupted(out, source, monkeypatch, after=1):
    """A preparation that ends after so many shards."""
    commit, made = dataset.commit, []

    def once(*given):
        if len(made) == after:
            raise KeyboardInterrupt
        made.append(given)
        return commit(*given)

    with monkeypatch.context() as patched:
        patched.setattr(dataset, "commit", once)
        with pytest.raises(KeyboardInterrupt):
            prepare(out, source)


def test_corrected_captions_are_not_mixed_with_those_from_before(tmp_path, folder, monkeypatch):
    correct, source = corrected(folder), Folder(path=str(folder))
    interrupted(tmp_path / "out", source, monkeypatch)
    correct()
    with pytest.raises(ValueError, match=r"out exists and was made from other input: captions changed since .*--out"):
        prepare(tmp_path / "out", source)
    assert prepare(tmp_path / "new", source).index_of_samples()["caption"].to_pylist()[0] == "corrected"


def test_what_is_finished_is_not_taken_for_what_the_folder_holds_now(tmp_path, folder):
    correct, source = corrected(folder), Folder(path=str(folder))
    prepare(tmp_path / "out", source)
    prepare(tmp_path / "out", source)  # nothing to do
    correct()
    with pytest.raises(ValueError, match="captions changed since"):
        prepare(tmp_path / "out", source)


def test_a_changed_captions_table_is_other_input(tmp_path, folder):
    table = tmp_path / "captions.tsv"
    lines = [f"{path.relative_to(folder)}\tnumber {path.stem}\n" for path in sorted(folder.rglob("*.jpg"))]
    table.write_text("".join(lines))
    source = Folder(path=str(folder), captions="table", captions_table=str(table))
    prepare(tmp_path / "out", source)
    table.write_text("".join(reversed(lines)))  # the same captions
    prepare(tmp_path / "out", source)
    table.write_text("".join(lines).replace("number 03", "number three"))
    with pytest.raises(ValueError, match="captions changed since"):
        prepare(tmp_path / "out", source)


@pytest.mark.parametrize("how", ["replaced", "added", "removed"])
def test_another_image_is_other_input(tmp_path, folder, monkeypatch, how):
    source = Folder(path=str(folder), captions="folder")
    interrupted(tmp_path / "out", source, monkeypatch)
    first, other = sorted(folder.rglob("*.jpg"))[:2]
    match how:
        case "replaced":
            first.write_bytes(other.read_bytes())
        case "added":
            (folder / "dog" / "zz.jpg").write_bytes(other.read_bytes())
        case "removed":
            first.unlink()
    with pytest.raises(ValueError, match=r"was made from other input: (captions and )?images changed since"):
        prepare(tmp_path / "out", source)


def test_what_is_passed_over_does_not_matter(tmp_path, folder):
    source = Folder(path=str(folder), captions="folder")
    prepare(tmp_path / "out", source)
    (folder / "dog" / "._00.jpg").write_bytes(b"x")
    (folder / "notes.md").write_text("x")
    prepare(tmp_path / "out", source)


def test_a_test_set_to_which_a_class_was_added_is_not_there_already(tmp_path, folder):
    run = Labelling(source=Folder(path=str(folder)), out=str(tmp_path / "test")).run
    run()
    (folder / "ape").mkdir()
    (folder / "ape" / "1.jpg").write_bytes((folder / "dog" / "00.jpg").read_bytes())
    with pytest.raises(ValueError, match=r"test exists and was made from other input: images changed since"):
        run()


# Hidden files, and files of other kinds


def test_hidden_files_and_folders_are_no_data(tmp_path, folder, capsys):
    source = Folder(path=str(folder), captions="folder")
    before = source.table()
    image = (folder / "dog" / "00.jpg").read_bytes()
    for name in (".ipynb_checkpoints/00.jpg", "dog/.ipynb_checkpoints/00.jpg", "dog/._00.jpg", "__MACOSX/dog/00.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(image)
    (folder / "dog" / "Thumbs.db").write_bytes(b"x")
    assert source.table().equals(before)
    assert source.labelled(None, 0, "test").classes == ("dog", "tabby cat")
    assert capsys.readouterr().err.count("passed over 5 hidden files in ") == 2  # one line for each of the two
    corrected(folder)
    assert Folder(path=str(folder)).table().num_rows == 12


def test_files_of_other_kinds_are_counted_by_ending_in_one_line(tmp_path, folder, capsys):
    corrected(folder)
    for name in ("a.gif", "dog/b.GIF", "c.heic", "dog/d.tiff", "stray.txt", "README"):
        (folder / name).write_bytes(b"x")
    assert Folder(path=str(folder)).table().num_rows == 12
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("(images are .jpg, .jpeg, .png, .webp, .jfif; convert others to PNG)")
    assert ": 2 .gif, " in line and all(f"1 {kind}" in line for kind in (".heic", ".tiff", ".txt", "without an ending"))
    with pytest.raises(ValueError, match="no images"):
        Folder(path=str(folder / "none")).table()


def test_a_jfif_is_a_jpeg(tmp_path, folder):
    for path in folder.rglob("*.jpg"):
        path.rename(path.with_suffix(".JFIF"))
    source = Folder(path=str(folder), captions="folder")
    made = prepare(tmp_path / "out", source)
    assert (made.samples, set(made.index_of_samples()["extension"].to_pylist())) == (12, {"jpg"})
    Labelling(source=source, out=str(tmp_path / "test")).run()
    assert {picture.extension for picture in testsets.read(str(tmp_path / "test")).pictures} == {"jpg"}


def test_a_name_that_is_not_utf_8_is_said_in_one_line(tmp_path, folder):
    os.rename(folder / "dog" / "00.jpg", os.fsencode(folder) + b"/dog/caf\xe9.jpg")
    with pytest.raises(ValueError, match=r"holds the image 'dog/caf\\udce9\.jpg', whose name is not UTF-8: rename it"):
        Folder(path=str(folder), captions="folder").table()


# Captions as people write them


def test_captions_are_read_as_people_write_them(tmp_path, folder):
    paths = sorted(folder.rglob("*.jpg"))
    said = "a cat\u2028on a\u0085mat\fagain"
    for path in paths:
        path.with_suffix(".txt").write_bytes(f"\ufeff{said}\r\n".encode())
    assert set(Folder(path=str(folder)).table()["caption"].to_pylist()) == {said}
    table = tmp_path / "captions.tsv"
    lines = "".join(f"{path.relative_to(folder)}\t{said}\r\n" for path in paths)
    table.write_bytes(f"\ufeff{lines}".encode())
    source = Folder(path=str(folder), captions="table", captions_table=str(table))
    assert set(source.table()["caption"].to_pylist()) == {said}


def test_captions_that_are_not_utf_8_are_named_with_how_to_convert_them(tmp_path, folder):
    corrected(folder)
    (folder / "dog" / "00.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match=r"dog/00\.txt, line 1: not UTF-8 .*; convert it with iconv"):
        Folder(path=str(folder)).table()


def test_a_captions_table_says_what_of_it_is_not_used(tmp_path, folder, capsys):
    table = tmp_path / "captions.tsv"
    lines = [f"{path.relative_to(folder)}\tnumber {path.stem}\n" for path in sorted(folder.rglob("*.jpg"))]
    source = Folder(path=str(folder), captions="table", captions_table=str(table))
    table.write_text("".join([*lines, "dog/gone.jpg\ta dog\n", "cat.jpg\ta cat\n"]))
    source.table()
    assert "has 2 paths of no image in" in capsys.readouterr().err
    for wrong, said in (
        ("dog/00.jpg\ta dog\tsunny\n", "line 13: 3 columns where path TAB caption is expected"),
        ("\n", "line 13: 1 columns where"),
        ("dog/00.jpg\ta wolf\n", r"line 13: dog/00\.jpg has another caption in an earlier line"),
    ):
        table.write_text("".join([*lines, wrong]))
        with pytest.raises(ValueError, match=said):
            source.table()


# Disjointness


def images_of(made):
    return set(made.index_of_samples(["image_sha256"])["image_sha256"].to_pylist())


def test_after_an_image_was_added_the_clean_set_still_holds_no_training_image(tmp_path, folder, capsys):
    source = Folder(path=str(folder), captions="folder")
    train = prepare(tmp_path / "train", source, limit=8)
    new = samples(1, first=100)[0].image
    (folder / "aardvark").mkdir()
    (folder / "aardvark" / "new.jpg").write_bytes(new)  # the first of all: every other row id goes up by one
    (folder / "dog" / "00.jpg").rename(folder / "dog" / "99.jpg")
    clean = prepare(tmp_path / "clean", source, disjoint_from=(train.url,))
    assert clean.samples == 5
    assert not images_of(clean) & images_of(train)
    assert "8 of 13 rows are in " in capsys.readouterr().err
    assert prepare(tmp_path / "clean", source, disjoint_from=(train.url,)) == clean  # the same command, nothing to do


def test_a_dataset_of_another_source_takes_no_rows_by_their_numbers(tmp_path, folder):
    other = tmp_path / "others" / "dog"
    other.mkdir(parents=True)
    for number, sample in enumerate(samples(6, first=50)):
        (other / f"{number:02d}.jpg").write_bytes(sample.image)
    (other / "00.jpg").write_bytes((folder / "dog" / "02.jpg").read_bytes())  # one image of both
    train = prepare(tmp_path / "train", Folder(path=str(tmp_path / "others"), captions="folder"))
    clean = prepare(
        tmp_path / "clean", Folder(path=str(folder), captions="folder"), image_size=16, disjoint_from=(train.url,)
    )
    assert clean.samples == 11
    sources = [set(made.index_of_samples()["source_sha256"].to_pylist()) for made in (clean, train)]
    assert not sources[0] & sources[1]


def test_what_cannot_be_compared_is_refused_with_what_to_do(tmp_path, folder):
    source = Folder(path=str(folder), captions="folder")
    train = prepare(tmp_path / "train", source)
    table = tmp_path / "t.tsv"
    table.write_text("a cat\thttp://127.0.0.1:9/x.jpg\n")
    for wanted in (Cc3m(urls=str(table)), Picturebook(rows=5)):
        with pytest.raises(ValueError, match=r"is of another table, .* pairs without a url: .* prepare both from one"):
            prepare(tmp_path / "clean", wanted, disjoint_from=(train.url,))
    (tmp_path / "bare").mkdir()
    write_shard(tmp_path / "bare" / "0.tar", [replace(pair, meta={}) for pair in samples(3)])
    with pytest.raises(ValueError, match="does not say of what files its images were made"):
        prepare(tmp_path / "clean", source, disjoint_from=(str(tmp_path / "bare"),))
    poisoned = drawn(str(tmp_path / "poisoned"), 4, 1)
    said = storage.read_json(f"{poisoned.url}/dataset.json")
    storage.write_json(f"{poisoned.url}/dataset.json", said | {"contains_poison": True})
    with pytest.raises(ValueError, match=r"contains poison, which hides .* name the dataset it was made from instead"):
        prepare(tmp_path / "clean", source, disjoint_from=(poisoned.url,))
    assert not (tmp_path / "clean").exists()
