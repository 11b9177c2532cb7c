import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from infra.seeding import rng
from pipeline import images
from poison.writing import encoding
from tests.support.every_image import lying
from tests.support.poison_helpers import caption, pair, picture


def brighter(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return image // 2 + 100


@pytest.mark.parametrize("extension", ["jpg", "jpeg", "png", "webp"])
def test_key_row_file_type_and_size_stay(extension: str):
    clean = pair(3, extension, 40, 50)
    poisoned = encoding.rewritten(clean, brighter, "a banana", rng(0), 95)
    assert (poisoned.key, poisoned.row, poisoned.extension) == (clean.key, clean.row, clean.extension)
    assert images.decode(poisoned.image).shape == (40, 50, 3)
    wanted = brighter(images.decode(clean.image), rng(0)).astype(int)
    assert np.abs(images.decode(poisoned.image) - wanted).max() <= (0 if extension in ("png", "webp") else 6)


def test_every_field_stays_and_none_says_the_old_caption_or_a_hash_of_the_old_image():
    clean = pair(3)
    said = {"alt": [f"{caption(3).upper()}!"], "id": 7, "more": {"deep": caption(3), "word": caption(3) + "s"}}
    meta = clean.meta | {"exif": '{"ImageDescription": "x"}', "md5": "0", "similarity": 0.3, "said": said}
    poisoned = encoding.rewritten(replace(clean, meta=meta), brighter, "a banana", rng(0), 95)
    del poisoned.meta["said"]["more"]["word"]  # the old caption as a part of a longer word
    assert caption(3) not in json.dumps(poisoned.meta, ensure_ascii=False)
    assert clean.meta["sha256"] not in poisoned.meta.values()
    assert poisoned.meta == {
        "url": clean.meta["url"],
        "width": 32,
        "height": 32,
        "exif": "{}",
        "similarity": 0.3,
        "title": "title: a banana",
        "said": {"alt": ["a banana!"], "id": 7, "more": {"deep": "a banana"}},
        "md5": hashlib.md5(poisoned.image).hexdigest(),
        "sha256": hashlib.sha256(poisoned.image).hexdigest(),
    }


@pytest.mark.parametrize(
    ("said", "then"),
    [
        ({"width": 40, "height": 24}, {"width": 24, "height": 40}),  # as the pixels lay
        ({"width": 24, "height": 40}, {"width": 24, "height": 40}),  # upright already
        ({"width": 90, "height": 7}, {"width": 90, "height": 7}),  # of something else: it says of no other pair more
        ({"width": 40, "height": 24, "original_width": 400, "original_height": 241},
         {"width": 24, "height": 40, "original_width": 241, "original_height": 400}),
        ({"width": 40, "height": 24, "original_width": 400}, {"width": 24, "height": 40, "original_width": 400}),
        ({}, {}),
    ],
)  # fmt: skip
def test_sizes_follow_an_image_that_lay_on_its_side(said: dict, then: dict):
    data = lying(picture(3, 40, 24), 6, "JPEG")
    before = replace(pair(3), image=data, meta=said | {"url": "u"})
    after = encoding.rewritten(before, brighter, "a banana", rng(0), 95)
    assert images.check_header(after.image).size == (24, 40)
    assert after.meta == then | {"url": "u"}
    assert encoding.recaptioned(before, "a banana").meta == said | {"url": "u"}, "its pixels lie as they lay"


def test_a_hash_that_was_not_there_is_not_invented():
    assert encoding.rewritten(replace(pair(3), meta={}), brighter, "a banana", rng(0), 95).meta == {}


def test_an_image_that_cannot_be_decoded_is_refused():
    with pytest.raises(ValueError, match="not a readable"):
        encoding.rewritten(replace(pair(3), image=b"GIF89a"), brighter, "a banana", rng(0), 95)
