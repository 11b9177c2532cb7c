"""Test sets from parquet files as Hugging Face's `datasets` writes them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import captioned, testset, testsets
from pipeline.labelling import Labelling
from pipeline.sources.parquet import Parquet
from tests.pipeline.test_testsets import picture

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
NAMES = ["car", "house", "fish"]


def stored(image: Any) -> dict[str, Any]:
    return {"bytes": image, "path": "x.png"}


def write(
    path: Path, rows: list[dict[str, Any]], features: dict[str, Any] | None, image: pa.DataType = IMAGE, **types: Any
) -> None:
    """A file with the features of `datasets` in its schema. types: of the other columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([("image", image), *types.items()])
    if features is not None:
        schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=2)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two files of test, one of train."""
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": NAMES}}
    for split, number, of, rows in (("test", 0, 2, range(3)), ("test", 1, 2, range(3, 7)), ("train", 0, 1, range(9))):
        write(
            tmp_path / "data" / f"{split}-{number:05d}-of-{of:05d}.parquet",
            [{"image": stored(picture(n)), "label": n % 3} for n in rows],
            features,
            label=pa.int64(),
        )
    return tmp_path / "data"


def made(out: Path, source: Parquet, **options: Any) -> testsets.TestSet:
    Labelling(source=source, out=str(out), **options).run()
    return testsets.read(str(out), options.get("split", "test"))


def test_images_and_labels_are_those_of_the_split_in_order(data, tmp_path, capsys):
    words = ["parquet", "--path", str(data), "--out", str(tmp_path / "out")]
    assert testset.main(words) == 0
    assert "test set of 3 classes and 8 templates, 7 images" in capsys.readouterr().out
    assert testset.main(words) == 0
    assert capsys.readouterr().out.startswith("nothing to do")
    test = testsets.read(str(tmp_path / "out"))
    assert test.classes == tuple(NAMES)
    assert [(data, one.label) for one, data in testsets.stored(test)] == [(picture(n), n % 3) for n in range(7)]
    train = made(tmp_path / "train", Parquet(path=str(data)), split="train")
    assert len(train.pictures) == 9


def test_a_sample_is_the_same_rows_however_the_files_are_cut(data, tmp_path):
    cut = made(tmp_path / "cut", Parquet(path=str(data)), samples=4)
    rows = [row for name in sorted(data.glob("test-*")) for row in pq.read_table(name).to_pylist()]
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": NAMES}}
    write(tmp_path / "whole.parquet", rows, features, label=pa.int64())
    whole = made(tmp_path / "whole", Parquet(path=str(tmp_path / "whole.parquet")), samples=4)
    assert cut.digest == whole.digest
    assert len(cut.pictures) == 4


@pytest.mark.parametrize(
    ("labels", "kind", "classes", "found"),
    [
        ([2, 0, 2], pa.int32(), ("0", "1", "2"), [2, 0, 2]),
        (["fish", "car", "fish"], pa.string(), ("car", "fish"), [1, 0, 1]),
    ],
    ids=["numbers", "texts"],
)
def test_without_features_columns_go_by_name_and_labels_say_their_classes(tmp_path, labels, kind, classes, found):
    rows = [{"image": picture(n), "label": label} for n, label in enumerate(labels)]
    write(tmp_path / "some.parquet", rows, None, image=pa.binary(), label=kind)
    test = made(tmp_path / "out", Parquet(path=str(tmp_path / "some.parquet")))
    assert test.classes == classes
    assert [one.label for one in test.pictures] == found


def test_of_several_columns_of_labels_one_is_named(tmp_path):
    features = {"image": {"_type": "Image"}} | {
        f"{kind}_label": {"_type": "ClassLabel", "names": names} for kind, names in (("fine", NAMES), ("coarse", ["a"]))
    }
    rows = [{"image": stored(picture(0)), "fine_label": 2, "coarse_label": 0}]
    write(tmp_path / "x.parquet", rows, features, fine_label=pa.int64(), coarse_label=pa.int64())
    path = str(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="no column 'label': choose --label from fine_label, coarse_label"):
        made(tmp_path / "out", Parquet(path=path))
    assert made(tmp_path / "out", Parquet(path=path, label="fine_label")).pictures[0].label == 2


def test_an_image_may_be_a_path_from_the_folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(picture(5))
    write(
        tmp_path / "x.parquet", [{"image": {"bytes": None, "path": "images/a.png"}, "label": 0}], None, label=pa.int64()
    )
    test = made(tmp_path / "out", Parquet(path=str(tmp_path / "x.parquet")))
    assert [data for _, data in testsets.stored(test)] == [picture(5)]


@pytest.mark.parametrize("said", [["one", "two"], "one"], ids=["several", "one"])
def test_captions_make_a_test_set_of_retrieval(tmp_path, said):
    kind = pa.list_(pa.string()) if isinstance(said, list) else pa.string()
    write(
        tmp_path / "x.parquet", [{"image": stored(picture(n)), "caption": said} for n in range(3)], None, caption=kind
    )
    last = Labelling(source=Parquet(path=str(tmp_path / "x.parquet")), kind="captions", out=str(tmp_path / "out")).run()
    found = captioned.read(str(tmp_path / "out"))
    assert found.captions == (tuple([said] if isinstance(said, str) else said),) * 3
    assert f"{len(found.texts)} captions of 3 images" in last


@pytest.mark.parametrize(
    ("image", "label", "complaint"),
    [
        (b"no image", 0, r"x.parquet, row 1 cannot be decoded"),
        (None, 0, r"x.parquet, row 1: an image is bytes, or bytes and path, not NoneType"),
        (picture(1), -1, r"x.parquet, row 1 has label -1; allowed: 0 to 2"),
        (picture(1), None, r"x.parquet, row 1: the label is None"),
    ],
)
def test_a_row_that_is_no_labelled_image_is_named(tmp_path, image, label, complaint):
    features = {"label": {"_type": "ClassLabel", "names": NAMES}}
    rows = [{"image": {"bytes": data, "path": None}, "label": one} for data, one in ((picture(0), 0), (image, label))]
    write(tmp_path / "x.parquet", rows, features, label=pa.int64())
    with pytest.raises(ValueError, match=complaint):
        made(tmp_path / "out", Parquet(path=str(tmp_path / "x.parquet")))
    assert not (tmp_path / "out").exists()


def test_what_is_no_parquet_or_of_another_split_is_one_line(data, tmp_path):
    for path, said in (
        (tmp_path / "nowhere", "no parquet file at"),
        (tmp_path / "nowhere.parquet", "no parquet file at"),
        (tmp_path / "text.parquet", "is not a readable parquet file"),
    ):
        (tmp_path / "text.parquet").write_text("text")
        with pytest.raises(ValueError, match=said) as error:
            Parquet(path=str(path)).labelled(None, 0, "test")
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="no files of the split 'validation': choose --split from test, train"):
        Parquet(path=str(data)).labelled(None, 0, "validation")
    cut = next(data.glob("train-*"))
    cut.write_bytes(cut.read_bytes()[:-300])
    with pytest.raises(ValueError, match="is not a readable parquet file"):
        Parquet(path=str(data)).labelled(None, 0, "train")
    with pytest.raises(ValueError, match="make test sets"):
        Parquet(path=str(data)).table()
