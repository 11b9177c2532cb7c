"""Three raylets on this machine, of which one dies in the middle of every stage: the result is the undisturbed one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline.dataset import Dataset
from tests.support.clusters import Cluster, Node, cluster
from tests.support.story import ROOT, alive, command, environment, family, gone
from tests.support.undisturbed import SHARDS, cells, commits, unfinished

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A head that does no work, as on a real cluster, and two nodes that do."""
    given = {"ANTIDOTE_CACHE": str(tmp_path_factory.mktemp("cache"))}
    with cluster(cpus=0, workers=2, given=given) as started:
        yield started


class Driver:
    """A command that joined the cluster."""

    def __init__(self, cluster: Cluster, words: list[str], log: Path) -> None:
        self.log = log
        with open(log, "wb") as said:
            self.process = subprocess.Popen(
                words, cwd=ROOT, env=environment() | cluster.driver(), stdout=said, stderr=subprocess.STDOUT
            )

    def ended(self, seconds: float = 180) -> str:
        """What it said; its exit status must be 0."""
        status = self.process.wait(seconds)
        said = self.log.read_text(errors="replace")
        assert status == 0, said[-6000:]
        return said

    def __enter__(self) -> "Driver":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def caught(cluster: Cluster, driver: Driver, when: Callable[[], bool] = lambda: True) -> tuple[Node, list[int]]:
    """A node with work, as soon as there is one and `when()` holds: its workers are stopped in the middle of it."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert driver.process.poll() is None, f"ended before it could be disturbed: {driver.log.read_text()[-3000:]}"
        for node in cluster.workers if when() else []:
            busy = node.busy()
            for pid in busy:
                os.kill(pid, signal.SIGSTOP)
            if held := [pid for pid in busy if pid in node.busy()]:
                return node, held
            for pid in busy:
                os.kill(pid, signal.SIGCONT)
        time.sleep(0.002)
    raise AssertionError(f"no node had any work: {driver.log.read_text()[-3000:]}")


def replace(cluster: Cluster, node: Node) -> None:
    node.end()
    cluster.workers.remove(node)
    cluster.add(1)


def disturbed(cluster: Cluster, words: list[object], log: Path, when: Callable[[], bool], *, whole_node: bool) -> str:
    """Run the command; kill the raylet of a node that has work, or the node as a whole. Returns what was said."""
    with Driver(cluster, command(*words), log) as driver:
        node, held = caught(cluster, driver, when)
        if whole_node:
            node.kill()
        else:
            os.kill(node.raylet, signal.SIGKILL)
            for pid in held:  # orphans that go on with their task, while another worker is given it
                os.kill(pid, signal.SIGCONT)
        said = driver.ended()
    gone(held, 30)
    replace(cluster, node)
    assert "a task is tried again: NodeDiedError" in said
    return said


def test_prepare(three, undisturbed, tmp_path):
    out = tmp_path / "out"
    words = undisturbed.prepare(out)
    disturbed(three, words, tmp_path / "log", lambda: commits(out) >= 3, whole_node=False)
    undisturbed.prepared_alike(out)


def test_inject(three, undisturbed, tmp_path):
    out = tmp_path / "out"
    disturbed(three, undisturbed.inject(out), tmp_path / "log", lambda: True, whole_node=False)
    undisturbed.injected_alike(out)


def test_verify(three, undisturbed, tmp_path):
    words = undisturbed.verify(undisturbed.poisoned)
    said = disturbed(three, words, tmp_path / "log", lambda: True, whole_node=True)
    assert f"verified: {Dataset.open(str(undisturbed.poisoned)).samples} pairs in {SHARDS} shards" in said


def test_evaluate(three, undisturbed, tmp_path):
    out = undisturbed.root / "scores-beside-a-dying-node"
    disturbed(three, undisturbed.evaluate(out), tmp_path / "log", lambda: settled(out), whole_node=True)
    undisturbed.evaluated_alike(out)
    assert unfinished(out) == []


def settled(out: Path) -> bool:
    """A cell is there, and nothing is between its name and the end of its write: a kill there leaves a hidden file."""
    return len(cells(out)) >= 1 and unfinished(out) == []


WORK = """
import os, sys, time
from infra import spread

class Work:
    def __call__(self, task):
        open(f"{folder}/{task}-{os.getpid()}", "w").close()
        while not os.path.exists(f"{folder}/go"):
            time.sleep(0.05)
        return task * 1_000_000  # too large to travel with the reply: it stays on its node until it is asked for

folder = sys.argv[1]
found = spread.spread(Work(), ["a"], backend="ray", what="testing", unit="tasks", retries=0)
print("got", [len(text) for text in found])
"""


def test_a_result_that_is_lost_with_its_node_after_the_work_was_done_is_made_again(three, tmp_path):
    """The driver is stopped meanwhile, so that it has heard of the result and does not have it."""
    with Driver(three, [sys.executable, "-c", WORK, str(tmp_path)], tmp_path / "log") as driver:
        node, held = caught(three, driver, lambda: any(tmp_path.glob("a-*")))
        os.kill(driver.process.pid, signal.SIGSTOP)
        (tmp_path / "go").touch()
        for pid in held:
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: node.busy() == [])
        time.sleep(1)
        node.kill()
        time.sleep(1)
        os.kill(driver.process.pid, signal.SIGCONT)
        said = driver.ended()
    replace(three, node)
    assert "got [1000000]" in said
    assert "a task is tried again: Object" in said
    assert len(list(tmp_path.glob("a-*"))) == 2


def test_a_node_that_dies_is_not_counted_among_the_retries_of_a_task(three, tmp_path):
    with Driver(three, [sys.executable, "-c", WORK, str(tmp_path)], tmp_path / "log") as driver:
        for deaths in (1, 2):
            node, _ = caught(three, driver, lambda deaths=deaths: len(list(tmp_path.glob("a-*"))) == deaths)
            node.kill()
            replace(three, node)
        wait_until(lambda: len(list(tmp_path.glob("a-*"))) == 3)
        (tmp_path / "go").touch()
        said = driver.ended()
    assert said.count("a task is tried again: NodeDiedError") == 2
    assert "got [1000000]" in said


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_everything_of_the_cluster_ends_with_it(three):
    """Last: what a killed raylet left behind must be gone by now. And nothing of it was open to other machines."""
    listening = []
    for node in (*three.workers, three.head):
        own = [
            connection.laddr.ip.removeprefix("::ffff:")
            for pid in family(node.mark)
            for connection in psutil.Process(pid).net_connections()
            if connection.status == "LISTEN"
        ]
        assert len(own) >= 2, "every node: a raylet's own port and its object manager's"
        listening += own
    assert set(listening) == {"127.0.0.1"}
    for node in (*three.workers, three.head):
        assert all(alive(pid) for pid in family(node.mark))
        node.end()
        assert family(node.mark) == []
