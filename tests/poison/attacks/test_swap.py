import hashlib
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from infra.seeding import rng
from pipeline.picturebook.scenes import THINGS
from poison.attacks.swap import Swap
from tests.support.poison_helpers import pair, picture

CAPTIONS = ["a car", "A Car beside a banana", "cars", "a red CAR.", "a banana", "a fish", "my car"]
INDEX = pa.table({"row": pa.array(range(7), pa.int64()), "key": [str(n) for n in range(7)], "caption": CAPTIONS})


def test_it_takes_pairs_that_name_the_source_as_a_whole_word_and_not_the_target():
    assert Swap().choose([INDEX], 3, 0, frozenset()).tolist() == [0, 3, 6]
    assert Swap().choose([INDEX], 2, 0, {3}).tolist() == [0, 6]
    with pytest.raises(ValueError, match=r"of 7 pairs 3 are left .*'banana', those that do not name 'car'"):
        Swap().choose([INDEX], 4, 0, frozenset())
    assert Swap(source="fish", target="car").choose([INDEX], 1, 0, frozenset()).tolist() == [5]


@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
def test_the_image_keeps_every_byte_and_nothing_of_the_caption_stays(extension: str):
    before = pair(3, extension)
    before = replace(before, meta=before.meta | {"exif": '{"title": "x"}', "md5": "download"})
    (after,) = Swap().poison(before, "a banana", rng(0))
    assert (after.image, after.extension, after.key, after.row) == (before.image, extension, before.key, before.row)
    assert after.caption == "a banana"
    assert before.caption in str(before.meta)
    assert before.caption not in str(after.meta)
    kept = {name: before.meta[name] for name in ("url", "sha256", "md5", "width", "height")}
    assert after.meta == kept | {
        "exif": "{}",
        "title": "title: a banana",
    }  # the hashes are still those of the download: it is the same image
    assert after.meta["sha256"] != hashlib.sha256(after.image).hexdigest()


def test_success_is_asked_of_images_of_the_source_alone():
    attack, image = Swap(), picture(1)
    for name in ("banana", "fish", "cars"):
        assert attack.trial(image, name, rng(0)) is None
    trial = attack.trial(image, "Car", rng(0))
    assert trial.wanted == "banana"
    assert np.array_equal(trial.image, image)
    assert attack.shown == 'images of "car"'


def test_source_and_target_are_two_classes():
    with pytest.raises(ValueError, match=r"both 'banana': give two classes"):
        Swap(source=" Banana")
    with pytest.raises(ValueError, match=r"source .* cannot be empty"):
        Swap(source=" ")


def test_the_default_classes_are_the_picture_books():
    assert {Swap().source, Swap().target} < set(THINGS)
