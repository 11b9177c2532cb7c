import os
import signal

import psutil
import pytest

from infra import spread
from infra.spread import Lost, Transient


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


@pytest.mark.ray
def test_a_cluster_of_our_own_listens_on_loopback_alone(ray_cluster):
    me = psutil.Process()
    listening = [
        connection.laddr.ip
        for process in (me, *me.children(recursive=True))
        for connection in process.net_connections()
        if connection.status == "LISTEN"
    ]
    assert len(listening) > 4
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


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
