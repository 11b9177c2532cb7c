"""The folder that preview writes and a report reads."""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from infra import storage
from infra.errors import Damaged
from pipeline import images
from poison.sheets import previews
from poison.sheets.layout import GAP, PANEL, Pair, difference
from tests.support.poison_helpers import files, picture


def pairs(count: int = 3) -> list[Pair]:
    return [
        Pair(picture(n), picture(n + 1), (f"row {n}", ""), f"was {n}", f"now \u4e2d {n}\n<b>") for n in range(count)
    ]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A preview of three pairs."""
    made = str(tmp_path / "preview")
    assert previews.save(made, "the title", pairs())
    return made


def test_what_is_read_is_what_was_shown_pixel_by_pixel_and_word_by_word(url: str):
    found = previews.read(url)
    assert [(shown.was, shown.now) for shown in found] == [(pair.was, pair.now) for pair in pairs()]
    for pair, shown in zip(pairs(), found, strict=True):
        assert np.array_equal(images.decode(shown.clean), pair.clean)
        assert np.array_equal(images.decode(shown.poisoned), pair.poisoned)
        assert np.array_equal(images.decode(shown.difference), difference(pair.clean, pair.poisoned))


def test_the_folder_says_of_each_pair_what_was_done_and_names_its_images(url: str):
    about = json.loads((Path(url) / "preview.json").read_bytes())
    assert (about["format"], about["title"], len(about["pairs"])) == (1, "the title", 3)
    assert about["pairs"][1]["before"] == "was 1"
    assert about["pairs"][1]["after"] == "now \u4e2d 1\n<b>"
    assert about["pairs"][1]["notes"] == ["row 1"]
    named = {image["name"]: image["sha256"] for line in about["pairs"] for image in line["images"].values()}
    assert sorted(files(url)) == sorted([*named, "preview.json", "sheet.png"])
    assert {name: hashlib.sha256(files(url)[name]).hexdigest() for name in named} == named


def test_the_contact_sheet_shows_these_images(url: str):
    sheet = images.decode(files(url)["sheet.png"])
    for number, shown in enumerate(previews.read(url)):
        top = len(sheet) - (3 - number) * (PANEL + GAP)
        for column, png in enumerate((shown.clean, shown.poisoned, shown.difference)):
            left = GAP + column * (PANEL + GAP)
            panel = sheet[top : top + PANEL, left : left + PANEL]
            assert np.array_equal(panel[3::7, 3::7], images.decode(png)), "32 pixels, each seven times as large"


def test_large_images_are_kept_at_their_size(tmp_path: Path):
    image = picture(0, 300, 900)
    previews.save(str(tmp_path / "large"), "title", [Pair(image, image, ())])
    assert images.decode(previews.read(str(tmp_path / "large"))[0].clean).shape == (300, 900, 3)


def test_the_same_again_is_nothing_to_do_and_fewer_pairs_leave_no_image_behind(url: str):
    before = files(url)
    assert not previews.save(url, "the title", pairs())
    assert files(url) == before
    assert previews.save(url, "the title", pairs(2))
    assert len(previews.read(url)) == 2
    assert len(files(url)) == 2 * 3 + 2


@pytest.mark.parametrize("name", ["pairs/01-poisoned.png", "sheet.png"])
@pytest.mark.parametrize("harm", ["gone", "changed"])
def test_the_same_again_mends_an_image(url: str, name: str, harm: str):
    before = files(url)
    (Path(url) / name).unlink()
    if harm == "changed":
        (Path(url) / name).write_bytes(before["pairs/00-clean.png"])
    assert previews.save(url, "the title", pairs())
    assert files(url) == before


def test_killed_before_any_of_its_writes_it_is_not_taken_for_whole_and_made_again_it_is(
    tmp_path: Path, killer: Callable[[Callable[[], object], int], bool]
):
    """Over another preview, so that images of two might stand beside each other."""
    previews.save(str(tmp_path / "undisturbed"), "title", pairs())
    kills = 0
    while True:
        url = str(tmp_path / f"k{kills}")
        previews.save(url, "another", [Pair(picture(8), picture(9), ())] * 4)
        if not killer(partial(previews.save, url, "title", pairs()), kills):
            break
        if kills:
            with pytest.raises(ValueError, match=r"no complete preview \(it has no preview.json\): run the preview"):
                previews.read(url)
        else:
            assert len(previews.read(url)) == 4, "untouched"
        previews.save(url, "title", pairs())
        assert files(url) == files(tmp_path / "undisturbed")
        kills += 1
    assert kills == 1 + 3 + 3 * 3 + 2


def test_no_preview_and_a_folder_of_something_else_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no preview at .*/none: make it with preview --out"):
        previews.read(str(tmp_path / "none"))
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"exists and is no preview \(it holds 'mine.txt'\): choose another --out"):
        previews.save(str(tmp_path), "title", pairs())


@pytest.mark.parametrize("name", ["demo/preview.png", "demo/preview.PNG/", "s3://bucket/preview.png"])
def test_the_name_of_an_image_is_refused_and_the_folder_to_give_is_named(name: str):
    folder = name.rstrip("/")[:-4]
    with pytest.raises(ValueError, match=f"--out {folder}, where the contact sheet is {folder}/sheet.png"):
        previews.refuse_image("--preview", name)


def test_an_image_that_is_gone_or_another_is_damage(url: str):
    place = Path(url) / "pairs" / "01-clean.png"
    place.write_bytes(files(url)["pairs/02-clean.png"])
    with pytest.raises(Damaged, match=r"01-clean.png is not as preview.json says .*run the preview command once more"):
        previews.read(url)
    place.unlink()
    with pytest.raises(Damaged, match=r"01-clean.png is missing: run the preview command once more"):
        previews.read(url)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", '{"format": 1}', '{"format": 1, "pairs": [{"before": "a"}]}', '{"pairs": []}']
)
def test_a_preview_json_that_is_not_ours_is_damage(url: str, text: str):
    storage.write(f"{url}/preview.json", text.encode())
    with pytest.raises(Damaged, match=r"preview.json is damaged: run the preview command once more"):
        previews.read(url)


def test_a_preview_of_another_format_is_refused(url: str):
    storage.write_json(f"{url}/preview.json", {"format": 2, "pairs": []})
    with pytest.raises(ValueError, match="has preview format 2; this version reads format 1"):
        previews.read(url)


def test_in_a_bucket_as_on_disk(url: str, tmp_path: Path):
    there = f"memory://{tmp_path.name}/preview"
    assert previews.save(there, "the title", pairs())
    assert not previews.save(there, "the title", pairs())
    assert previews.read(there) == previews.read(url)
