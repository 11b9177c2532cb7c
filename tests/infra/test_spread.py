import os
import signal
import subprocess
import sys
import time

import pytest

from infra import cluster, spread
from infra.errors import Lost, Transient
from tests.support.story import environment


class Work:
    """Writes a file per attempt, so that a test can count attempts across processes."""

    def __init__(self, folder):
        self.folder = str(folder)

    def attempts(self, task):
        return len([name for name in os.listdir(self.folder) if name.startswith(f"{task}-")])

    def __call__(self, task):
        number = self.attempts(task)
        open(os.path.join(self.folder, f"{task}-{number}"), "w").close()
        if task == "flaky" and number < 2:
            raise Transient("busy")
        if task == "killed" and number == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if task == "broken":
            raise RuntimeError("no use")
        if task == "bad":
            raise ValueError("bad input")
        return task.upper()


def run(work, tasks, backend):
    return spread.spread(work, tasks, backend=backend, what="testing", unit="tasks")


def test_results_come_in_the_order_of_tasks(tmp_path):
    assert run(Work(tmp_path), ["a", "b", "c"], "local") == ["A", "B", "C"]
    assert run(Work(tmp_path), [], "ray") == []


def test_a_passing_cause_is_retried_and_another_is_not(tmp_path):
    work = Work(tmp_path)
    assert run(work, ["flaky"], "local") == ["FLAKY"]
    assert work.attempts("flaky") == 3
    with pytest.raises(Lost, match=r"2 of 3 have no result \(broken, broken\).*RuntimeError: no use"):
        run(work, ["broken", "a", "broken"], "local")
    assert work.attempts("a") == 1, "the rest is done all the same"


def test_bad_input_stops_everything(tmp_path):
    with pytest.raises(ValueError, match="bad input"):
        run(Work(tmp_path), ["bad", "a"], "local")


LISTENING = """
import psutil
from infra import cluster
cluster.connect(num_cpus=1)
for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
    for connection in process.net_connections():
        if connection.status == "LISTEN":
            print(connection.laddr.ip)
"""


@pytest.mark.ray
def test_a_cluster_of_our_own_listens_on_loopback_alone():
    done = subprocess.run([sys.executable, "-c", LISTENING], env=environment(), capture_output=True, text=True)
    listening = done.stdout.split()
    assert len(listening) > 4, done.stderr
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


@pytest.mark.ray
def test_where_ray_was_imported_too_early_no_cluster_is_started():
    early = [sys.executable, "-c", f"import ray{LISTENING}"]
    done = subprocess.run(early, env=environment(), capture_output=True, text=True)
    assert "AssertionError: ray was imported before connect" in done.stderr
    assert done.stdout == ""


@pytest.mark.ray
def test_on_ray_a_killed_worker_is_replaced_and_a_broken_task_is_named(tmp_path, ray_cluster):
    work = Work(tmp_path)
    assert run(work, ["a", "flaky", "killed", "b"], "ray") == ["A", "FLAKY", "KILLED", "B"]
    assert work.attempts("killed") == 2
    with pytest.raises(Lost, match="no use"):
        run(work, ["broken", "c"], "ray")
    assert work.attempts("c") == 1
    with pytest.raises(ValueError, match="bad input"):
        run(work, ["bad"], "ray")


def test_where_no_task_comes_back_the_run_says_what_it_waits_for(monkeypatch, capsys):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(cluster, "_nodes", lambda: ([2.0, 0.0], 0.0))
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 0.02)
    capacity = cluster.Capacity(4)
    capacity.heard(True, 8)
    time.sleep(0.03)
    capacity.heard(False, 8)
    said = capsys.readouterr().err
    assert "8 tasks are out and none came back for 0 s; the cluster has 2 CPUs, 0 of them free" in said
    assert "no node has the 4 that a task takes" in said
    capacity.heard(False, 8)
    assert capsys.readouterr().err == "", "not again at once"


def test_a_growing_cluster_is_given_more_tasks(monkeypatch):
    cpus = [0.0]
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(cluster, "_cpus", lambda: cpus[0])
    capacity = cluster.Capacity(1)
    assert capacity.limit() == 2, "or an autoscaler would never see that anything is wanted"
    cpus[0] = 100.0
    assert capacity.limit() == 2, "not asked at every task"
    capacity.asked_at -= 10
    assert capacity.limit() == 200


@pytest.mark.ray
def test_a_task_that_no_machine_here_can_hold_is_refused_instead_of_waited_for(tmp_path, ray_cluster):
    with pytest.raises(ValueError, match="a task takes 64 CPUs and this machine has 4"):
        spread.spread(Work(tmp_path), ["a"], backend="ray", what="testing", unit="tasks", num_cpus=64)
