"""The story of infra/jobs/demo.sh, shortened: in a bucket, there again, and on disk; watched for secrets meanwhile."""

import base64
import contextlib
import io
import os
import shutil
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from tests.support.ceph import Gateway
from tests.support.ports import free_port
from tests.support.story import ROOT, environment, family, gone

SHORT = {
    "ROWS": "1200",
    "CLEAN_ROWS": "240",
    "PICTURES": "140",
    "PRESET": "tiny",
    "FINETUNE_PRESET": "tiny",
}


@dataclass
class Watch:
    """Command lines of every process on this machine, looked at ten times a second."""

    secrets: tuple[bytes, ...]
    seen: set[str] = field(default_factory=set)
    exposed: set[str] = field(default_factory=set)

    def look(self) -> None:
        for place in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                words = place.read_bytes()
                self.seen.update(word.decode(errors="replace").rsplit("/", 1)[-1] for word in words.split(b"\0")[:4])
                if any(secret in words for secret in self.secrets):
                    self.exposed.add(words.replace(b"\0", b" ").decode(errors="replace"))


@contextlib.contextmanager
def watching(secrets: Iterable[bytes]) -> Iterator[Watch]:
    watch, ended = Watch(tuple(secrets)), threading.Event()

    def go_on() -> None:
        while not ended.wait(0.1):
            watch.look()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()


@dataclass(frozen=True)
class Both:
    """What the stories left. said: stdout and stderr by "s3", "again", "disk". temp: their TMPDIR, with Ray's logs."""

    bucket: str
    disk: Path
    gateway: Gateway
    token: str = field(repr=False)
    said: dict[str, tuple[str, str]]
    seconds: dict[str, float]
    before: dict[str, bytes] = field(repr=False)
    """What the bucket held before "again"."""
    events: Path
    temp: Path
    watch: Watch

    @property
    def variables(self) -> dict[str, str]:
        return self.gateway.environment | {"AWS_SESSION_TOKEN": self.token}

    @property
    def secrets(self) -> tuple[bytes, ...]:
        return tuple(text for secret in (self.gateway.secret_key, self.token) for text in spellings(secret))


@contextlib.contextmanager
def told(gateway: Gateway, folder: Path) -> Iterator[Both]:
    """Raises AssertionError, with what the script said, if one of the stories fails."""
    mark, token = uuid.uuid4().hex, f"token-{uuid.uuid4().hex}"
    temp = Path(tempfile.mkdtemp(prefix="b-"))  # Ray's sockets lie in it: their paths may have 107 letters
    made = Both(
        bucket=gateway.make_bucket("story"),
        disk=folder / "disk",
        gateway=gateway,
        token=token,
        said={},
        seconds={},
        before={},
        events=folder / "events.jsonl",
        temp=temp,
        watch=Watch(()),
    )
    own = {"TMPDIR": str(temp), "RAY_TMPDIR": str(temp), "HOME": str(temp)}
    own |= {"ANTIDOTE_CACHE": str(folder / "cache"), "ANTIDOTE_LOG": str(made.events)}
    variables = {name: value for name, value in environment(mark).items() if not name.startswith("AWS_")}
    variables |= made.variables | own | SHORT | {"PORT": str(free_port())}
    try:
        with watching(made.secrets) as watch:
            for name, out in (("s3", f"{made.bucket}/x"), ("again", f"{made.bucket}/x"), ("disk", str(made.disk))):
                if name == "again":
                    made.before.update(gateway.objects(made.bucket))
                start = time.monotonic()
                done = subprocess.run(
                    ["infra/jobs/demo.sh", out], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=900
                )
                made.seconds[name] = time.monotonic() - start
                made.said[name] = done.stdout, done.stderr
                assert done.returncode == 0, f"{name}: {done.stdout[-3000:]}\n{done.stderr[-5000:]}"
        made.watch.seen.update(watch.seen)
        made.watch.exposed.update(watch.exposed)
        yield made
    finally:
        gone(family(mark))
        shutil.rmtree(temp)


def spellings(secret: str) -> list[bytes]:
    """As it is, and within base64 at each alignment: so Ray hands JSON to its agents, on their command lines."""
    inside = (base64.b64encode(bytes(shift) + secret.encode())[start:-4] for shift, start in enumerate((0, 2, 3)))
    return [secret.encode(), *inside]


def holding(files: Iterable[tuple[str, bytes]], secrets: Iterable[bytes]) -> list[str]:
    """Names of the files in which a secret stands; a parquet file is looked at as it lies and unpacked."""
    found = []
    for name, data in files:
        texts = [data]
        if name.endswith(".parquet"):
            table = pq.read_table(io.BytesIO(data))
            texts += [repr(table.to_pydict()).encode(), repr(table.schema.metadata).encode()]
        if any(secret in text for secret in secrets for text in texts):
            found.append(name)
    return found


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """(path within, content) of every regular file."""
    for root, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(root, name)
            if path.is_file() and not path.is_symlink():
                yield str(path.relative_to(folder)), path.read_bytes()
