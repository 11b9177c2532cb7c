"""Where S3 is and who asks: one s3fs a process, made from the environment's standard variables and profiles."""

import os
import re
import threading
from dataclasses import dataclass
from functools import lru_cache

from botocore.exceptions import BotoCoreError
from botocore.handlers import add_expect_header
from botocore.session import Session
from fsspec.asyn import sync
from s3fs import S3FileSystem

# A server that stalls costs 5 x 15 s and at most 15 s of waits between: 90 s for a small object.
ATTEMPTS = 5  # unless AWS_MAX_ATTEMPTS, or max_attempts of the profile, is set
TIMEOUT_SECONDS = 15.0  # without a byte, unless ANTIDOTE_S3_TIMEOUT is set


@dataclass(frozen=True)
class Connection:
    """attempts: of one request. timeout_seconds: without a byte."""

    fs: S3FileSystem
    endpoint: str
    attempts: int
    timeout_seconds: float


_LOCK = threading.Lock()


def connection() -> Connection:
    """One client a process and environment: another endpoint or profile may be set at any time."""
    known = sorted((name, value) for name, value in os.environ.items() if name.startswith(("AWS_", "ANTIDOTE_S3_")))
    with _LOCK:
        return _connected(os.getpid(), tuple(known))


@lru_cache(maxsize=2)
def _connected(_: int, __: tuple[tuple[str, str], ...]) -> Connection:
    timeout = os.environ.get("ANTIDOTE_S3_TIMEOUT") or str(TIMEOUT_SECONDS)
    try:
        seconds = float(timeout)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise ValueError(f"ANTIDOTE_S3_TIMEOUT is a number of seconds from 0.1 to 3600, not {timeout!r}")
    try:
        session = Session()
        attempts = session.get_config_variable("max_attempts")
        # Stores other than Amazon's stumble over the checksums that botocore adds by itself since 1.36; the signature
        # holds a sha256 of the body anyway.
        chosen = "AWS_REQUEST_CHECKSUM_CALCULATION" in os.environ or (
            "request_checksum_calculation" in session.get_scoped_config()
        )
        config = {
            "connect_timeout": min(5.0, seconds),
            "read_timeout": seconds,
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "max_pool_connections": 64,
            "request_checksum_calculation": None if chosen else "when_required",
        }
        fs = S3FileSystem(config_kwargs=config, skip_instance_cache=True)
        fs.retries = 1
        client = sync(fs.loop, fs.set_session)
    except (BotoCoreError, ValueError) as error:
        raise ValueError(f"the AWS settings of the environment or profile are wrong: {bare(str(error))}") from error
    if bare(client.meta.endpoint_url) != client.meta.endpoint_url:
        raise ValueError(
            f"the endpoint {bare(client.meta.endpoint_url)} was given with a user or password before its host: take "
            "them out of AWS_ENDPOINT_URL or the profile; keys belong in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    client.meta.events.unregister("before-call.s3", add_expect_header)  # not every server answers 100 Continue
    return Connection(fs, client.meta.endpoint_url, max(1, int(attempts or ATTEMPTS)), seconds)


def bare(text: str) -> str:
    """Without the user and password that an endpoint may have before its host."""
    return re.sub(r"//[^/\s@]*@", "//", text)
