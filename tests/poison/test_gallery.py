"""The images of poison/README.md are what the code draws now."""

import re
from pathlib import Path

import numpy as np
import pytest

import poison
from infra import plugins
from pipeline import images
from poison import gallery
from poison.attack import Attack
from poison.sheets import exhibits
from tests.support.poison_helpers import files

HOME = Path(str(poison.__file__)).parent
SHOWN = exhibits.exhibits()
ATTACKS = plugins.names(Attack.FOLDERS)


def panels(png: bytes) -> list[np.ndarray]:
    sheet, side = images.decode(png), exhibits.PANEL
    lefts = [exhibits.GAP + number * (side + exhibits.GAP) for number in range(3)]
    return [sheet[exhibits.LINE : exhibits.LINE + side, left : left + side].astype(int) for left in lefts]


@pytest.mark.parametrize("name", SHOWN)
def test_an_image_in_the_repository_is_the_one_the_code_draws(name: str):
    now = images.decode(exhibits.to_png(exhibits.pair(SHOWN[name])))
    there = images.decode((HOME / "gallery" / f"{name}.png").read_bytes())
    assert np.array_equal(now, there), "stale: python poison/gallery.py --out poison/gallery"


def test_every_attack_is_shown_by_itself_and_no_image_is_of_something_else():
    assert {name: plugins.name_of(SHOWN[name].attack) for name in ATTACKS} == {name: name for name in ATTACKS}
    assert sorted(files(HOME / "gallery")) == sorted(f"{name}.png" for name in SHOWN)


def test_the_images_are_small():
    sizes = {name: len(data) for name, data in files(HOME / "gallery").items()}
    assert max(sizes.values()) < 60_000, sizes
    assert sum(sizes.values()) < 700_000, sizes


def test_the_readme_has_a_row_and_an_image_for_every_attack_and_shows_no_image_that_is_not_there():
    text = (HOME / "README.md").read_text()
    rows = "\n".join(line for line in text.splitlines() if line.startswith("| `"))
    assert [name for name in ATTACKS if f"| `{name}`" not in rows or f"(gallery/{name}.png)" not in rows] == []
    assert sorted(re.findall(r"\(gallery/(\S+)\.png\)", text)) == sorted(SHOWN)


def test_the_palette_is_close_to_what_was_drawn():
    pair = exhibits.pair(SHOWN["badnet"])
    clean, poisoned, difference = panels(exhibits.to_png(pair))
    assert np.abs(clean - pair.clean).mean() < 8
    assert np.abs(poisoned - pair.poisoned).mean() < 8
    assert difference[-11:, -11:].mean() > 200 > 10 > difference[:140, :140].mean()  # the patch, and nothing elsewhere


def test_the_command_draws_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--out", str(tmp_path / "gallery")]
    assert gallery.main([*words, "--dry-run"]) == 0
    assert "nothing was written" in capsys.readouterr().out
    assert not (tmp_path / "gallery").exists()
    assert gallery.main(words) == 0
    assert capsys.readouterr().out == f"{len(SHOWN)} of {len(SHOWN)} images drawn: {tmp_path / 'gallery'}\n"
    before = files(tmp_path / "gallery")
    assert gallery.main(words) == 0
    assert capsys.readouterr().out.startswith(f"nothing to do: {len(SHOWN)} images")
    assert files(tmp_path / "gallery") == before
