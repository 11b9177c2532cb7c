"""The README's `ray job submit --working-dir . -- python ...` against a cluster started with `ray start --head`.

The cluster's Python has our dependencies but cannot see the checkout, as on machines that are not this one.
"""

import os
import subprocess
from pathlib import Path

import pytest

from infra import storage
from pipeline.dataset import Dataset
from tests.support.clusters import Cluster, cluster
from tests.support.story import BIN, ROOT, command, environment, family
from tests.support.undisturbed import SHARDS

pytestmark = pytest.mark.slow

# The editable install puts the checkout on every Python's path; this takes it off again.
HIDE = f"""
import sys
sys.path[:] = [place for place in sys.path if place.rstrip("/") != {str(ROOT)!r}]
"""


@pytest.fixture(scope="module")
def ray(tmp_path_factory):
    hiding = tmp_path_factory.mktemp("hiding")
    (hiding / "sitecustomize.py").write_text(HIDE)
    given = {"PYTHONPATH": str(hiding), "ANTIDOTE_CACHE": str(hiding / "cache")}
    with cluster(cpus=2, dashboard=True, given=given) as started:
        yield started


def submit(ray: Cluster, *words: object, status: int = 0) -> str:
    """What the job said; the exit status of `ray job submit` must be `status`."""
    line = [str(BIN / "ray"), "job", "submit", "--working-dir", ".", "--", "python", *map(str, words)]
    done = subprocess.run(
        line, cwd=ROOT, env=environment() | ray.submitter(), capture_output=True, text=True, timeout=180
    )
    said = done.stdout + done.stderr
    assert done.returncode == status, f"{words}: exit status {done.returncode}\n{said[-6000:]}"
    return said


def errors(said: str) -> list[str]:
    """Each once: when a job fails, Ray shows the end of its log a second time."""
    return sorted({line for line in said.splitlines() if line.startswith("error: ")})


def test_every_stage_as_a_job_gives_what_it_gives_without_ray(ray, undisturbed, tmp_path):
    submit(ray, *undisturbed.prepare(tmp_path / "source"))
    undisturbed.prepared_alike(tmp_path / "source")

    submit(ray, *undisturbed.inject(tmp_path / "poisoned"))
    undisturbed.injected_alike(tmp_path / "poisoned")

    assert f"verified: {Dataset.open(str(undisturbed.poisoned)).samples} pairs in {SHARDS} shards" in submit(
        ray, *undisturbed.verify(tmp_path / "poisoned")
    )

    submit(ray, *undisturbed.evaluate(undisturbed.root / "scores-of-jobs"))
    undisturbed.evaluated_alike(undisturbed.root / "scores-of-jobs")


def test_a_job_that_fails_says_why_in_one_line_and_ray_says_that_it_failed(ray, undisturbed, tmp_path):
    said = submit(ray, "pipeline/prepare.py", "picturebook", "--rows", 0, "--out", tmp_path / "none", status=1)
    assert errors(said) == ["error: rows must be above 0 and start not below it, not 0 and 0"]
    assert not (tmp_path / "none").exists()

    damaged = tmp_path / "damaged"
    subprocess.run(["cp", "-r", undisturbed.source, damaged], check=True)
    shard = Dataset.open(str(damaged)).shards[7]
    tar = damaged / shard.name
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1
    tar.write_bytes(data)
    said = submit(ray, *undisturbed.verify(damaged), status=1)
    assert errors(said) == ["error: 1 of 12 shards are damaged:"]
    assert any("shard 7" in line and str(tar) in line for line in said.splitlines())


def test_what_travels_is_the_checkout_and_none_of_its_rubbish(ray, undisturbed, tmp_path):
    """Runs after the jobs: looks at what Ray unpacked for them."""
    unpacked = [path for path in ray.folder.glob("n*/session_*/runtime_resources/working_dir_files/_ray_pkg_*")
                if path.is_dir()]  # fmt: skip
    assert unpacked
    for place in unpacked:
        there = set(os.listdir(place))
        assert {"pipeline", "poison", "eval", "infra", "train"} <= there
        assert not there & {".git", ".venv", "demo", "runs", "data"}
        assert sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) < 20_000_000


def test_a_command_that_joins_without_bringing_its_code_is_told_what_to_do(ray, undisturbed, tmp_path):
    words = command(*undisturbed.verify(undisturbed.source))
    words[1] = str(ROOT / words[1])
    done = subprocess.run(
        words, cwd=tmp_path, env=environment() | ray.driver(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stderr[-3000:]
    assert len(errors(done.stderr)) == 1
    assert "the cluster's workers do not have this code (No module named" in errors(done.stderr)[0]
    assert "ray job submit --working-dir . -- python" in errors(done.stderr)[0]


@pytest.mark.parametrize(("address", "message"), [
    ("127.0.0.1:1", "no Ray cluster answers at RAY_ADDRESS=127.0.0.1:1: "),
    ("http://127.0.0.1:8265", "RAY_ADDRESS is host:port of a cluster's head, not 'http://127.0.0.1:8265'; the url of"),
])  # fmt: skip
def test_an_address_without_a_cluster_is_bad_input_at_once(undisturbed, tmp_path, address, message):
    done = subprocess.run(
        command(*undisturbed.verify(undisturbed.source)),
        cwd=ROOT, env=environment() | {"RAY_ADDRESS": address}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr[-3000:]
    assert len(errors(done.stderr)) == 1
    assert errors(done.stderr)[0].startswith(f"error: {message}")


def test_no_process_is_left_behind(undisturbed, tmp_path):
    with cluster(cpus=1) as started:
        mark = started.head.mark
        subprocess.run(
            command(*undisturbed.verify(undisturbed.source)),
            cwd=ROOT, env=environment(mark) | started.driver(), check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        assert len(family(mark)) > 4
    assert family(mark) == []
    assert not storage.exists(str(Path(started.folder)))
