from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import images
from poison.attacks.badnet import BadNet
from poison.attacks.targeted import Targeted
from poison.carried import kept
from poison.preview import main
from poison.sheets import previews
from poison.sheets.layout import GAP, PANEL, WIDTH, Pair, difference, draw
from poison.writing.injection import Injection
from tests.support.poison_helpers import build, files, picture
from tests.support.poison_helpers import pair as sample


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build(str(tmp_path / "clean"))
    Injection(
        attack=BadNet(patch="yellow", size=112),
        dataset=str(tmp_path / "clean"),
        out=str(tmp_path / "out"),
        ledger=str(tmp_path / "ledger"),
        budget=6,
        backend="local",
    ).run()
    return tmp_path


def words(folder: Path, *more: str) -> list[str]:
    places = {"--ledger": "ledger", "--dataset": "clean", "--poisoned": "out", "--out": "preview"}
    return [part for flag, name in places.items() for part in (flag, str(folder / name))] + list(more)


def test_the_difference_is_eightfold_and_clamped():
    clean, poisoned = np.array([[[10, 200, 50]]], np.uint8), np.array([[[13, 100, 50]]], np.uint8)
    assert difference(clean, poisoned).tolist() == [[[24, 255, 0]]]
    assert (difference(poisoned, clean) == difference(clean, poisoned)).all()


def test_small_images_are_enlarged_by_whole_factors():
    image = picture(0)
    other = image.copy()
    other[16:, 16:] = (255, 255, 0)
    sheet = np.asarray(draw([Pair(image, other, ("row 0",))], "title"))
    assert (sheet[-PANEL - 12 : -12, 12 : 12 + PANEL][3::7, 3::7] == image).all()
    assert (sheet[-PANEL - 12 : -12, 24 + PANEL : 24 + 2 * PANEL][3::7, 3::7] == other).all()


def test_a_banner_stands_between_the_title_and_the_pairs():
    pair, banner = Pair(picture(0), picture(1), (), "was", "now"), Image.new("RGB", (WIDTH, 50), (255, 0, 0))
    plain, with_banner = (np.asarray(draw([pair], "title", above)) for above in (None, banner))
    assert len(with_banner) - len(plain) == 50 + GAP
    assert (with_banner == (255, 0, 0)).all(axis=(1, 2)).sum() == 50
    assert (with_banner[-PANEL:] == plain[-PANEL:]).all()


def test_large_and_long_ones_fit():
    image = picture(0, 300, 900)
    pair = Pair(image, image, ("word " * 200,), "before " * 100, "after " * 100)
    assert draw([pair] * 3, "title " * 100).height > 3 * PANEL


def test_the_sheet_of_a_ledger_shows_as_many_pairs_as_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]):
    heights = []
    for rows in (1, 3, 50):
        assert main(words(folder, "--rows", str(rows))) == 0
        assert capsys.readouterr().out == f"{min(rows, 6)} of 6 poisoned pairs: {folder / 'preview' / 'sheet.png'}\n"
        with Image.open(folder / "preview" / "sheet.png") as sheet:
            heights.append(sheet.height)
    assert main(words(folder, "--rows", "50")) == 0
    assert capsys.readouterr().out.startswith("nothing to do: 6 of 6 poisoned pairs: ")
    assert heights[1] - heights[0] == 2 * (PANEL + 12)
    assert heights[2] - heights[0] == 5 * (PANEL + 12)


def test_added_pairs_are_shown_without_an_original(tmp_path: Path):
    build(str(tmp_path / "clean"))
    aim = sample(3).image
    Injection(
        attack=Targeted(targets=(("car", kept(aim, "jpg")),), images=1, captions="template"),
        dataset=str(tmp_path / "clean"),
        out=str(tmp_path / "out"),
        ledger=str(tmp_path / "ledger"),
        budget=5,
        backend="local",
    ).run()
    assert main(words(tmp_path, "--rows", "3")) == 0
    shown = previews.read(str(tmp_path / "preview"))
    assert len(shown) == 3
    for one in shown:
        assert one.was == ""
        assert "banana" in one.now
        assert one.clean == one.poisoned
        assert (images.decode(one.clean) == images.decode(aim)).all()
        assert images.decode(one.difference).max() == 0


def test_a_dry_run_touches_nothing(folder: Path, capsys: pytest.CaptureFixture[str]):
    before = files(folder)
    assert main(words(folder, "--dry-run")) == 0
    assert "nothing was written" in capsys.readouterr().out
    assert files(folder) == before


@pytest.mark.parametrize(
    ("flag", "value", "complaint"),
    [
        ("--dataset", "out", "is not the dataset that"),
        ("--poisoned", "clean", "belongs to another dataset"),
        ("--ledger", "clean", "no ledger at"),
        ("--out", "preview.png", "preview.png' is named like an image: make the preview with --out"),
        ("--out", "clean", "must not lie in --dataset"),
        ("--out", "out/preview", "must not lie in --poisoned"),
        ("--out", "ledger", "exists and is no preview (it holds 'attack.json'): choose another --out"),
    ],
)
def test_folders_that_do_not_belong_together_are_refused(
    folder: Path, flag: str, value: str, complaint: str, capsys: pytest.CaptureFixture[str]
):
    before = files(folder)
    with pytest.raises(SystemExit) as ended:
        main(words(folder, flag, str(folder / value)))
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err
    assert files(folder) == before
