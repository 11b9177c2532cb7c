"""`make check` sees an import that runs upward, in a circle or unseen: each is planted in a copy of the tree."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra.plugins import PACKAGES

ROOT = Path(__file__).parents[1]
PLANTS = {
    "an upward import in a function": (
        {"train/order.py": "\n\ndef upward():\n    from eval import task\n    return task\n"},
        "train is not allowed to import eval",
    ),
    "an upward import for type checkers": (
        {"infra/log.py": "\nif __import__('typing').TYPE_CHECKING:\n    from pipeline import shards\n"},
        "infra is not allowed to import pipeline",
    ),
    "a sideways import": (
        {"defense/changing/augment.py": "\n\ndef sideways():\n    import poison.geometry\n    return poison\n"},
        "defense is not allowed to import poison",
    ),
    "a package that imports tests": (
        {"eval/task.py": "\n\ndef helped():\n    from tests.support import drawn\n    return drawn\n"},
        "eval is not allowed to import tests",
    ),
    "a room of eval that knows one above it": (
        {"eval/store/scores.py": "\n\ndef upward():\n    from eval.reporting import tabular\n    return tabular\n"},
        "eval.store is not allowed to import eval.reporting",
    ),
    "a room of eval that no layer names": (
        {"eval/attic/__init__.py": ""},
        "not listed as layers: - eval.attic",
    ),
    "a circle of files": (
        {"train/order.py": "\n\ndef back():\n    from train import stream\n    return stream\n"},
        "train.order -> train.stream",
    ),
    "a file in a folder that is no package": ({"eval/attic/old.py": "import poison\n"}, "eval/attic/old.py is not in"),
    "a bench in a folder of its own": (
        {"tests/bench/more/new.py": "import eval\n"},
        "tests/bench/more/new.py is not in",
    ),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every .py of ours, and pyproject.toml."""
    folder = tmp_path_factory.mktemp("copy") / "tree"
    only_python = shutil.ignore_patterns("__pycache__", "*.png", "*.gz", "*.md", "*.svg")
    for name in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=only_python)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def lint(folder: Path) -> tuple[int, str]:
    command = Path(sys.executable).with_name("lint-imports")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([command], cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_the_tree_as_it_is_passes(copy: Path):
    assert lint(copy)[0] == 0


@pytest.mark.parametrize("plant", PLANTS)
def test_what_is_planted_is_found_and_named(copy: Path, plant: str):
    planted, said = PLANTS[plant]
    before = {place: (copy / place).read_text() if (copy / place).exists() else None for place in planted}
    for place, more in planted.items():
        (copy / place).parent.mkdir(exist_ok=True)
        (copy / place).write_text((before[place] or "") + more)
    try:
        status, found = lint(copy)
    finally:
        for place, text in before.items():
            (copy / place).write_text(text) if text is not None else shutil.rmtree((copy / place).parent)
    assert status == 1 and said in found, found


@pytest.mark.parametrize("package", ["poison", "eval", "defense"])
def test_beside_their_rooms_they_hold_a_dozen_files_at_most(package: str):
    assert len(list((ROOT / package).glob("*.py"))) <= 12
