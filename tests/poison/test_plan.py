import hashlib
import json
import shutil
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra import storage
from infra.errors import Damaged
from pipeline import shards
from pipeline.dataset import Dataset, Shard
from poison.attack import Attack
from poison.attacks.badnet import BadNet
from poison.choosing import captions, indexes, plan
from tests.support.poison_helpers import build, caption, failed, pair


@dataclass(frozen=True, kw_only=True)
class Adding(Attack):
    """Puts in pairs of its own."""

    adds: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class First(Attack):
    """Takes the first rows it sees, and reads no further."""

    def choose(self, index: Iterable[pa.Table], budget: int, seed: int, taken: object) -> np.ndarray:
        part = next(iter(index))
        assert part.column_names == ["row", "key", "caption"]
        return np.sort(part["row"].to_numpy()[:budget])


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """96 rows in 8 shards; 10 failed; of the others 12 name the target."""
    return build(str(tmp_path_factory.mktemp("plan") / "clean"))


@pytest.fixture(scope="module")
def sharded(clean: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:
    root = tmp_path_factory.mktemp("sharded")
    return [clean, *(build(str(root / str(size)), per_shard=size) for size in (5, 96))]


def test_the_plan_is_the_same_rows_and_captions_however_the_source_is_sharded(sharded: list[Dataset]):
    plans = [plan.make(one, BadNet(captions=kind), 20, 0) for one in sharded for kind in ("template", "corpus")]
    for kind in (0, 1):
        ours = plans[kind::2]
        assert ours[0].captions == ours[1].captions == ours[2].captions
        assert all(sorted(row for rows in one.shards.values() for row in rows) == sorted(one.captions) for one in ours)
    assert plans[0].captions.keys() == plans[1].captions.keys()


def test_rows_that_failed_or_that_name_the_target_are_never_chosen(clean: Dataset):
    made = plan.make(clean, BadNet(), 74, 0)  # 96 less 10 failures less 12 bananas
    assert len(made.captions) == 74
    assert not [row for row in made.captions if failed(row) or row % 8 == 0]


def test_each_row_lies_in_the_shard_that_the_plan_says(clean: Dataset):
    made = plan.make(clean, BadNet(), 20, 0)
    assert all(row // 12 == shard for shard, rows in made.shards.items() for row in rows)
    assert made.samples == 20
    assert set(made.captions_in(next(iter(made.shards)))) == set(next(iter(made.shards.values())))


def test_seeds_differ(clean: Dataset):
    assert plan.make(clean, BadNet(), 20, 0).captions.keys() != plan.make(clean, BadNet(), 20, 1).captions.keys()


@pytest.mark.parametrize(
    ("kind", "whole", "confined"),
    [("template", "6c78e8aa88eaae45", "147afd560be02e78"), ("corpus", "ec889751c6bd0751", "891613fb37eb72ba")],
)
def test_a_plan_of_today_is_the_plan_of_the_first_version(clean: Dataset, kind: str, whole: str, confined: str):
    def digest(made: plan.Plan) -> str:
        said = [list(made.captions.items()), sorted(made.shards.items())]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]

    assert digest(plan.make(clean, BadNet(captions=kind), 20, 3)) == whole
    assert digest(plan.make(clean, BadNet(captions=kind), 6, 3, {1, 8}, share_of_shards=0.3)) == confined


def test_a_share_of_the_shards_confines_the_poisons(clean: Dataset):
    made = plan.make(clean, BadNet(), 10, 0, share_of_shards=0.25)
    assert len(made.shards) == 2
    assert made.samples == 10
    with pytest.raises(ValueError, match=r"budget of 60 pairs .* raise --share-of-shards"):
        plan.make(clean, BadNet(), 60, 0, share_of_shards=0.25)


def test_corpus_captions_are_those_of_the_dataset_without_earlier_poisons(clean: Dataset):
    made = plan.make(clean, BadNet(captions="corpus"), 60, 0, taken={0, 8})
    wanted = {caption(row) for row in range(16, 96, 8)}
    assert set(made.captions.values()) == wanted
    template = plan.make(clean, BadNet(), 60, 0)
    assert set(template.captions.values()) <= {text.format("banana") for text in captions.TEMPLATES}


@pytest.mark.parametrize("kind", ["template", "corpus"])
def test_a_target_that_does_not_occur_is_refused(clean: Dataset, kind: str):
    with pytest.raises(ValueError, match=r"no caption .* names the target 'bananna'"):
        plan.make(clean, BadNet(target="bananna", captions=kind), 10, 0)


def test_a_fixed_caption_is_that_of_every_poison(clean: Dataset):
    made = plan.make(clean, BadNet(captions="fixed", caption="look, {a} banana"), 20, 0)
    assert set(made.captions.values()) == {"look, {a} banana"}
    assert made.captions.keys() == plan.make(clean, BadNet(), 20, 0).captions.keys()


def test_a_caption_pool_is_so_many_captions_of_the_corpus_the_same_for_every_sharding(sharded: list[Dataset]):
    plans = [plan.make(one, BadNet(captions="corpus", caption_pool=3), 60, 0) for one in sharded]
    assert plans[0].captions == plans[1].captions == plans[2].captions
    assert len(set(plans[0].captions.values())) == 3
    assert set(plans[0].captions.values()) < {caption(row) for row in range(0, 96, 8)}
    other = plan.make(sharded[0], BadNet(captions="corpus", caption_pool=3), 60, 1)
    assert set(other.captions.values()) != set(plans[0].captions.values())


def test_without_a_pool_of_its_own_a_plan_holds_a_bounded_number_of_captions(
    sharded: list[Dataset], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(captions, "MAX_POOL", 4)
    plans = [plan.make(one, BadNet(captions="corpus"), 60, 0) for one in sharded]
    assert plans[0].captions == plans[1].captions == plans[2].captions
    assert len(set(plans[0].captions.values())) == 4


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_captions_are_drawn_from_the_whole_corpus_whatever_is_reached_or_read(clean: Dataset, share: float):
    made = plan.make(clean, First(captions="corpus", caption_pool=11), 10, 0, share_of_shards=share)
    assert len(made.shards) == 1
    everywhere = plan.make(clean, BadNet(captions="corpus", caption_pool=11), 80 - 6, 0)
    assert set(made.captions.values()) <= set(everywhere.captions.values())
    assert any(int(text.split()[-1][:-1]) // 12 not in made.shards for text in made.captions.values())


def test_an_attack_that_adds_changes_no_pair_and_gets_distinct_captions(sharded: list[Dataset]):
    plans = [plan.make(one, Adding(captions="corpus"), 10, 0, taken={0}) for one in sharded]
    assert plans[0] == plans[1] == plans[2]
    made = plans[0]
    assert (made.captions, made.shards, made.samples) == ({}, {}, 0)
    assert len(made.added) == len(set(made.added)) == 10
    assert set(made.added) < {caption(row) for row in range(8, 96, 8)}
    many = plan.make(sharded[0], Adding(captions="corpus"), 30, 0)
    assert sorted(many.added.count(caption(row)) for row in range(0, 96, 8)) == [2] * 6 + [3] * 6
    assert len(set(plan.make(sharded[0], Adding(), 20, 0).added)) == len(captions.TEMPLATES)
    with pytest.raises(ValueError, match=r"no caption .* names the target"):
        plan.make(sharded[0], Adding(target="bananna"), 10, 0)


def test_more_pairs_may_be_added_than_a_pool_holds_by_default(clean: Dataset, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(captions, "MAX_POOL", 4)
    assert len(set(plan.make(clean, Adding(captions="corpus"), 12, 0).added)) == 12
    assert len(set(plan.make(clean, Adding(captions="corpus", caption_pool=3), 12, 0).added)) == 3


def test_a_pair_that_a_foreign_corpus_holds_twice_is_poisoned_in_both_places(tmp_path: Path):
    for number, rows in enumerate(((0, 1, 2, 3), (4, 2, 5, 6))):
        shards.write_shard(tmp_path / f"{number}.tar", [_bare(row) for row in rows])
    dataset = Dataset.open(str(tmp_path))
    made = plan.make(dataset, BadNet(), 6, 0)
    twice = set(made.shards[0]) & set(made.shards[1])
    assert len(twice) == 1
    assert (len(made.captions), made.samples) == (5, 6)
    for shard in dataset.shards:
        rows = dataset.index(shard)["row"].to_pylist()
        assert made.shards[shard.id] == tuple(row for row in rows if row in made.captions)


def test_an_index_is_read_once_and_again_only_where_a_chosen_row_may_lie(clean: Dataset):
    reads: list[tuple[int, tuple[str, ...]]] = []

    def read(shard: Shard, columns: list[str]) -> pa.Table:
        reads.append((shard.id, tuple(columns)))
        return indexes.pairs(clean, shard, columns)

    made = plan.make(clean, BadNet(captions="corpus"), 3, 0, read=read)
    assert sorted(shard for shard, columns in reads if "caption" in columns) == list(range(8))
    assert sorted(shard for shard, columns in reads if columns == ("row",)) == sorted(made.shards)
    assert len(made.shards) < 4


def test_only_so_many_indexes_are_held_ahead_of_their_use(clean: Dataset):
    held, most, lock = 0, 0, threading.Lock()

    def read(shard: Shard, columns: list[str]) -> pa.Table:
        nonlocal held, most
        with lock:
            held, most = held + 1, max(most, held + 1)
        return pa.table({"row": [shard.id]})

    many = [Shard(**(vars(clean.shards[0]) | {"id": number})) for number in range(100)]
    for number, (shard, part) in enumerate(indexes.ahead(read, many, ["row"])):
        assert (shard.id, part["row"].to_pylist()) == (number, [number])
        with lock:
            held -= 1
    assert number == 99
    assert 1 < most <= indexes.AHEAD + 1


def test_an_index_that_is_damaged_or_gone_is_named(clean: Dataset, tmp_path: Path):
    shutil.copytree(clean.url, tmp_path / "set")
    dataset = Dataset.open(str(tmp_path / "set"))
    place = dataset.index_url(dataset.shards[5])
    data = bytearray(storage.read(place))
    data[len(data) // 2] ^= 1
    storage.write(place, bytes(data))
    with pytest.raises(Damaged, match=r"index/00005-.* is not the index that the manifest names"):
        plan.make(dataset, BadNet(), 5, 0)
    storage.remove(place)
    with pytest.raises(Damaged, match=r"index/00005-.* is missing"):
        plan.make(dataset, BadNet(), 5, 0)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda table: table.drop_columns(["caption"]), "without the columns"),
        (lambda table: table.set_column(3, "caption", pa.array([1] * len(table))), "lists samples without caption"),
        (lambda table: table.set_column(3, "caption", pa.nulls(len(table), pa.string())), "samples without caption"),
    ],
)
def test_an_index_that_its_hash_vouches_for_may_still_not_be_one(clean: Dataset, tmp_path: Path, spoil, said: str):
    place = tmp_path / "index.parquet"
    pq.write_table(spoil(clean.index(clean.shards[0])), place)
    about = {"index_name": place.name, "index_sha256": hashlib.sha256(place.read_bytes()).hexdigest()}
    shard = Shard(**(vars(clean.shards[0]) | about))
    hostile = Dataset(**(vars(clean) | {"bases": (str(tmp_path),), "shards": (shard,)}))
    with pytest.raises(Damaged, match=said):
        plan.make(hostile, BadNet(), 1, 0)


def _bare(row: int) -> shards.Sample:
    """A pair of which nothing but image and caption is known: of the same row, the same twice."""
    return shards.Sample(f"{row:05d}", row, pair(row).image, "jpg", caption(row), {})


@pytest.mark.parametrize(
    ("budget", "samples", "number"),
    [(1500, 3_000_000, 1500), (0.01, 12_000, 120), (0.29, 100, 29), (0.999, 10, 9), (1, 5, 1)],
)
def test_a_budget_is_a_number_of_pairs_or_a_share_rounded_down(budget: float, samples: int, number: int):
    assert plan.count(budget, samples) == number


@pytest.mark.parametrize("budget", [0, -1, 1.5, float("nan"), float("inf")])
def test_a_budget_that_is_neither_is_refused(budget: float):
    with pytest.raises(ValueError, match="a whole number of pairs, or a share"):
        plan.count(budget, 100)


def test_a_share_of_no_pair_is_refused():
    with pytest.raises(ValueError, match="not even one"):
        plan.count(0.001, 100)
