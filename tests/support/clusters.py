"""Real Ray clusters of our own: `ray start`, on loopback alone, each node a process group that is ended by its ids.

Never `ray stop`: it ends every Ray process of the machine, other people's too. A node's processes are found by a mark
in their environment, because what a killed raylet leaves behind has no parent any more.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.ports import free_port
from tests.support.story import alive, command_line, environment, family, gone

OBJECT_STORE_BYTES = 100_000_000
HEALTH = {  # a node that went silent is given up after about 4 s instead of 30
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
# Ray listens on all interfaces unless its address is 127.0.0.1, and takes the machine's own address for that one. Where
# this variable says otherwise it refuses to join a second node: that one gets the check answered and the address kept.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
JOIN = """
from ray._private import ray_constants, services
services.get_node_ip_address = lambda *_: "127.0.0.1"
ray_constants.ENABLE_RAY_CLUSTER = True
from ray.scripts.scripts import main
main()
"""


@dataclass
class Node:
    """One `ray start --block` and all it started."""

    process: "subprocess.Popen[bytes]"
    mark: str
    folder: Path

    @property
    def raylet(self) -> int:
        """Its process id."""
        return next(pid for pid in family(self.mark) if "/raylet/raylet " in command_line(pid))

    def busy(self) -> list[int]:
        """Its workers that run a task of `infra.spread` at this moment."""
        return [pid for pid in family(self.mark) if command_line(pid).startswith("ray::_call")]

    def kill(self) -> None:
        """All of it at once, as when the power fails."""
        for pid in family(self.mark):
            _kill(pid, signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        """SIGTERM, then SIGKILL; returns when nothing of it is left."""
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        deadline = time.monotonic() + 5
        while (left := [pid for pid in family(self.mark) if alive(pid)]) and time.monotonic() < deadline:
            time.sleep(0.1)
        for pid in left:
            _kill(pid, signal.SIGKILL)
        self.process.wait()
        gone(left, 20)


@dataclass
class Cluster:
    """address: of its head, for RAY_ADDRESS. dashboard: the url for `ray job submit`, or None."""

    address: str
    dashboard: str | None
    folder: Path
    given: dict[str, str]
    head: Node | None = None
    workers: list[Node] = field(default_factory=list)

    def driver(self) -> dict[str, str]:
        """The environment of a command that joins it."""
        return LOOPBACK | {"RAY_ADDRESS": self.address, "HOME": str(self.folder)}

    def submitter(self) -> dict[str, str]:
        """The environment of `ray job submit`."""
        return {"RAY_API_SERVER_ADDRESS": str(self.dashboard), "HOME": str(self.folder)}

    def add(self, number: int, cpus: int = 1) -> list[Node]:
        """That many more raylets, started at the same time."""
        new = [self._start([sys.executable, "-c", JOIN, "start", "--address", self.address], cpus, log_monitor=False)
               for _ in range(number)]  # fmt: skip
        self.workers += new
        for node in new:
            _await(node)
            assert self.head is not None and self.head.process.poll() is None, (self.head.folder / "said").read_text()
        return new

    def _start(self, words: list[str], cpus: int, log_monitor: bool = True) -> Node:
        folder = Path(tempfile.mkdtemp(prefix="n", dir=self.folder))  # short: it ends up in the paths of sockets
        words = [
            *words, "--block", "--node-ip-address", "127.0.0.1", "--num-cpus", str(cpus), "--temp-dir", str(folder),
            "--object-store-memory", str(OBJECT_STORE_BYTES), "--min-worker-port", "0", "--max-worker-port", "0",
             "--include-log-monitor", str(log_monitor).lower(),
            "--dashboard-agent-listen-port", str(free_port()), "--metrics-export-port", str(free_port()),
        ]  # fmt: skip
        mark = uuid.uuid4().hex
        with open(folder / "said", "wb") as said:
            process = subprocess.Popen(
                words,
                cwd=self.folder,  # not the checkout: a cluster has our packages from elsewhere, or not at all
                env=environment(mark) | LOOPBACK | HEALTH | {"HOME": str(self.folder)} | self.given,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Node(process, mark, folder)


@contextmanager
def cluster(
    *, cpus: int = 2, workers: int = 0, dashboard: bool = False, given: dict[str, str] | None = None
) -> Iterator[Cluster]:
    """A head with `cpus` logical CPUs and that many raylets of one CPU beside it. given: more environment."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    port, web = free_port(), free_port()
    ports = {"AUTOSCALER_METRIC_PORT": str(free_port()), "DASHBOARD_METRIC_PORT": str(free_port())}
    made = Cluster(f"127.0.0.1:{port}", f"http://127.0.0.1:{web}" if dashboard else None, folder, ports | (given or {}))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(lambda: [node.end() for node in [*made.workers, made.head] if node is not None])
        words = [
            str(Path(sys.executable).parent / "ray"), "start", "--head", "--port", str(port),
            "--include-dashboard", str(dashboard).lower(), "--dashboard-host", "127.0.0.1",
            "--dashboard-port", str(web),
            "--ray-client-server-port", str(free_port()),
        ]  # fmt: skip
        made.head = made._start(words, cpus)
        _await(made.head)
        if workers:
            made.add(workers)
        yield made


def _await(node: Node, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while "block forever" not in (said := (node.folder / "said").read_text()):
        assert node.process.poll() is None, f"ray start ended with {node.process.returncode}: {said[-3000:]}"
        assert time.monotonic() < deadline, f"ray start takes more than {seconds} s: {said[-3000:]}"
        time.sleep(0.1)


def _kill(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
