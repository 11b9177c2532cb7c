"""The Ray cluster that `infra.spread` works on: joined, or started on this machine; and how much it can take."""

import logging
import math
import os
import re
import socket
import sys
import time

from infra import log

PATIENCE_SECONDS = 30.0
_AGAIN_SECONDS = 5.0


def connect(num_cpus: int | None = None) -> None:
    """Join the cluster of `RAY_ADDRESS`, or start one on this machine that is bound to loopback.

    num_cpus: logical CPUs of a started one; this machine's by default. Raises ValueError if no cluster is there.
    """
    if not _joins():
        # Ray replaces a node address of 127.0.0.1 by the machine's own and listens on all of its interfaces; only this
        # variable, read when ray is imported and meant for other systems, keeps it on loopback.
        late = "ray" in sys.modules and os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER") != "0"
        assert not late, "ray was imported before connect (img2dataset does it): it would listen on every interface"
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        # Else ray.init waits for workers that were started ahead, and for ever if one of them dies while it starts.
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    # A token left in the home folder by another session would half-enable authentication: say which mode.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # infra.spread says what failed; Ray would add a traceback of each task that nobody asks about any more.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    import ray

    if ray.is_initialized():
        return
    if _joins():
        address = os.environ["RAY_ADDRESS"]
        _check_reachable(address)
        try:
            ray.init(logging_level=logging.WARNING)
        except (ConnectionError, RuntimeError) as error:  # "auto" found nobody; another version of Ray or of Python
            said = " ".join(str(error).split())
            raise ValueError(f"cannot join the Ray cluster at RAY_ADDRESS={address}: {said}") from error
        return
    inherited = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    ray.init(
        address="local",
        num_cpus=num_cpus,
        include_dashboard=False,
        runtime_env={"env_vars": inherited} if inherited else None,
        logging_level=logging.WARNING,
    )
    log.say(f"started Ray on this machine: {int(ray.cluster_resources().get('CPU', 0))} CPUs")


def _joins() -> bool:
    return os.environ.get("RAY_ADDRESS", "") not in ("", "local")


def _check_reachable(address: str) -> None:
    """ray.init tries an address where nobody listens for more than ten minutes, without a word."""
    if address == "auto":
        return
    named = re.fullmatch(r"\[?([\w.:-]+?)\]?:(\d+)", address)
    if named is None:
        raise ValueError(
            f"RAY_ADDRESS is host:port of a cluster's head, not {address!r}; "
            "the url of its dashboard is for `ray job submit`, as RAY_API_SERVER_ADDRESS"
        )
    try:
        socket.create_connection((named[1], int(named[2])), timeout=10).close()
    except OSError as error:
        raise ValueError(f"no Ray cluster answers at RAY_ADDRESS={address}: {error}") from error


class Capacity:
    """How many tasks to hand out, asked anew now and then since clusters grow; and a word where none comes back."""

    def __init__(self, num_cpus: float) -> None:
        self.num_cpus, self.asked_at, self.known = num_cpus, -math.inf, 0
        self.heard_at, self.patience = time.monotonic(), PATIENCE_SECONDS
        if not _joins() and (there := _cpus()) < num_cpus:
            raise ValueError(f"a task takes {num_cpus:g} CPUs and this machine has {there:g}")

    def limit(self) -> int:
        """Two a CPU; and two where there is no CPU yet, so that an autoscaler sees what is wanted."""
        if time.monotonic() - self.asked_at > _AGAIN_SECONDS:
            self.known = max(2, int(2 * _cpus() / self.num_cpus))
            self.asked_at = time.monotonic()
        return self.known

    def heard(self, something: bool, flying: int) -> None:
        """Call it after each wait: whether a task came back, and how many are out."""
        if something:
            self.heard_at, self.patience = time.monotonic(), PATIENCE_SECONDS
        elif (silent := time.monotonic() - self.heard_at) > self.patience:
            self.patience = 4 * silent
            log.warn(f"{flying} tasks are out and none came back for {silent:.0f} s; {self._said()}")

    def _said(self) -> str:
        nodes, free = _nodes()
        said = f"the cluster has {sum(nodes):g} CPUs, {free:g} of them free"
        if max(nodes, default=0) < self.num_cpus:
            said += f", but no node has the {self.num_cpus:g} that a task takes: waiting for one"
        return said


def _cpus() -> float:
    import ray

    return float(ray.cluster_resources().get("CPU", 0))


def _nodes() -> tuple[list[float], float]:
    """The CPUs of every living node, and how many are free in all."""
    import ray

    nodes = [float(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    return nodes, float(ray.available_resources().get("CPU", 0))
