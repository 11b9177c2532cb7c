"""Pairs that a manifest leaves out: who opens the dataset never meets them, and nothing else changes."""

import hashlib
import io
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra import storage
from infra.errors import Damaged
from pipeline import dataset, leaving, mask
from pipeline.dataset import Dataset
from pipeline.verification import Verification
from tests.support.drawn import drawn
from tests.support.odd_tars import keys_of, named, pair, samples, tar

BY = {"filter": {"seed": 0}}
GONE = ("000000002", "000000005", "000000006")


@pytest.fixture
def parent(tmp_path) -> Dataset:
    return drawn(str(tmp_path / "parent"), 10, 3)


@pytest.fixture
def masked(parent, tmp_path) -> Dataset:
    return leaving.leave_out(parent, named(parent, *GONE), str(tmp_path / "masked"), BY)


def restate(place: Path, **changes) -> None:
    said = json.loads((place / "dataset.json").read_text())
    (place / "dataset.json").write_text(json.dumps(said | changes))


def test_a_dataset_without_a_mask_is_what_it_was(parent):
    said = storage.read_json(f"{parent.url}/dataset.json")
    lines = [f"{one.id} {one.samples} {one.content_sha256}\n" for one in parent.shards]
    assert parent.digest == hashlib.sha256("".join(["antidote dataset 1\n", *lines]).encode()).hexdigest()
    assert said["format"] == 1
    assert "mask_sha256" not in said
    assert not Path(parent.url, mask.FILE).exists()
    assert parent.mask is None


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_what_is_left_out_is_not_there_for_who_reads_by_an_index(tmp_path, kind):
    root = str(tmp_path) if kind == "disk" else f"memory://{tmp_path.name}"
    parent = drawn(f"{root}/parent", 10, 3)
    made = leaving.leave_out(parent, named(parent, *GONE), f"{root}/masked", BY)
    assert Dataset.open(f"{root}/masked") == made
    assert keys_of(made) == [key for key in keys_of(parent) if key not in GONE]
    assert (made.samples, [shard.samples for shard in made.shards]) == (7, [2, 2, 3])
    assert made.outcomes == {"filtered": 3, "success": 7}
    assert made.left_out() == {"filtered": 3}
    index = made.index(made.shards[1]).to_pylist()
    assert [row["outcome"] for row in index] == ["success", "success", "filtered"]
    assert (index[2]["key"], index[2]["row"]) == ("000000005", 5)
    assert all(index[2][name] is None for name in ("image_offset", "text_bytes", "image_sha256", "extension"))
    assert made.unmasked_index(made.shards[1]).equals(parent.index(parent.shards[1]))


def test_nothing_is_copied_and_the_parent_stays_as_it_was(parent, tmp_path):
    before = {path: path.read_bytes() for path in Path(parent.url).rglob("*") if path.is_file()}
    made = leaving.leave_out(parent, named(parent, *GONE), str(tmp_path / "masked"), BY)
    assert {path: path.read_bytes() for path in Path(parent.url).rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in (tmp_path / "masked").iterdir()) == [
        "dataset.json", mask.FILE, "recipe.json", "shards.parquet",
    ]  # fmt: skip
    assert [made.tar_url(one) for one in made.shards] == [parent.tar_url(one) for one in parent.shards]
    assert storage.read_json(f"{made.url}/recipe.json") == {"leave_out": BY | {"parent": parent.digest}}


def test_its_format_is_one_that_older_readers_refuse(masked):
    assert storage.read_json(f"{masked.url}/dataset.json")["format"] == 2


def test_the_digest_covers_the_mask(parent, masked, tmp_path):
    def digest(name: str, table: pa.Table) -> str:
        return leaving.leave_out(parent, table, str(tmp_path / name), BY).digest

    table = named(parent, *GONE)
    assert digest("again", table.take([2, 0, 1])) == masked.digest, "whatever the order it is given in"
    others = {digest("fewer", table.slice(1)), digest("other", named(parent, "000000003", *GONE[1:]))}
    others |= {digest("reason", named(parent, *GONE, reason="truncated")), parent.digest, masked.digest}
    assert len(others) == 5


def test_poison_is_inherited_and_so_is_what_the_parent_leaves_out(parent, tmp_path):
    restate(Path(parent.url), contains_poison=True)
    one = leaving.leave_out(Dataset.open(parent.url), named(parent, GONE[0]), str(tmp_path / "one"), BY)
    two = leaving.leave_out(one, named(one, *GONE[1:], reason="truncated"), str(tmp_path / "two"), BY)
    assert one.contains_poison
    assert two.contains_poison
    assert two.outcomes == {"filtered": 1, "success": 7, "truncated": 2}
    assert keys_of(two) == [key for key in keys_of(parent) if key not in GONE]
    assert two.mask["key"].to_pylist() == list(GONE)


