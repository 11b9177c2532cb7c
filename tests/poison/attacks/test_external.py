from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from infra import config, storage
from infra.seeding import rng
from pipeline import images, testsets
from poison.attack import Attack
from poison.attacks.external import External
from tests.support.poison_helpers import labelled, pair, picture


def index(*rows: int, names_target: int | None = None) -> pa.Table:
    captions = ["a banana" if row == names_target else "a car" for row in rows]
    return pa.table({"row": pa.array(rows, pa.int64()), "key": [f"{row:09d}" for row in rows], "caption": captions})


@pytest.fixture
def attack(tmp_path: Path) -> External:
    """Images for the pairs 1, 2, 3 and 9, of three file types; unresolved."""
    for row, extension in ((1, "jpg"), (2, "png"), (3, "webp"), (9, "png")):
        storage.write(
            str(tmp_path / "made" / f"{row:09d}.{extension}"), images.encode(picture(100 + row), extension, 60)
        )
    return External(pictures=str(tmp_path / "made"), trials=labelled(str(tmp_path / "trials"), first=500).url)


def file(attack: External, name: str) -> Path:
    return Path(attack.pictures) / name


def test_it_takes_pairs_that_an_image_is_named_after(attack: External):
    ready = attack.resolved()
    parts = [index(0, 1, 2), index(3, 4, 5)]
    assert ready.choose(parts, 3, 0, frozenset()).tolist() == [1, 2, 3]
    assert ready.choose(parts, 1, 0, {1, 3}).tolist() == [2]
    assert ready.choose([index(0, 1, 2, names_target=2)], 1, 0, frozenset()).tolist() == [1]


def test_hidden_files_beside_the_images_are_passed_over(attack: External):
    digest = attack.resolved().pictures_sha256
    for name in (".DS_Store", "._000000001.jpg", ".ipynb_checkpoints/000000001.png"):
        storage.write(str(file(attack, name)), b"x")
    assert attack.resolved().pictures_sha256 == digest


def test_a_budget_beyond_the_images_is_refused_with_the_numbers(attack: External):
    complaint = r"made holds 4 images, named after 3 pairs here: a budget of 4 pairs .* 3 are left"
    with pytest.raises(ValueError, match=complaint):
        attack.resolved().choose([index(0, 1, 2, 3)], 4, 0, frozenset())


def test_a_key_that_several_pairs_have_names_none(attack: External):
    with pytest.raises(ValueError, match="several pairs have the key '000000002'"):
        attack.resolved().choose([index(1, 2), index(2)], 1, 0, frozenset())


@pytest.mark.parametrize(("row", "extension"), [(1, "jpg"), (1, "jpeg"), (2, "png"), (3, "webp")])
def test_an_image_of_the_pairs_own_type_is_stored_as_it_is(attack: External, row: int, extension: str):
    (after,) = attack.resolved().poison(pair(row, extension), "a banana", rng(0))
    (given,) = Path(attack.pictures).glob(f"{row:09d}.*")
    assert after.image == given.read_bytes()
    assert (after.key, after.row, after.extension, after.caption) == (f"{row:09d}", row, extension, "a banana")


def test_an_image_of_another_type_is_encoded_in_the_pairs_so_that_colours_stay(attack: External):
    noise = rng(3).integers(0, 256, (32, 32, 3), np.uint8)
    file(attack, "000000002.png").write_bytes(images.encode(noise, "png"))
    ready = attack.resolved()
    for extension, quality in (("jpg", 95), ("webp", None)):
        (after,) = ready.poison(pair(2, extension), "a banana", rng(0))
        wanted = images.encode(noise, extension, *([quality] if quality else []))
        assert after.image == wanted
    assert np.array_equal(images.decode(after.image), noise)  # WebP without loss


def test_the_file_type_is_told_from_the_bytes_and_not_from_the_name(attack: External):
    file(attack, "000000001.jpg").write_bytes(images.encode(picture(7), "png"))
    (after,) = attack.resolved().poison(pair(1, "jpg"), "a banana", rng(0))
    assert after.image.startswith(b"\xff\xd8")


