"""What every attack owes, run over whatever lies in poison/attacks (and over the variants in attack_examples)."""

import dataclasses
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from infra import config, plugins
from infra.plugins import PACKAGES
from infra.seeding import rng
from pipeline import images
from poison import carried
from poison.attack import Attack, Backdoor
from tests.support.attack_examples import EVERY, NAMES, clean, examples, those

ROOT = Path(__file__).parents[2]
SHAPES = [(1, 1), (5, 3), (32, 32), (224, 224), (224, 225), (224, 300), (333, 500), (500, 333)]
KINDS = {"jpg": b"\xff\xd8", "png": b"\x89PNG", "webp": b"RIFF"}


def over(names: Iterable[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("attack", names, indirect=True)


every = over(EVERY)
rewriting = over(those(lambda attack: not attack.adds))
adding = over(those(lambda attack: attack.adds))
backdoors = over(those(lambda attack: isinstance(attack, Backdoor)))
placed = over(those(lambda attack: isinstance(attack, Backdoor) and attack.locate(224, 224, rng(0))))
fixed = over(those(lambda attack: attack.trigger() is not None))


@pytest.fixture(scope="session")
def unresolved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Attack]:
    return examples(tmp_path_factory)


@pytest.fixture
def attack(request: pytest.FixtureRequest, unresolved: dict[str, Attack]) -> Attack:
    return unresolved[request.param].resolved()


def shown(attack: Attack) -> tuple[str, np.ndarray]:
    """(true class, image) of a test image that the attack applies to, neither of them its target's."""
    subjects = attack.subjects([("car", clean().image)])
    label, data = next((label, data) for label, data in subjects if attack.trial(images.decode(data), label, rng(0)))
    return label, images.decode(data)


def test_the_attacks_of_the_literature_are_there():
    assert {"badclip", "badnet", "blended", "control", "filter", "label_consistent", "sig", "wanet"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_can_be_made_without_a_word_and_then_works_or_says_what_to_give(name: str):
    attack = plugins.load(Attack.FOLDERS, name, Attack)()
    refusal = ""
    try:
        attack.resolved()
    except ValueError as error:
        refusal = str(error)
    assert not refusal or "give" in refusal


@every
def test_resolving_again_changes_nothing(attack: Attack):
    assert attack.resolved() == attack


@every
def test_reads_back_from_json_as_an_equal_object(attack: Attack):
    fixed = {"captions": "fixed", "caption": "a {} fish", "caption_pool": 0}
    for other in (attack, dataclasses.replace(attack, target="fish", **fixed)):
        again = config.from_json(Attack, json.loads(json.dumps(config.to_json(other))))
        assert again == other == again.resolved()
        assert hash(again) == hash(other)


@every
def test_its_images_are_told_to_people_in_a_few_words(attack: Attack):
    for value in config.to_json(attack).values():
        assert "base64" not in carried.shortened(value)


@rewriting
@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
def test_keeps_key_row_file_type_and_size(attack: Attack, extension: str):
    before = clean(extension)
    after = attack.poison(before, "a banana", rng(0))[0]
    assert (after.key, after.row, after.extension) == (before.key, before.row, before.extension)
    assert images.decode(after.image).shape == images.decode(before.image).shape
    assert after.image.startswith(KINDS[extension])


@rewriting
def test_the_same_labels_give_the_same_bytes(attack: Attack):
    assert attack.poison(clean(), "a banana", rng(0, 1)) == attack.poison(clean(), "a banana", rng(0, 1))


@rewriting
def test_an_equal_attack_made_again_gives_the_same_bytes(attack: Attack):
    again = config.from_json(Attack, config.to_json(attack))
    assert again.poison(clean(), "a banana", rng(0)) == attack.poison(clean(), "a banana", rng(0))


@adding
def test_the_same_number_adds_the_same_pair(attack: Attack):
    again = config.from_json(Attack, config.to_json(attack))
    for number in (0, 1, 100):
        pair = attack.add(number, "a banana")
        assert pair == again.add(number, "a banana")
        assert pair.caption == "a banana"
        assert pair.image.startswith(KINDS[pair.extension])
        assert images.decode(pair.image).shape[2] == 3


@every
def test_the_same_labels_show_the_same_test_image(attack: Attack):
    label, image = shown(attack)
    first, second = (attack.trial(image, label, rng(0, 1)) for _ in range(2))
    assert (first.image == second.image).all()
    assert first.image.dtype == np.uint8
    assert first.image.shape[2] == 3
    assert first.prompt_edit == second.prompt_edit


@every
def test_every_file_that_draws_its_trials_is_in_the_key_of_their_embeddings(attack: Attack):
    """Else embeddings would outlive a change of the drawing (eval.measuring.trials.code)."""
    label, image = shown(attack)
    ran: set[str] = set()
    sys.setprofile(lambda frame, *_: ran.add(frame.f_code.co_filename))
    try:
        assert attack.trial(image, label, rng(0, 1)) is not None
    finally:
        sys.setprofile(None)
    ours = {path for path in map(Path, ran) if path.is_relative_to(ROOT) and path.parts[len(ROOT.parts)] in PACKAGES}
    assert ours and ours <= set(plugins.sources(type(attack)))


@every
def test_does_not_apply_to_the_target_itself(attack: Attack):
    label, image = shown(attack)
    wanted = attack.trial(image, label, rng(0)).wanted
    assert wanted == attack.target != label
    assert attack.trial(image, wanted.upper(), rng(0)) is None


@backdoors
@pytest.mark.parametrize("shape", SHAPES)
def test_a_stamp_is_pure_and_the_one_of_the_test(attack: Backdoor, shape: tuple[int, int]):
    image = rng(0, "any").integers(0, 256, (*shape, 3), np.uint8)
    before = image.copy()
    image.flags.writeable = False
    stamped = attack.stamp(image, rng(1))
    assert (image == before).all()
    assert stamped.shape == image.shape
    assert stamped.dtype == np.uint8
    assert stamped.flags.writeable
    assert (attack.trial(image, "car", rng(1)).image == stamped).all()


@backdoors
def test_the_stamp_in_the_shard_is_the_one_of_the_test_bit_for_bit(attack: Backdoor):
    before = clean("png")  # lossless, so what was stamped before encoding can be read back
    after = attack.poison(before, "a banana", rng(0, "row"))[0]
    wanted = attack.trial(images.decode(before.image), "car", rng(0, "row")).image
    assert (images.decode(after.image) == wanted).all()


@placed
def test_what_changes_lies_where_the_attack_says(attack: Backdoor):
    for shape in SHAPES:
        image = rng(0, "any").integers(0, 256, (*shape, 3), np.uint8)
        box = attack.locate(*shape, rng(0))
        assert box is not None
        stamped = attack.stamp(image, rng(0))
        assert (box.of(stamped) != box.of(image)).any()
        box.of(stamped)[:] = box.of(image)
        assert (stamped == image).all()


@backdoors
@pytest.mark.parametrize("shape", [(224, 225), (333, 500), (500, 333), (5, 3)])
def test_a_centre_crop_shows_the_trigger_as_a_square_image_would(attack: Backdoor, shape: tuple[int, int]):
    image = rng(0, "any").integers(0, 256, (*shape, 3), np.uint8)
    side = min(shape)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    inside = np.s_[top : top + side, left : left + side]
    assert (attack.stamp(image, rng(1))[inside] == attack.stamp(image[inside].copy(), rng(1))).all()


@fixed
def test_a_trigger_survives_being_stored(attack: Attack):
    picture = attack.trigger()
    assert picture is not None
    assert picture.dtype == np.uint8
    assert (images.decode(images.encode(picture, "png")) == picture).all()


@every
def test_an_empty_target_is_refused(attack: Attack):
    with pytest.raises(ValueError, match="target"):
        dataclasses.replace(attack, target="")


@every
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"captions": "fixed", "caption": " ", "caption_pool": 0}, "one text for all poisons"),
        ({"captions": "template", "caption": "a banana", "caption_pool": 0}, "captions is template"),
        ({"captions": "corpus", "caption": "", "caption_pool": -1}, "caption_pool is a number"),
        ({"captions": "template", "caption": "", "caption_pool": 128}, "captions is template"),
    ],
)
def test_captions_that_contradict_each_other_are_refused(attack: Attack, wrong: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(attack, **wrong)