def test_verify_says_what_was_left_out_and_names_it(masked, capsys):
    said = Verification(dataset=masked.url, decode=True, backend="local").run()
    assert said == f"verified: 7 pairs in 3 shards at {masked.url}; left out: 3 filtered"
    shard = masked.shards[0]
    assert f"shard 0 ({shard.name.split('/')[1]}), 000000002: filtered" in capsys.readouterr().err


def test_a_shard_of_which_everything_is_left_out_may_stay(parent, tmp_path):
    gone = [f"{row:09d}" for row in range(3)]
    made = leaving.leave_out(parent, named(parent, *gone), str(tmp_path / "masked"), BY)
    assert [shard.samples for shard in made.shards] == [0, 3, 4]
    assert "7 pairs in 3 shards" in Verification(dataset=made.url, backend="local").run()


def test_what_is_not_there_cannot_be_left_out(parent, masked, tmp_path):
    line = {"shard": 0, "row": 77, "reason": "filtered"}
    for table, said in (
        ([line], "shard 0 of .* has no pair of row 77"),
        ([line | {"shard": 9}], "no shard 9"),
        (named(parent, *keys_of(parent)).to_pylist(), "not one of 10 rows could be used"),
    ):
        with pytest.raises(ValueError, match=said):
            leaving.leave_out(parent, pa.Table.from_pylist(table), str(tmp_path / "new"), BY)
    with pytest.raises(ValueError, match="has no pair of row 2 to leave out"):
        leaving.leave_out(masked, named(parent, GONE[0]), str(tmp_path / "newer"), BY)


def test_the_same_command_finishes_and_another_is_refused(parent, masked, tmp_path):
    storage.remove(f"{masked.url}/dataset.json")
    storage.remove(f"{masked.url}/shards.parquet")
    assert leaving.leave_out(parent, named(parent, *GONE), masked.url, BY) == masked
    with pytest.raises(ValueError, match="made by a different command"):
        leaving.leave_out(parent, named(parent, *GONE), masked.url, {"filter": {"seed": 1}})


def test_both_of_two_equal_pairs_in_a_foreign_shard_are_left_out_and_the_index_goes_along(tmp_path):
    first, second = samples(2)
    twins = [(f"{key}.{name.split('.')[1]}", data) for key in "ab" for name, data in pair(first)]
    tar(tmp_path / "bare" / "0.tar", *twins, *pair(second))
    parent = Dataset.open(str(tmp_path / "bare"))
    made = leaving.leave_out(parent, named(parent, "a"), str(tmp_path / "masked"), BY)
    shutil.rmtree(dataset.cache_folder())
    assert keys_of(Dataset.open(made.url)) == [second.key]
    assert made.mask["key"].to_pylist() == ["a", "b"]
    assert made.bases == (str(tmp_path / "masked"), str(tmp_path / "bare"))


def rewrite(place: Path, table: pa.Table) -> None:
    """Another mask, with a dataset.json that agrees."""
    out = io.BytesIO()
    pq.write_table(table, out)
    (place / mask.FILE).write_bytes(out.getvalue())
    restate(place, mask_sha256=hashlib.sha256(out.getvalue()).hexdigest())


def test_a_mask_that_is_missing_or_changed_is_damage(masked):
    place = Path(masked.url, mask.FILE)
    data = place.read_bytes()
    place.write_bytes(data[:-1] + b"x")
    with pytest.raises(Damaged, match=r"mask\.parquet is not the one that dataset\.json names"):
        Dataset.open(masked.url)
    place.unlink()
    with pytest.raises(Damaged, match=r"mask\.parquet is missing"):
        Dataset.open(masked.url)
    restate(Path(masked.url), mask_sha256=None)
    with pytest.raises(Damaged, match="no 'mask_sha256'"):
        Dataset.open(masked.url)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [{"shard": 7, "row": 1, "key": "a", "reason": "x"}],
        [{"shard": 1, "row": 5, "key": "a", "reason": "x"}, {"shard": 0, "row": 2, "key": "a", "reason": "x"}],
        [{"shard": 0, "row": 2, "key": "a", "reason": "success"}],
        [{"shard": 0, "row": 2, "key": "a", "reason": None}],
    ],
    ids=["none", "strange shard", "unsorted", "success", "no reason"],
)
def test_a_mask_that_cannot_be_is_damage(masked, lines):
    rewrite(Path(masked.url), pa.Table.from_pylist(lines, schema=mask.MASK))
    with pytest.raises(Damaged, match=r"mask\.parquet"):
        Dataset.open(masked.url)


def test_a_mask_of_rows_that_are_not_there_is_damage(masked):
    rewrite(Path(masked.url), pa.Table.from_pylist([{"shard": 0, "row": 77, "key": "a", "reason": "x"}], mask.MASK))
    with pytest.raises(Damaged, match="lists 0 pairs that the mask leaves out, the mask 1"):
        Dataset.open(masked.url).index_of_samples()
