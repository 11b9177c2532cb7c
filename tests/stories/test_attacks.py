"""infra/jobs/attacks.sh, the study behind poison/measured.md: its attacks can be given, and it runs, small."""

import re
import subprocess
from pathlib import Path

import pytest

from infra import config
from poison.attack import Attack
from poison.writing.injection import Injection
from tests.support.ports import free_port
from tests.support.story import environment

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "infra/jobs/attacks.sh"
LINES = re.findall(r"^(small|large) +(\S+) +(.+)$", SCRIPT.read_text(), re.MULTILINE)
SMALL = {"ROWS": "420", "PICTURES": "56", "PRESET": "tiny", "EPOCHS": "1"}


@pytest.mark.parametrize(("book", "name", "flags"), LINES, ids=[f"{book}-{name}" for book, name, _ in LINES])
def test_an_attack_of_the_study_can_be_given(book: str, name: str, flags: str):
    words = [*flags.split(), "--dataset", "d", "--out", "o", "--ledger", "l"]
    parsed = config.parse(Injection, words, prog="poison", description="", plugin="attack")
    assert isinstance(parsed.attack, Attack)


def test_every_attack_that_needs_nothing_from_elsewhere_is_in_the_study():
    tried = {flags.split()[0] for _, _, flags in LINES}
    there = {path.stem for path in (ROOT / "poison/attacks").glob("*.py")} - {"__init__"}
    assert there - tried == {"external", "swap"}, "external needs images, swap has no trigger; others are measured"
    assert len({(book, name) for book, name, _ in LINES}) == len(LINES), "two attacks of one name share their folders"


@pytest.mark.slow
def test_the_study_runs_ends_in_a_table_and_resumes(tmp_path: Path):
    only = {"ONLY": "control badnet targeted badclip", "PORT": str(free_port())}

    def study() -> str:
        done = subprocess.run(
            [SCRIPT, tmp_path / "attacks"],
            env=environment() | SMALL | only,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    first = study()
    table = (tmp_path / "attacks/measured.md").read_text()
    named = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    assert named == ["badclip", "badnet", "control", "targeted"]
    assert "table of 4 runs at" in first.splitlines()[-1]
    again = study()
    assert again.count(": nothing to do") == 1 + 2 + 4 + 1, again  # the book, two trainings, four attacks, the table
    assert (tmp_path / "attacks/measured.md").read_text() == table