def test_an_image_of_another_size_is_refused_with_both_sizes(attack: External):
    ready = attack.resolved()
    with pytest.raises(ValueError, match=r"000000001.jpg has 32 x 32 pixels, the pair's own image 40 x 20"):
        ready.poison(pair(1, "jpg", 40, 20), "a banana", rng(0))


def test_an_image_that_is_gone_or_broken_is_named(attack: External):
    ready = attack.resolved()
    file(attack, "000000001.jpg").write_bytes(b"\xff\xd8 no image")
    with pytest.raises(ValueError, match=r"000000001.jpg: not a readable"):
        ready.poison(pair(1), "a banana", rng(0))
    file(attack, "000000002.png").unlink()
    with pytest.raises(ValueError, match=r"has no image 000000002"):
        ready.poison(pair(2), "a banana", rng(0))


def test_any_change_of_an_image_or_a_name_is_another_attack(attack: External):
    first = attack.resolved()
    assert attack.resolved() == first
    data = file(attack, "000000009.png").read_bytes()
    file(attack, "000000009.png").rename(file(attack, "000000008.png"))
    renamed = attack.resolved()
    file(attack, "000000008.png").write_bytes(images.encode(picture(8), "png"))
    changed = attack.resolved()
    assert len({one.pictures_sha256 for one in (first, renamed, changed)}) == 3
    file(attack, "000000008.png").unlink()
    file(attack, "000000009.png").write_bytes(data)
    assert attack.resolved() == first


def test_the_images_of_trials_are_shown_and_no_others(attack: External):
    ready = attack.resolved()
    trials = testsets.read(ready.trials)
    shown = list(ready.subjects(iter([("car", b"of the test set")])))
    assert shown == [(trials.classes[one.label], data) for one, data in testsets.stored(trials)]
    trial = ready.trial(picture(1), "car", rng(0))
    assert trial.wanted == "banana"
    assert np.array_equal(trial.image, picture(1))
    assert ready.trial(picture(1), "Banana", rng(0)) is None


def test_trials_that_changed_since_are_refused(attack: External):
    ready = attack.resolved()
    storage.remove(ready.trials)
    labelled(ready.trials, first=700)
    with pytest.raises(ValueError, match=r"is not the test set that the attack was made with"):
        ready.subjects(())


def test_what_is_missing_or_in_the_way_is_said(attack: External, tmp_path: Path):
    with pytest.raises(ValueError, match="give the poisoned images as --pictures"):
        External(trials=attack.trials).resolved()
    with pytest.raises(ValueError, match="give a test set as --trials"):
        External(pictures=attack.pictures).resolved()
    with pytest.raises(ValueError, match=f"no images at {tmp_path}/nowhere"):
        External(pictures=str(tmp_path / "nowhere"), trials=attack.trials).resolved()
    for use in (lambda: attack.choose([], 1, 0, frozenset()), lambda: attack.poison(pair(1), "", rng(0))):
        with pytest.raises(ValueError, match="ask for resolved"):
            use()
    file(attack, "000000001.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds both 000000001\.jpg and 000000001\.png"):
        attack.resolved()
    file(attack, "000000001.png").rename(file(attack, "list.csv"))
    with pytest.raises(ValueError, match=r"list\.csv is not KEY\.png"):
        attack.resolved()
    with pytest.raises(ValueError, match="JPEG quality from 1 to 100"):
        External(quality=0)


def test_in_a_bucket_it_goes_as_on_a_disk(attack: External, tmp_path: Path):
    url = f"memory://{tmp_path.name}"
    for path in Path(attack.pictures).iterdir():
        storage.write(f"{url}/made/{path.name}", path.read_bytes())
    remote = External(pictures=f"{url}/made", trials=labelled(f"{url}/trials", first=500).url).resolved()
    here = attack.resolved()
    assert (remote.pictures_sha256, remote.trials_digest) == (here.pictures_sha256, here.trials_digest)
    assert remote.poison(pair(2, "png"), "b", rng(0)) == here.poison(pair(2, "png"), "b", rng(0))
    assert config.from_json(Attack, config.to_json(remote)) == remote
