import dataclasses
from pathlib import Path

import numpy as np
import pytest

from infra import storage
from infra.errors import Damaged
from pipeline import images
from pipeline.dataset import Dataset
from poison import ledger as ledgers
from poison.attacks.badnet import BadNet
from poison.ledger import Ledger
from poison.writing.injection import Injection
from tests.support.poison_helpers import build, pairs_of

ATTACK = BadNet(size=42, cell=7, trigger_seed=3, captions="corpus", place="random")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """clean, poisoned and its ledger under one folder."""
    build(str(tmp_path / "clean"))
    poison(tmp_path)
    return tmp_path


def poison(folder: Path, name: str = "poisoned", **fields: object) -> None:
    given = {
        "attack": ATTACK,
        "dataset": str(folder / "clean"),
        "out": str(folder / name),
        "budget": 0.1,
        "backend": "local",
    }
    Injection(**(given | {"ledger": str(folder / f"{name}-ledger")} | fields)).run()


def test_a_ledger_reads_back_the_attack_and_the_recipe(folder: Path):
    ledger = Ledger.open(str(folder / "poisoned-ledger"))
    clean, poisoned = Dataset.open(str(folder / "clean")), Dataset.open(str(folder / "poisoned"))
    assert ledger.attack == ATTACK
    assert (ledger.seed, ledger.budget, ledger.share_of_shards) == (0, 8, 1.0)
    assert (ledger.parent_digest, ledger.dataset_digest) == (clean.digest, poisoned.digest)
    assert ledger.parent_url == str(folder / "clean")
    assert ledger.rows.schema.equals(ledgers.ROWS)
    assert sorted(path.name for path in (folder / "poisoned-ledger").iterdir()) == [
        "attack.json", "ledger.parquet", "recipe.json", "trigger.png",
    ]  # fmt: skip


def test_attacks_are_named_by_plugin_and_never_by_import_path(folder: Path):
    about = storage.read_json(str(folder / "poisoned-ledger" / "attack.json"))
    assert about["attack"]["plugin"] == "badnet"
    assert "poison." not in (folder / "poisoned-ledger" / "attack.json").read_text()


def test_the_ledger_says_where_each_trigger_lies(folder: Path):
    after = pairs_of(Dataset.open(str(folder / "poisoned")))
    lines = Ledger.open(str(folder / "poisoned-ledger")).rows.to_pylist()
    assert len({(line["top"], line["left"]) for line in lines}) > 1
    for line in lines:
        top, left = line["top"], line["left"]
        patch = images.decode(after[line["row"]].image)[top : top + line["height"], left : left + line["width"]]
        drawn = ATTACK.trigger()[3::7, 3::7]
        assert patch.shape == drawn.shape == (6, 6, 3)
        assert np.corrcoef(patch.ravel(), drawn.ravel())[0, 1] > 0.99


def test_the_trigger_is_stored_without_loss(folder: Path):
    stored = images.decode((folder / "poisoned-ledger" / "trigger.png").read_bytes())
    assert (stored == ATTACK.trigger()).all()


def test_an_attack_without_a_fixed_image_stores_none(tmp_path: Path):
    build(str(tmp_path / "clean"))
    poison(tmp_path, attack=BadNet(patch="fresh"))
    assert not (tmp_path / "poisoned-ledger" / "trigger.png").exists()
    assert Ledger.open(str(tmp_path / "poisoned-ledger")).attack == BadNet(patch="fresh")


def test_a_trigger_that_would_be_drawn_otherwise_is_refused(folder: Path):
    place = str(folder / "poisoned-ledger" / "attack.json")
    about = storage.read_json(place)
    about["attack"]["trigger_seed"] = 4
    storage.write_json(place, about)
    with pytest.raises(ValueError, match=r"is not the one in its trigger\.png"):
        Ledger.open(str(folder / "poisoned-ledger"))


@pytest.mark.parametrize("name", ["ledger.parquet", "trigger.png"])
def test_a_changed_or_missing_file_is_noticed(folder: Path, name: str):
    path = folder / "poisoned-ledger" / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(Damaged, match="sha256 differs"):
        Ledger.open(str(path.parent))
    path.unlink()
    with pytest.raises(Damaged, match="is missing"):
        Ledger.open(str(path.parent))


def test_a_ledger_that_is_absent_or_unfinished_is_refused(folder: Path):
    with pytest.raises(ValueError, match="no ledger at"):
        Ledger.open(str(folder / "elsewhere"))
    (folder / "poisoned-ledger" / "attack.json").unlink()
    with pytest.raises(ValueError, match="is not complete"):
        Ledger.open(str(folder / "poisoned-ledger"))


def test_a_ledger_of_another_version_is_refused(folder: Path):
    place = str(folder / "poisoned-ledger" / "attack.json")
    storage.write_json(place, storage.read_json(place) | {"format": 99})
    with pytest.raises(ValueError, match="format 99; this version reads format 1"):
        Ledger.open(str(folder / "poisoned-ledger"))


@pytest.mark.parametrize(("text", "said"), [("[]", "no JSON object"), ('{"format": 1}', "nothing of 'attack'")])
def test_a_ledger_that_is_none_is_refused(folder: Path, text: str, said: str):
    storage.write(str(folder / "poisoned-ledger" / "attack.json"), text.encode())
    with pytest.raises(ValueError, match=said):
        Ledger.open(str(folder / "poisoned-ledger"))


def test_a_ledger_belongs_to_its_dataset_and_to_no_other(folder: Path):
    poison(folder, "other", seed=1)
    ledger = Ledger.open(str(folder / "poisoned-ledger"))
    ledger.belongs_to(Dataset.open(str(folder / "poisoned")))
    with pytest.raises(ValueError, match="belongs to another dataset"):
        ledger.belongs_to(Dataset.open(str(folder / "other")))
    with pytest.raises(ValueError, match="its clean parent"):
        ledger.belongs_to(Dataset.open(str(folder / "clean")))


def test_earlier_ledgers_must_be_of_the_same_line(folder: Path):
    build(str(folder / "stranger"), rows=50)
    stranger = Dataset.open(str(folder / "stranger"))
    clean, poisoned = Dataset.open(str(folder / "clean")), Dataset.open(str(folder / "poisoned"))
    ledger = Ledger.open(str(folder / "poisoned-ledger"))
    assert ledgers.taken([ledger], poisoned) == ledgers.taken([ledger], clean) == ledger.row_ids
    assert ledgers.taken([], clean) == frozenset()
    with pytest.raises(ValueError, match=r"--taken.*belongs to another dataset"):
        ledgers.taken([ledger], stranger)
    grandchild = dataclasses.replace(ledger, parent_digest=poisoned.digest, dataset_digest="later")
    assert ledgers.taken([ledger, grandchild], dataclasses.replace(poisoned, digest="later")) == ledger.row_ids


def test_a_lost_part_is_not_passed_over(folder: Path):
    (folder / "poisoned-ledger" / "ledger.parquet").unlink()
    with pytest.raises(Damaged, match=r"parts/00001\.parquet is missing"):
        ledgers.gather(str(folder / "poisoned-ledger"), [1])
