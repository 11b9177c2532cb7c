"""The images of poison/attacks.md are what the code draws now, and every attack has its heading there."""

import dataclasses
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


def sections_of(page: str) -> dict[str, str]:
    """What stands below each heading that is a name."""
    return dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE))


def test_every_attack_has_a_heading_with_an_image_and_no_image_is_shown_that_is_not_there():
    text = (HOME / "attacks.md").read_text()
    sections = sections_of(text)
    assert sorted(sections) == sorted(ATTACKS)
    for name, section in sections.items():
        assert f"![{name}](gallery/{name}.png)" in section
        assert re.match(r"\n[A-Z].*\.\n\n!", section), "first what it does"
        assert re.findall(r"^- (\w+): \S", section, re.MULTILINE) == ["Equation", "Source", "Flags"]
    assert sorted(re.findall(r"\(gallery/(\S+)\.png\)", text)) == sorted(SHOWN)


def test_the_flags_and_defaults_that_the_page_names_are_those_of_the_attack():
    for name, section in sections_of((HOME / "attacks.md").read_text()).items():
        attack = plugins.load(Attack.FOLDERS, name, Attack)
        fields = {field.name.replace("_", "-"): field.default for field in dataclasses.fields(attack)}
        flags = section.split("- Flags:")[1]
        named = set(re.findall(r"--([a-z-]+)", flags))
        assert named <= set(fields), name
        first = flags.split("\n  - ")[0]  # what follows as a list is a variant
        for flag, value in re.findall(r"--([a-z-]+) ([\w.]+)(?=[`\s])", first.split("The CLIP papers")[0]):
            if value.islower() or value[0].isdigit():
                assert str(fields[flag]).removesuffix(".0") == value, (name, flag)


def test_the_readme_leads_to_the_heading_of_every_attack():
    text = (HOME / "README.md").read_text()
    rows = re.findall(r"^\| \[`(\w+)`\]\(attacks\.md#(\w+)\) \| \w.* \|$", text, re.MULTILINE)
    assert sorted(rows) == sorted((name, name) for name in ATTACKS)


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
