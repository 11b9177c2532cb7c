"""What is started once for the whole run: a Ray cluster (12 s), Ceph's S3 gateway (2 s), moto's S3 server (2 s)."""

import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import ceph
from tests.support.ceph import Gateway

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # tests come in any order, and img2dataset imports ray


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTIDOTE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ANTIDOTE_LOG", raising=False)


@pytest.fixture(scope="session")
def ray_cluster():
    from infra import spread

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        spread.connect(num_cpus=4)
        yield
        import ray

        ray.shutdown()


@pytest.fixture(scope="session")
def ceph_s3() -> Iterator[Gateway]:
    """A real S3 server; it checks signatures. Where it is not installed: skipped, but under CI=true a failure."""
    if missing := ceph.missing():
        refuse = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        refuse(f"NOT TESTED ON A REAL S3 SERVER: {', '.join(missing)} not installed; as root: {ceph.INSTALL}")
    with ceph.gateway() as gateway:
        yield gateway


@pytest.fixture(scope="session")
def moto_s3() -> Iterator[Gateway]:
    """A quick imitation of S3 in a process of its own; it takes any key for good."""
    (port,) = ceph.free_ports(1)
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=ceph.die_with_parent,
    )
    try:
        deadline = time.monotonic() + 60
        while not ceph.answers(f"http://127.0.0.1:{port}"):
            assert server.poll() is None and time.monotonic() < deadline, "moto did not start"
            time.sleep(0.1)
        yield Gateway(f"http://127.0.0.1:{port}", "reader", "a-secret-that-no-file-may-hold")
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module", params=["moto_s3", "ceph_s3"])
def s3(request) -> Iterator[str]:
    """The url of a new bucket, with this process speaking to its server; of each server in turn."""
    gateway = request.getfixturevalue(request.param)
    with speaking(gateway.environment):
        yield gateway.make_bucket(f"shelf-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def speak() -> Iterator[Callable[[dict[str, str]], None]]:
    """`speak(gateway.environment)`: these AWS_ variables and no other, for one test and the commands that it starts."""
    with contextlib.ExitStack() as stack:
        yield lambda variables: stack.enter_context(speaking(variables))


@contextlib.contextmanager
def speaking(variables: dict[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def both(ceph_s3, tmp_path_factory):
    """tests/support/both.py: the whole story in a bucket and on disk, told once for the slow tests that look at it."""
    from tests.support.both import told

    with told(ceph_s3, tmp_path_factory.mktemp("both")) as stories:
        yield stories
