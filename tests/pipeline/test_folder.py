import os

import numpy as np
import pytest

from pipeline import images, testsets
from pipeline.dataset import Dataset
from pipeline.labelling import Labelling
from pipeline.preparation import Preparation
from pipeline.sources.folder import Folder
from tests.support.drawn import samples
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
