"""A quick imitation of S3 in a process of its own, on loopback; it takes any key for good."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.support import ceph
from tests.support.ceph import Gateway
from tests.support.ports import free_port

SECONDS = 60  # to start in; it takes two


@contextlib.contextmanager
def gateway() -> Iterator[Gateway]:
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=ceph.die_with_parent,
    )
    try:
        deadline = time.monotonic() + SECONDS
        while not ceph.answers(f"http://127.0.0.1:{port}"):
            assert server.poll() is None and time.monotonic() < deadline, f"moto did not start on port {port}"
            time.sleep(0.1)
        yield Gateway(f"http://127.0.0.1:{port}", "reader", "a-secret-that-no-file-may-hold")
    finally:
        server.kill()
        server.wait()
