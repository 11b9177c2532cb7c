from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from poison_helpers import build, files, picture

from poison.attacks.badnet import BadNet
from poison.injection import Injection
from poison.preview import main
from poison.sheet import PANEL, Pair, difference, draw


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
    places = {"--ledger": "ledger", "--dataset": "clean", "--poisoned": "out", "--out": "sheet.png"}
    return [part for flag, name in places.items() for part in (flag, str(folder / name))] + list(more)


def test_the_difference_is_eightfold_and_clamped():
    clean, poisoned = np.array([[[10, 200, 50]]], np.uint8), np.array([[[13, 100, 50]]], np.uint8)
    assert difference(clean, poisoned).tolist() == [[[24, 255, 0]]]
    assert (difference(poisoned, clean) == difference(clean, poisoned)).all()


def test_small_pictures_are_enlarged_by_whole_factors():
    image = picture(0)
    other = image.copy()
    other[16:, 16:] = (255, 255, 0)
    sheet = np.asarray(draw([Pair(image, other, ("row 0",))], "title"))
    assert (sheet[-PANEL - 12 : -12, 12 : 12 + PANEL][3::7, 3::7] == image).all()
    assert (sheet[-PANEL - 12 : -12, 24 + PANEL : 24 + 2 * PANEL][3::7, 3::7] == other).all()


def test_large_and_long_ones_fit():
    image = picture(0, 300, 900)
    assert draw([Pair(image, image, ("word " * 200,))] * 3, "title " * 100).height > 3 * PANEL


def test_the_sheet_of_a_ledger_shows_as_many_pairs_as_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]):
    heights = []
    for rows in (1, 3, 50):
        assert main(words(folder, "--rows", str(rows))) == 0
        assert capsys.readouterr().out == f"{min(rows, 6)} of 6 poisoned pairs: {folder / 'sheet.png'}\n"
        with Image.open(folder / "sheet.png") as sheet:
            heights.append(sheet.height)
    assert heights[1] - heights[0] == 2 * (PANEL + 12)
    assert heights[2] - heights[0] == 5 * (PANEL + 12)


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
        ("--out", "sheet.jpg", "names a .png file"),
    ],
)
def test_folders_that_do_not_belong_together_are_refused(
    folder: Path, flag: str, value: str, complaint: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        main(words(folder, flag, str(folder / value)))
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err
    assert not (folder / "sheet.png").exists()
