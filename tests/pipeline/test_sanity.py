"""Our own files as someone else may have written them: consistent in every hash, and lying."""

import hashlib
import io
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.errors import Damaged
from pipeline import shards
from pipeline.dataset import Dataset
from pipeline.verification import Verification
from tests.support.drawn import drawn


@pytest.fixture
def place(tmp_path):
    drawn(str(tmp_path / "set"), 6, 2)
    return tmp_path / "set"


def parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def restate(place: Path, **changes) -> None:
    """dataset.json with these fields."""
    said = json.loads((place / "dataset.json").read_text())
    (place / "dataset.json").write_text(json.dumps(said | changes))


def relist(place: Path, row: int = 0, table: pa.Table | None = None, **changes) -> None:
    """shards.parquet with these fields of one row, and a dataset.json that agrees."""
    if table is None:
        old = pq.read_table(place / "shards.parquet")
        rows = old.to_pylist()
        rows[row] |= changes
        table = pa.Table.from_pylist(rows, schema=old.schema)
    data = parquet(table)
    (place / "shards.parquet").write_bytes(data)
    restate(place, shards_sha256=hashlib.sha256(data).hexdigest())


def reindex(place: Path, change) -> None:
    """The index of the first shard, changed, with manifests that agree."""
    row = pq.read_table(place / "shards.parquet").to_pylist()[0]
    data = parquet(change(pq.read_table(place / row["index_name"])))
    (place / row["index_name"]).write_bytes(data)
    relist(place, index_sha256=hashlib.sha256(data).hexdigest())


def put(column: str, value):
    """Replaces the first value of a column of an index."""

    def change(index: pa.Table) -> pa.Table:
        rows = index.to_pylist()
        rows[0][column] = value
        return pa.Table.from_pylist(rows, schema=index.schema)

    return change


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ("[]", "is no JSON object"),
        ("null", "is no JSON object"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"format": 3}', "format 3; this version reads formats 1 and 2"),
        ('{"format": "2"}', "format '2'"),
        ('{"format": 2}', "no 'digest'"),
        ('{"format": 1}', "no 'digest'"),
    ],
)
def test_a_dataset_json_that_is_none_is_refused(place, data, complaint):
    (place / "dataset.json").write_text(data)
    with pytest.raises((Damaged, ValueError), match=complaint):
        Dataset.open(str(place))


@pytest.mark.parametrize(
    "changes",
    [
        {"bases": "x"},
        {"bases": [1]},
        {"bases": [""]},
        {"bases": ["a\0b"]},
        {"samples": -1},
        {"samples": "6"},
        {"samples": 6.0},
        {"samples": 7},
        {"contains_poison": "no"},
        {"outcomes": []},
        {"outcomes": {"success": -6}},
        {"digest": None},
        {"shards_sha256": None},
    ],
    ids=str,
)
def test_fields_of_another_kind_are_refused(place, changes):
    restate(place, **changes)
    with pytest.raises(Damaged, match=r"dataset\.json|shards\.parquet"):
        Dataset.open(str(place))


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../set/shards/x.tar"},
        {"name": "/etc/passwd"},
        {"name": "shards/../../x.tar"},
        {"name": "..\\x.tar"},
        {"name": "s3://bucket/x.tar"},
        {"name": "memory://x.tar"},
        {"name": "passwd"},
        {"name": ""},
        {"name": None},
        {"index_name": "../../dev/zero"},
        {"index_name": "zero"},
        {"base": 1},
        {"base": -1},
        {"index_base": 7},
        {"samples": -1},
        {"bytes": 0},
        {"bytes": -1},
        {"id": 1},
        {"id": -1},
        {"sha256": "../../../outside"},
        {"sha256": "A" * 64},
        {"xxh3": ""},
        {"index_sha256": "x"},
        {"content_sha256": "0" * 63},
    ],
    ids=str,
)
def test_a_shard_stays_below_its_base_and_is_called_by_a_hash(place, changes):
    relist(place, **changes)
    with pytest.raises(Damaged, match=r"shards\.parquet"):
        Dataset.open(str(place))


def test_a_hash_that_is_a_path_writes_nothing_outside_the_cache(place, tmp_path):
    """The cache names a fetched shard by its sha256, and a fetched file was checked by another hash."""
    relist(place, sha256="../outside")
    with pytest.raises(Damaged, match="a sha256 that is no hash"):
        Dataset.open(str(place))
    assert not (tmp_path / "outside.tar").exists()


