"""One Ray cluster for the whole run (12 seconds to start), on loopback, with four logical CPUs."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests/drawn.py, from every test folder

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTIDOTE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ANTIDOTE_LOG", raising=False)


@pytest.fixture(scope="session")
def ray_cluster():
    from infra import spread

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([sys.path[0], str(Path(__file__).parents[1])]))
        spread.connect(num_cpus=4)
        yield
        import ray

        ray.shutdown()
