"""A dataset that leaves pairs out, poisoned: they are in no plan and no result, and the result leaves them out too."""

import tarfile
from pathlib import Path

import pytest

from eval.measuring import checks
from infra.errors import Lost
from pipeline import foreign, leaving
from pipeline.dataset import Dataset
from pipeline.verification import Verification
from poison.attacks.badnet import BadNet
from poison.attacks.control import Control
from poison.choosing import plan as plans
from poison.ledger import Ledger
from poison.proof import main
from poison.writing.injection import Injection
from tests.support.odd_tars import corpus, in_json, keys_of, named, pair, samples, tar
from tests.support.poison_helpers import build, pairs_of

ATTACK = BadNet(patch="checkerboard", size=42, cell=7)
GONE = ("000000002", "000000003", "000000014", "000000090")


@pytest.fixture
def masked(tmp_path: Path) -> Dataset:
    clean = build(str(tmp_path / "clean"))
    return leaving.leave_out(clean, named(clean, *GONE), str(tmp_path / "masked"), {"filter": {}})


def injection(folder: Path, **fields: object) -> Injection:
    given = {"dataset": str(folder / "masked"), "out": str(folder / "out"), "ledger": str(folder / "ledger")}
    return Injection(**({"attack": ATTACK, "budget": 60, "backend": "local"} | given | fields))


def test_no_plan_takes_a_pair_that_is_left_out(masked: Dataset):
    made = plans.make(masked, ATTACK, 70, 0)  # all that do not name the target
    assert masked.samples == 82
    assert not set(made.captions) & {2, 3, 14, 90}
    assert set(made.captions) < set(pairs_of(masked))
    with pytest.raises(ValueError, match="of 82 pairs 70 are left"):
        plans.make(masked, ATTACK, 71, 0)


@pytest.mark.parametrize("seal", [False, True])
def test_what_is_poisoned_from_it_leaves_out_the_same_pairs(tmp_path: Path, masked: Dataset, seal: bool):
    said = injection(tmp_path, seal=seal).run()
    assert said.startswith("poisoned 60 of 82 pairs")
    out, ledger = Dataset.open(str(tmp_path / "out")), Ledger.open(str(tmp_path / "ledger"))
    assert keys_of(out) == keys_of(masked)
    assert [shard.samples for shard in out.shards] == [shard.samples for shard in masked.shards]
    assert out.contains_poison
    assert out.outcomes["filtered"] == 4
    assert out.outcomes == masked.outcomes
    if not seal:
        assert out.mask.equals(masked.mask)
    else:
        assert out.mask is None
        assert all(row["image_offset"] is None for row in out.index(out.shards[0]).to_pylist() if row["key"] in GONE)
    before, after = pairs_of(masked), pairs_of(out)
    assert list(before) == list(after)
    if not seal:
        assert {row for row in before if before[row] != after[row]} == ledger.row_ids
    assert Verification(dataset=out.url, decode=True, backend="local").run().startswith("verified: 82 pairs")
    places = ["--ledger", ledger.url, "--dataset", masked.url, "--poisoned", out.url, "--out", str(tmp_path / "proof")]
    assert main([*places, "--backend", "local"]) == 0


def test_a_rewritten_shard_is_the_one_that_it_would_be_without_a_mask(tmp_path: Path, masked: Dataset):
    """The tar holds what is left out, as the parent's does: it is opened again by opening the parent's line."""
    injection(tmp_path).run()
    out = Dataset.open(str(tmp_path / "out"))
    for here, there in zip(out.shards, masked.shards, strict=True):
        assert out.unmasked_index(here)["key"].equals(masked.unmasked_index(there)["key"])


def test_added_pairs_go_behind_what_is_left_out_too(tmp_path: Path, masked: Dataset):
    poisoned = leaving.leave_out(
        masked, named(masked, "000000091", "000000092"), str(tmp_path / "more"), {"filter": {}}
    )
    assert poisoned.mask.num_rows == 6
    injection(tmp_path, dataset=poisoned.url, attack=Control(target="banana"), budget=3).run()
    assert Dataset.open(str(tmp_path / "out")).mask.num_rows == 6


def test_a_poisoned_dataset_without_its_poisons_shares_no_pair_with_the_ledger(tmp_path: Path):
    clean = build(str(tmp_path / "masked"))
    injection(tmp_path, budget=7).run()
    out, ledger = Dataset.open(str(tmp_path / "out")), Ledger.open(str(tmp_path / "ledger"))
    columns = ["row", "url", "caption", "image_sha256"]
    assert checks.shared(out.index_of_samples(columns), ledger.rows)[0] == 7
    cured = leaving.leave_out(out, named(out, *ledger.rows["key"].to_pylist()), str(tmp_path / "cured"), {"filter": {}})
    assert checks.shared(cured.index_of_samples(columns), ledger.rows) == (0, 0)
    assert cured.contains_poison
    assert cured.samples == clean.samples - 7


def test_a_truncated_image_is_named_by_shard_and_key_with_the_way_past_it(tmp_path: Path):
    folder, new = corpus(tmp_path / "bare", good=38, cut=2), str(tmp_path / "new")
    everything = {"attack": Control(target="car"), "budget": 30}
    with pytest.raises(ValueError, match=r"shard 1, sample 00000003[89]: not a readable") as caught:
        injection(tmp_path, dataset=folder, **everything).run()
    assert str(caught.value).endswith(foreign.way_past(folder))
    Verification(dataset=folder, decode=True, leave_out=new, backend="local").run()
    places = {"out": str(tmp_path / "again"), "ledger": str(tmp_path / "again-ledger")}
    said = injection(tmp_path, dataset=new, **(everything | places | {"budget": 28})).run()
    assert said.startswith("poisoned 28 of 38 pairs")
    assert Ledger.open(places["ledger"]).parent_url == new
    with pytest.raises(Lost, match="2 of 40 pairs cannot be decoded"):
        Verification(dataset=folder, decode=True, backend="local").run()


def test_a_pair_with_its_caption_in_the_json_alone_stays_one(tmp_path: Path):
    """A KEY.txt of its own would tell the poison from its neighbours."""
    some = samples(12)
    members = [member for one in some for member in (in_json(one) if one.row % 2 else pair(one))]
    tar(tmp_path / "bare" / "0.tar", *members)
    attack = BadNet(target="car", patch="checkerboard", size=42, cell=7)
    injection(tmp_path, dataset=str(tmp_path / "bare"), attack=attack, budget=9).run()
    out = Dataset.open(str(tmp_path / "out"))
    with tarfile.open(out.tar_url(out.shards[0])) as made:
        assert made.getnames() == [name for name, _ in members]
    assert "verified: 12 pairs" in Verification(dataset=out.url, decode=True, backend="local").run()
    assert all("car" in one.caption for one in pairs_of(out).values())
    lines = Ledger.open(str(tmp_path / "ledger")).rows.to_pylist()
    data = Path(out.tar_url(out.shards[0])).read_bytes()
    for line in lines:
        assert line["original_caption"].encode() not in data, "nothing of the original remains"
        assert line["caption"].encode() in data
    places = ["--ledger", str(tmp_path / "ledger"), "--dataset", str(tmp_path / "bare"), "--poisoned", out.url]
    assert main([*places, "--out", str(tmp_path / "proof"), "--backend", "local"]) == 0
