import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "infra/bench"


def last_line(script: str, *arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, BENCH / script, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


@pytest.mark.slow
def test_a_million_pairs_are_planned_in_seconds_and_little_memory():
    found = last_line("plan.py", "--largest", "1", "--files", "20")
    assert found["seconds_1m"] < 60
    assert found["peak_gib"] < 2


@pytest.mark.slow
def test_rewriting_costs_no_more_than_copying_and_hashing(tmp_path: Path):
    found = last_line("rewrite.py", "--samples", "4000", "--rounds", "3", "--folder", str(tmp_path))
    assert found["rewrite_over_cp"] < 1.5
    assert found["rewrite_over_decode_all"] < 0.5
    assert not list(tmp_path.iterdir())
