from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from pipeline import images
from poison import carried
from poison.attacks.badclip import BadClip
from poison.ledger import Ledger
from poison.sheets import sheet
from tests.support.poison_helpers import picture


@pytest.mark.parametrize("extension", ["png", "jpg", "webp"])
def test_a_file_becomes_a_png_that_has_its_pixels(tmp_path: Path, extension: str):
    data = images.encode(picture(1, 9, 12), extension)
    (tmp_path / "a").write_bytes(data)
    uri = carried.embedded(str(tmp_path / "a"))
    assert uri.startswith("data:image/png;base64,")
    assert (carried.pixels(uri) == images.decode(data)).all()


def test_a_data_uri_is_returned_as_it_is():
    uri = carried.uri(picture(0, 4, 5))
    assert carried.embedded(uri) == uri
    assert carried.is_uri(uri)
    assert not carried.is_uri("s3://bucket/patch.png")
    assert not carried.is_uri(None)


def test_its_pixels_cannot_be_written_to_and_are_decoded_once():
    uri = carried.uri(picture(0, 4, 5))
    found = carried.pixels(uri)
    assert found is carried.pixels(uri)
    assert found.dtype == np.uint8
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 0


def test_a_missing_file_a_folder_and_no_image_are_named(tmp_path: Path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=r"no image at .*absent.png: give"):
        carried.embedded(str(tmp_path / "absent.png"))
    with pytest.raises(ValueError, match="no image at"):
        carried.embedded(str(tmp_path))
    with pytest.raises(ValueError, match=r"text.png: not a readable"):
        carried.embedded(str(tmp_path / "text.png"))


@pytest.mark.parametrize(
    "broken", ["data:image/jpeg;base64,AAAA", "data:image/png;base64,!", "data:image/png;base64,AAAA"]
)
def test_a_broken_data_uri_is_refused(broken: str):
    with pytest.raises(ValueError, match="cannot be read"):
        carried.embedded(broken)


def test_people_read_size_and_hash():
    uri = carried.uri(picture(0, 6, 7))
    said = carried.shortened(uri)
    assert said.startswith("image 6 x 7, sha256 ")
    assert len(said) == len("image 6 x 7, sha256 1a2b3c4d")
    assert said != carried.shortened(carried.uri(picture(1, 6, 7)))
    assert carried.shortened((uri,) * 9) == f"{said}; {said}; {said}; ... (9 in all)"
    assert [carried.shortened(value) for value in (0.25, "noise", None)] == ["0.25", "noise", "None"]


def test_a_contact_sheets_title_names_an_image_and_leaves_out_what_was_not_given():
    attack = BadClip(patch=carried.uri(picture(0, 6, 6)), size=42)
    title = sheet._title(cast(Ledger, SimpleNamespace(attack=attack)))
    assert title.startswith('The badclip attack, target "banana" (caption_pool 0, captions corpus, patch image 6 x 6, ')
    assert "base64" not in title
    assert "caption ," not in title
