"""What every attack owes, run over whatever lies in poison/attacks."""

import dataclasses
import json

import numpy as np
import pytest
from drawn import samples

from infra import config, plugins
from infra.seeding import rng
from pipeline import images
from pipeline.shards import Sample
from poison.attack import Attack, Backdoor

NAMES = plugins.names(Attack.FOLDERS)
attacks = pytest.mark.parametrize("attack", [plugins.load(Attack.FOLDERS, name, Attack)() for name in NAMES], ids=NAMES)


def clean(extension: str = "jpg", size: int = 40) -> Sample:
    return samples(1, first=3, size=size, extension=extension)[0]


def test_the_attacks_of_the_first_story_are_there():
    assert {"badnet", "blended", "control"} <= set(NAMES)


@attacks
def test_reads_back_from_json_as_an_equal_object(attack: Attack):
    for other in (attack, dataclasses.replace(attack, target="fish", captions="corpus")):
        again = config.from_json(Attack, json.loads(json.dumps(config.to_json(other))))
        assert again == other
        assert hash(again) == hash(other)


@attacks
@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
def test_keeps_key_row_file_type_and_size(attack: Attack, extension: str):
    before = clean(extension)
    after = attack.poison(before, "a banana", rng(0))[0]
    assert (after.key, after.row, after.extension) == (before.key, before.row, before.extension)
    assert images.decode(after.image).shape == images.decode(before.image).shape
    kinds = {"jpg": b"\xff\xd8", "png": b"\x89PNG", "webp": b"RIFF"}
    assert after.image.startswith(kinds[extension])


@attacks
def test_the_same_labels_give_the_same_bytes(attack: Attack):
    assert attack.poison(clean(), "a banana", rng(0, 1)) == attack.poison(clean(), "a banana", rng(0, 1))
    image = images.decode(clean().image)
    first, second = (attack.trial(image, "car", rng(0, 1)) for _ in range(2))
    assert (first.image == second.image).all()


@attacks
def test_an_equal_attack_made_again_gives_the_same_bytes(attack: Attack):
    again = config.from_json(Attack, config.to_json(attack))
    assert again.poison(clean(), "a banana", rng(0)) == attack.poison(clean(), "a banana", rng(0))


@attacks
def test_does_not_apply_to_the_target_itself(attack: Attack):
    image = images.decode(clean().image)
    assert attack.trial(image, attack.target.upper(), rng(0)) is None
    trial = attack.trial(image, "car", rng(0))
    assert trial.wanted == attack.target
    assert trial.image.dtype == np.uint8
    assert trial.image.shape[2] == 3


@attacks
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (32, 32), (224, 224), (224, 300), (500, 333)])
def test_a_stamp_is_pure_and_the_one_of_the_test(attack: Attack, shape: tuple[int, int]):
    if not isinstance(attack, Backdoor):
        pytest.skip("has no stamp")
    image = rng(0, "any").integers(0, 256, (*shape, 3), np.uint8)
    before = image.copy()
    image.flags.writeable = False
    stamped = attack.stamp(image, rng(1))
    assert (image == before).all()
    assert stamped.shape == image.shape
    assert stamped.dtype == np.uint8
    assert (attack.trial(image, "car", rng(1)).image == stamped).all()


@attacks
def test_the_stamp_in_the_shard_is_the_one_of_the_test_bit_for_bit(attack: Attack):
    if not isinstance(attack, Backdoor):
        pytest.skip("has no stamp")
    before = clean("png")  # lossless, so what was stamped before encoding can be read back
    after = attack.poison(before, "a banana", rng(0, "row"))[0]
    assert (images.decode(after.image) == attack.trial(images.decode(before.image), "car", rng(0, "row")).image).all()


@attacks
def test_what_changes_lies_where_the_attack_says(attack: Attack):
    image = images.decode(clean("png", 100).image)
    box = attack.locate(100, 100, rng(0))
    if not isinstance(attack, Backdoor) or box is None:
        pytest.skip("has no place")
    stamped = attack.stamp(image, rng(0)).copy()
    box.of(stamped)[:] = box.of(image)
    assert (stamped == image).all()


@attacks
def test_a_trigger_survives_being_stored(attack: Attack):
    picture = attack.trigger()
    if picture is None:
        pytest.skip("has no fixed picture")
    assert (images.decode(images.encode(picture, "png")) == picture).all()


@attacks
def test_an_empty_target_is_refused(attack: Attack):
    with pytest.raises(ValueError, match="target"):
        dataclasses.replace(attack, target="")
