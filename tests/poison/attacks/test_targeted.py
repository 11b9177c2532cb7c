import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest

from infra import config, storage
from infra.seeding import rng
from pipeline import images, testsets
from poison import carried
from poison.attack import Attack
from poison.attacks.targeted import Targeted
from tests.support.poison_helpers import CLASSES, labelled, picture


@pytest.fixture
def book(tmp_path: Path) -> testsets.TestSet:
    return labelled(str(tmp_path / "test"))


def contents(test: testsets.TestSet) -> dict[bytes, str]:
    """Class name by the bytes of each image."""
    return {data: test.classes[picture.label] for picture, data in testsets.stored(test)}


def test_the_target_images_are_stored_images_of_other_classes_byte_for_byte(book: testsets.TestSet):
    attack = Targeted(testset=book.url, images=9).resolved()
    own = contents(book)
    found = attack.subjects(())
    assert len({data for _, data in found}) == 9
    assert all(own[data] == name != "banana" for name, data in found)


def test_the_choice_depends_on_images_and_seed_and_not_on_their_order(book: testsets.TestSet, tmp_path: Path):
    pairs = [(data, CLASSES.index(name)) for data, name in contents(book).items()]
    url = str(tmp_path / "reversed")
    testsets.write(url, ((data, "jpg", label) for data, label in reversed(pairs)), CLASSES, ("a {c}",))
    first, other = (Targeted(testset=place, images=4).resolved() for place in (book.url, url))
    assert first.targets == other.targets
    assert Targeted(testset=book.url, images=4, images_seed=1).resolved().targets != first.targets
    assert set(Targeted(testset=book.url, images=3).resolved().targets) < set(first.targets)


def test_the_attack_alone_rebuilds_it_when_the_test_set_is_gone(book: testsets.TestSet):
    attack = Targeted(testset=book.url, images=3).resolved()
    storage.remove(book.url)
    again = config.from_json(Attack, config.to_json(attack))
    assert again == attack == again.resolved()
    assert again.add(1, "a banana") == attack.add(1, "a banana")


@pytest.mark.parametrize("extension", ["jpg", "jpeg", "png", "webp"])
def test_added_images_keep_their_bytes_and_their_type_and_come_in_turn(tmp_path: Path, extension: str):
    test = labelled(str(tmp_path / "test"), extension=extension)
    attack = Targeted(testset=test.url, images=3).resolved()
    own = contents(test)
    added = [attack.add(number, f"banana {number}") for number in range(7)]
    assert [pair.image for pair in added] == [attack.subjects(())[number % 3][1] for number in range(7)]
    assert all(pair.image in own for pair in added)
    assert {pair.extension for pair in added} == {extension.replace("jpeg", "jpg")}
    assert [pair.caption for pair in added] == [f"banana {number}" for number in range(7)]
    assert all(pair.meta["url"] == f"{test.url}/test#{own[pair.image]}" for pair in added)


def test_at_test_time_the_target_images_are_shown_as_they_are_whatever_the_test_set(book: testsets.TestSet):
    attack = Targeted(testset=book.url, images=3).resolved()
    assert attack.subjects(iter([("cup", b"another")])) == attack.subjects(())
    image = picture(5)
    trial = attack.trial(image, "car", rng(0))
    assert trial.wanted == "banana"
    assert np.array_equal(trial.image, image)
    assert trial.prompt_edit is None
    assert attack.trial(image, " BANANA", rng(0)) is None


def test_an_image_that_the_test_set_holds_twice_is_one_target_image(tmp_path: Path):
    data = [images.encode(picture(n), "jpg") for n in (1, 1, 2, 3)]
    testsets.write(str(tmp_path / "test"), ((one, "jpg", k % 4) for k, one in enumerate(data, 1)), CLASSES, ("a {c}",))
    with pytest.raises(ValueError, match=r"3 target images are more than the 2 different images .* --images"):
        Targeted(testset=str(tmp_path / "test"), images=3).resolved()
    attack = Targeted(testset=str(tmp_path / "test"), images=2).resolved()
    assert sorted(name for name, _ in attack.subjects(())) == ["car", "cup"]


def test_what_is_missing_is_said(book: testsets.TestSet):
    with pytest.raises(ValueError, match="give a labelled test set as --testset"):
        Targeted().resolved()
    with pytest.raises(ValueError, match="no test set at"):
        Targeted(testset=f"{book.url}-not").resolved()
    with pytest.raises(ValueError, match="ask for resolved"):
        Targeted(testset=book.url).add(0, "a banana")
    with pytest.raises(ValueError, match="ask for resolved"):
        Targeted(testset=book.url).subjects(())
    with pytest.raises(ValueError, match="at least 1, not 0"):
        Targeted(testset=book.url, images=0)


def test_it_is_told_to_people_without_its_images(book: testsets.TestSet):
    attack = Targeted(testset=book.url, images=4).resolved()
    said = carried.shortened(config.to_json(attack)["targets"])
    assert said.endswith("(4 in all)")
    assert "image 32 x 32, sha256 " in said


def test_images_kept_as_they_are_come_back_as_they_were():
    buffer = io.BytesIO()
    images.Image.fromarray(picture(1)).save(buffer, "JPEG", quality=30)  # 4:2:0, as the web has it
    uri = carried.kept(buffer.getvalue(), "jpeg")
    assert carried.stored(uri) == (buffer.getvalue(), "jpg")
    with pytest.raises(ValueError, match="cannot be read"):
        carried.stored("data:text/plain;base64,AAAA")


def test_captions_are_the_corpus_s_own_unless_it_is_said_otherwise():
    assert Targeted().captions == "corpus"
    assert dataclasses.replace(Targeted(), captions="template").captions == "template"