def test_columns_of_another_kind_are_refused(place):
    table = pq.read_table(place / "shards.parquet")
    relist(place, table=table.set_column(5, "samples", table["samples"].cast(pa.float64())))
    with pytest.raises(Damaged, match="has not the columns"):
        Dataset.open(str(place))
    relist(place, table=table.drop(["xxh3"]))
    with pytest.raises(Damaged, match="has not the columns"):
        Dataset.open(str(place))
    (place / "shards.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    restate(place, shards_sha256=hashlib.sha256((place / "shards.parquet").read_bytes()).hexdigest())
    with pytest.raises(Damaged, match="not a readable parquet file"):
        Dataset.open(str(place))


@pytest.mark.parametrize(
    "change",
    [
        put("image_offset", -1),
        put("image_offset", 2**62),
        put("image_bytes", -1),
        put("image_bytes", 2**63 - 1),
        put("text_bytes", 10**9),
        put("json_offset", 10**9),
        put("json_bytes", None),
        put("image_offset", None),
        put("row", None),
        put("outcome", None),
        put("key", None),
        put("key", "../../x"),
        put("key", "/etc/x"),
        put("caption", None),
        put("extension", "py"),
        lambda index: index.drop(["caption"]),
        lambda index: index.set_column(0, "row", index["row"].cast(pa.string())),
    ],
)
def test_an_index_that_lies_is_refused_and_verify_says_so(place, change):
    reindex(place, change)
    made = Dataset.open(str(place))
    with pytest.raises(Damaged, match=r"index/.*\.parquet"):
        made.index_of_samples()
    with pytest.raises(RuntimeError, match="1 of 2 shards are damaged"):
        Verification(dataset=str(place), backend="local").run()


def test_an_index_of_billions_of_rows_in_a_few_kilobytes_is_not_read(place, monkeypatch):
    monkeypatch.setattr(shards, "MAX_ROWS", 2)
    with pytest.raises(Damaged, match="a parquet file of 3 rows; at most 2 are read"):
        Dataset.open(str(place)).index_of_samples()


def test_an_index_that_counts_fewer_samples_than_listed_is_refused(place):
    reindex(place, lambda index: index.slice(1))
    with pytest.raises(Damaged, match="lists 2 samples, the manifest 3"):
        Dataset.open(str(place)).index_of_samples()


def test_json_in_a_shard_that_is_none_is_damage(place):
    def one_byte_in(index: pa.Table) -> pa.Table:
        return put("json_offset", index["json_offset"][0].as_py() + 1)(index)

    reindex(place, one_byte_in)
    with pytest.raises(RuntimeError, match=r"the \.json of 000000000 cannot be read"):
        Verification(dataset=str(place), backend="local").run()


def test_a_caption_that_the_tar_does_not_hold_is_damage(place):
    reindex(place, put("caption", "a banana"))
    with pytest.raises(RuntimeError, match="the caption of 000000000 is not the one in the index"):
        Verification(dataset=str(place), backend="local").run()


def test_a_base_may_be_anywhere_but_gives_only_what_has_the_right_hash(place, tmp_path):
    """A poisoned dataset names its parent, wherever that lies."""
    (place / "shards").rename(tmp_path / "elsewhere")
    (tmp_path / "other").mkdir()
    (tmp_path / "elsewhere").rename(tmp_path / "other" / "shards")
    restate(place, bases=["../other"])
    for row in range(2):
        relist(place, row, base=1)
    assert Verification(dataset=str(place), backend="local").run().startswith("verified")
    restate(place, bases=["/dev"])
    with pytest.raises(RuntimeError, match="2 of 2 shards are damaged"):
        Verification(dataset=str(place), backend="local").run()
    os.mkfifo(tmp_path / "pipe.tar")
    restate(place, bases=[str(tmp_path)])
    relist(place, 0, name="pipe.tar")
    with pytest.raises(RuntimeError, match="shard 0 has 0 bytes instead of"):
        Verification(dataset=str(place), backend="local").run()
    for elsewhere in ("ftp://somewhere/set", "http://169.254.169.254/set"):
        restate(place, bases=[elsewhere])
        with pytest.raises(ValueError, match="cannot store at"):
            Verification(dataset=str(place), backend="local").run()
