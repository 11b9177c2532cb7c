import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import figures
from tests.support.drawn import drawn
from tests.support.eval_helpers import finished_run

BENCH = Path(__file__).parents[2] / "tests/bench"


def last_line(script: str, *arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, BENCH / script, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def test_a_figure_however_small_is_no_zero_on_the_last_line():
    found = {"seconds": 0.0040123, "faults": [123456, 1 / 3], "share": {"of": 0.0}, "name": "index"}
    assert json.loads(figures.line(found)) == {
        "seconds": 0.004012,
        "faults": [123456, 0.3333],
        "share": {"of": 0.0},
        "name": "index",
    }


@pytest.mark.slow
def test_the_bench_of_planning_runs_and_planning_needs_little_memory():
    found = last_line("plan.py", "--largest", "1", "--files", "20")
    assert found["seconds_1m"] > 0
    assert found["seconds_20_files"] > 0
    assert found["peak_gib"] < 2


@pytest.mark.slow
def test_the_bench_of_rewriting_runs_and_leaves_nothing_behind(tmp_path: Path):
    found = last_line("rewrite.py", "--samples", "2400", "--rounds", "1", "--folder", str(tmp_path))
    assert {"mb_per_s", "rewrite_over_cp", "rewrite_over_decode_all"} <= found.keys()
    assert all(value > 0 for value in found.values())
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_bench_of_the_pool_runs():
    found = last_line("pool.py", "--batch", "16", "--rounds", "1")
    assert all(value > 0 for value in found.values() if isinstance(value, (int, float)))


@pytest.mark.slow
def test_the_bench_of_the_views_runs_and_names_every_objective():
    found = last_line("views.py", "--seconds", "0.02", "--rounds", "1", "--steps", "1", "--batch", "16")
    share = found.pop("subcaptions_share_of_epoch")
    assert share < 1
    assert {"eda_captions_per_second", "cleanclip_views_per_second", "tacleaner_views_per_second"} <= found.keys()
    assert all(value > 0 for value in found.values())


@pytest.mark.slow
def test_the_bench_of_the_scan_runs():
    found = last_line("scan.py", "--sizes", "3000", "--width", "32", "--ways", "exact", "approximate", "scan")
    assert found["clustered_exact_seconds_3000"] > 0
    assert found["clustered_recall_16_3000"] > 0.9
    assert found["clustered_ivf_seconds_3000"] > 0
    assert found["blocked_seconds_3000"] > 0
    assert found["scikit_learn_seconds_3000"] > 0
    assert found["clustered_scan_seconds_3000"] > 0


@pytest.mark.slow
def test_the_bench_of_the_scan_takes_its_rows_from_a_run(tmp_path: Path):
    dataset = drawn(f"{tmp_path}/train", 60, 2)
    seen = "--run", finished_run(f"{tmp_path}/run", dataset), "--dataset", dataset.url
    found = last_line("scan.py", "--sizes", "40", "200", "--ways", "exact", "--others", "0", *seen)
    assert found["real_exact_seconds_40"] > 0 and found["real_exact_seconds_200"] > 0


@pytest.mark.slow
def test_the_bench_of_steps_runs():
    found = last_line("step.py", "--batch", "16", "--rounds", "1", "--steps", "1", "--large", "32", "--micro", "8")
    assert {"step_over_bare", "ranks_over_side_by_side", "micro_over_plain", "micro_memory_over_small"} <= found.keys()
    assert all(value > 0 for value in found.values())


@pytest.mark.slow
def test_the_bench_of_pages_runs_and_large_ones_are_fewer():
    found = last_line("pages.py", "--batch", "16", "--rounds", "1", "--steps", "2")
    assert found["small_over_large"] > 0
    small, large = found["faults_a_step"]
    assert small > large
