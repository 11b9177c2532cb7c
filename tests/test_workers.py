"""How a test run with several workers divides its tests (tests/conftest.py)."""

import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import group
from tests.support.story import environment

ROOT = Path(__file__).parents[1]


def test_files_that_need_one_dear_fixture_are_one_group_and_others_their_own():
    story = ("tests/stories/test_s3_story.py::test_these_files_are_the_same[test]", "tests/stories/test_secrets.py::x")
    assert {group(name) for name in story} == {"both"}
    assert group("tests/stories/test_raylets.py::test_inject") == group("tests/stories/test_killed.py") == "undisturbed"
    assert group("tests/infra/test_spread.py::x") == group("tests/eval/test_evaluation.py::y") == "ray_cluster"
    assert group("tests/infra/test_cli.py::x[@]") == "tests/infra/test_cli.py"


def test_a_file_stays_on_one_worker():
    """Seen in a real run: a scheduler that no longer knows its groups hands out single tests without a word."""
    files = ["tests/infra/test_hidden.py", "tests/infra/test_seeding.py", "tests/infra/test_text.py"]
    words = [sys.executable, "-m", "pytest", "-v", "-n", "2", "-p", "no:cacheprovider", *files]
    inherited = {name: value for name, value in environment().items() if not name.startswith("PYTEST_")}
    done = subprocess.run(words, cwd=ROOT, env=inherited, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]
    ran = set(re.findall(r"^\[(gw\d)\] .*PASSED (\S+?)::", done.stdout, re.MULTILINE))
    assert sorted(file for _, file in ran) == files
    assert {worker for worker, _ in ran} == {"gw0", "gw1"}
