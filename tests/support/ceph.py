"""A real S3 server: Ceph's RADOS Gateway with a monitor and one store in memory, on loopback, for as long as wanted.

    with ceph.gateway() as gateway:  # Gateway(endpoint, access_key, secret_key)

A keeper process (`python -m tests.support.ceph`) owns the three daemons and their temporary folder. It ends them and
removes the folder when its standard input closes, which it also does when a test run is killed; the daemons die with
the keeper.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
PROGRAMS = {"ceph-mon": "ceph-mon", "ceph-osd": "ceph-osd", "radosgw": "radosgw"}  # program: Debian's package
INSTALL = "make services"
SECONDS = 90  # to start in; it takes one or two
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"}  # nothing of our Python's

# Every ms_*_mode must be crc: the default, secure, is refused where daemons have no keys (those of S3 are checked).
# A monitor that proposes every 0.05 s instead of every second makes the gateway's pools in 1 s instead of 11.
CONF = """[global]
fsid = {fsid}
mon_host = v2:127.0.0.1:{mon_port}
ms_bind_ipv6 = false
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_mon_client_mode = crc
ms_mon_service_mode = crc
ms_mon_cluster_mode = crc
ms_cluster_mode = crc
ms_service_mode = crc
ms_client_mode = crc
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
mon_allow_pool_size_one = true
mon_data_avail_crit = 1
paxos_propose_interval = 0.05
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_objectstore = memstore
memstore_device_bytes = 4G
run_dir = {folder}
mon_data = {folder}/mon
osd_data = {folder}/osd
rgw_data = {folder}/rgw
log_file = {folder}/$name.log
crash_dir = {folder}
admin_socket =
rgw_frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw_thread_pool_size = 16
"""


@dataclass(frozen=True)
class Gateway:
    """An S3 server and a user of it. `dataclasses.replace(gateway, endpoint=...)` is the same one through a proxy."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """The standard variables that lead there, and keep the profiles of whoever runs the tests out of it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def client(self) -> Any:
        """boto3's client: past our own storage."""
        import boto3

        keys = {"aws_access_key_id": self.access_key, "aws_secret_access_key": self.secret_key}
        return boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", **keys)

    def make_bucket(self, name: str) -> str:
        """Its url."""
        self.client().create_bucket(Bucket=name)
        return f"s3://{name}"

    def objects(self, bucket: str) -> Iterator[tuple[str, bytes]]:
        """(key, content) of everything in the bucket of this url."""
        client, name = self.client(), bucket.removeprefix("s3://")
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
            for item in page.get("Contents", []):
                yield item["Key"], client.get_object(Bucket=name, Key=item["Key"])["Body"].read()


def missing() -> list[str]:
    """Debian's packages that are not installed; `make services` installs them."""
    return [package for program, package in PROGRAMS.items() if shutil.which(program, path=ENVIRONMENT["PATH"]) is None]


@contextlib.contextmanager
def gateway() -> Iterator[Gateway]:
    """Raises RuntimeError, with the end of the daemons' logs, where the server does not start."""
    keeper = subprocess.Popen(
        [sys.executable, "-m", "tests.support.ceph"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said = keeper.stdout.readline()
        if not said:
            raise RuntimeError("Ceph did not start: see above")
        yield Gateway(**json.loads(said))
    finally:
        keeper.stdin.close()
        keeper.terminate()  # too: a process forked meanwhile, a loader's worker, may hold the other end of that pipe
        keeper.wait()


def keep() -> None:
    """Start the daemons, say where they are, and stop them at the end of standard input."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    folder = Path(tempfile.mkdtemp(prefix="ceph-"))
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        print(json.dumps(asdict(start(folder, daemons))), flush=True)
        sys.stdin.read()
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        print(f"{error}\n{logs(folder)}", file=sys.stderr)
        raise SystemExit(1) from error
    finally:
        for daemon in reversed(daemons):
            daemon.kill()  # the store asks 3 s for a SIGTERM, and what it holds is memory
            daemon.wait()
        shutil.rmtree(folder)


def start(folder: Path, daemons: list[subprocess.Popen[bytes]]) -> Gateway:
    """Each daemon is in `daemons` as soon as it runs."""
    mon_port, port = free_port(), free_port()
    fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir()
    conf = folder / "ceph.conf"
    conf.write_text(CONF.format(fsid=fsid, folder=folder, mon_port=mon_port, port=port))

    def call(*words: str) -> str:
        program, *rest = words
        flags = [] if program == "monmaptool" else ["-c", str(conf)]
        done = subprocess.run(
            [program, *flags, *rest], env=ENVIRONMENT, capture_output=True, text=True, timeout=SECONDS
        )
        if done.returncode:
            raise RuntimeError(f"{program} ended with {done.returncode}\n{done.stderr}")
        return done.stdout

    def serve(*words: str) -> subprocess.Popen[bytes]:
        program, *rest = words
        with open(folder / f"{program}.out", "wb") as out:
            daemon = subprocess.Popen(
                [program, "-c", str(conf), "-f", *rest],
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                preexec_fn=die_with_parent,
            )
        daemons.append(daemon)
        return daemon

    call("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{mon_port}]", f"{folder}/monmap")
    call("ceph-mon", "--mkfs", "-i", "a", "--monmap", f"{folder}/monmap")
    serve("ceph-mon", "-i", "a")
    call("ceph", "--connect-timeout", str(SECONDS), "osd", "new", osd)
    call("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
    serve("ceph-osd", "-i", "0")
    # Ceph makes the keys: as flags they would stand in the process list.
    user = json.loads(call("radosgw-admin", "user", "create", "--uid=tester", "--display-name=tester"))["keys"][0]
    radosgw = serve("radosgw", "-n", "client.rgw")
    endpoint = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + SECONDS
    while not answers(endpoint):
        if radosgw.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"radosgw does not answer at {endpoint}")
        time.sleep(0.1)
    return Gateway(endpoint, user["access_key"], user["secret_key"])


def answers(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(endpoint, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    os.setpgid(0, 0)


def logs(folder: Path) -> str:
    files = sorted([*folder.glob("*.out"), *folder.glob("*.log")])
    return "\n".join(f"{file.name}:\n{file.read_text(errors='replace')[-2000:]}" for file in files)


if __name__ == "__main__":
    keep()
