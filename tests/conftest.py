"""What a test run starts once: a Ray cluster (12 s), Ceph's S3 gateway (2 s), moto's S3 server (2 s), two stories.

With `-n`, a run has several workers, each a process with ports and folders of its own. Files whose tests need
the same dear fixture stay on one worker, so that it is started once; the tests of any other file stay together.
"""

import ast
import contextlib
import os
import signal
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support import ceph, moto_server
from tests.support.ceph import Gateway
from tests.support.watching import Watch, watching

ROOT = Path(__file__).parents[1]
DEAR = ("both", "undisturbed", "ray_cluster")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch: with or without workers, the same arithmetic
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 is a thirtieth of a core beside another worker's ranks
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # tests come in any order, and img2dataset imports ray
signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's `make test &` ignores it, as its children would


@pytest.hookimpl(trylast=True)  # when -m has left tests out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first: else one worker ends long after another.

    How long is not known beforehand; what has many slow tests, and then what has many tests, is a good guess.
    """
    slow = Counter(group(item.nodeid) for item in items if item.get_closest_marker("slow"))
    tests = Counter(group(item.nodeid) for item in items)
    items.sort(key=lambda item: (-slow[group(item.nodeid)], -tests[group(item.nodeid)], group(item.nodeid)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hands out whole groups, in the order above. (Not --dist loadgroup: without a word, xdist 3.8 hands out single
    tests where pytest is 9.2, since it marks groups in an attribute that pytest no longer reads.)"""
    if config.getvalue("dist") != "load":  # somebody asked for another way
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    config.option.loadscopereorder = False
    return ByGroup(config, log)


def group(nodeid: str) -> str:
    """The dear fixture that a test or a fixture of the same file asks for, or the file."""
    return _group(nodeid.partition("::")[0])


@cache
def _group(file: str) -> str:
    asked: set[object] = set()
    for node in ast.walk(ast.parse((ROOT / file).read_bytes())):
        if isinstance(node, ast.FunctionDef) and (node.name.startswith("test_") or "fixture" in _decorators(node)):
            asked |= {argument.arg for argument in node.args.args}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("usefixtures"):
            asked |= {name.value for name in node.args if isinstance(name, ast.Constant)}
    return next((fixture for fixture in DEAR if fixture in asked), file)


def _decorators(function: ast.FunctionDef) -> str:
    return " ".join(map(ast.unparse, function.decorator_list))


def pytest_terminal_summary(terminalreporter) -> None:
    """What a test wants people to read (`record_property("read", text)`): a worker has no terminal."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "read":
                terminalreporter.write_line(f"\n{text}")


@pytest.fixture(autouse=True, scope="session")
def own_cache_of_what_tests_share(tmp_path_factory) -> Iterator[None]:
    """What is made once for several tests is made before `own_cache`: it would use the cache of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANTIDOTE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("ANTIDOTE_LOG", raising=False)
        yield


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTIDOTE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def ray_cluster():
    from infra import spread

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
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
    with moto_server.gateway() as gateway:
        yield gateway


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


@pytest.fixture
def watched() -> Iterator[Watch]:
    """To be told of places that nobody may open, such as a ledger."""
    with watching() as watch:
        yield watch


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
