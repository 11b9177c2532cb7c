"""One request of S3 through s3fs, tried a bounded number of times, with its errors in plain words.

`tried` is the only loop that retries: those of s3fs and botocore are off, so that a server that is down costs ATTEMPTS
requests and not the product of three layers. What s3fs offers above single requests is not used: it believes a body
that was cut consistently, remembers listings, and swallows errors of bulk deletes.
"""

import os
import random
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from botocore.exceptions import ConnectionError as NoConnection
from botocore.handlers import add_expect_header
from botocore.parsers import ResponseParserError
from botocore.session import Session
from fsspec.asyn import sync
from s3fs import S3FileSystem

T = TypeVar("T")

# A server that stalls costs 5 x 15 s and at most 15 s of waits between: 90 s for a small object.
ATTEMPTS = 5  # unless AWS_MAX_ATTEMPTS, or max_attempts of the profile, is set
TIMEOUT_SECONDS = 15.0  # without a byte, unless ANTIDOTE_S3_TIMEOUT is set
PAUSE_SECONDS = 1.0  # before the second try; then 2, 4, 8

_AGAIN = (
    "BadDigest ConditionalRequestConflict IncompleteBody OperationAborted RequestTimeout SlowDown Throttling "
    "ThrottlingException TooManyRequests XAmzContentSHA256Mismatch"
).split()
_CREDENTIALS = (
    "401 403 AccessDenied ExpiredToken ExpiredTokenException InvalidAccessKeyId InvalidSecurity InvalidToken "
    "RequestExpired SignatureDoesNotMatch TokenRefreshRequired"
).split()
_REGION = "301 AuthorizationHeaderMalformed IllegalLocationConstraintException PermanentRedirect".split()


class Unlike(Exception):
    """What arrived is not what the server has."""


class Gone(ConnectionError):
    """A multipart upload is not known: it was completed, or ended."""


def split(url: str) -> tuple[str, str]:
    """(bucket, key without slashes around it). Raises ValueError, without repeating it, for a url with credentials."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if ":" in bucket or "@" in bucket:
        raise ValueError(
            "an s3 url is s3://bucket/folder and this one holds more: credentials are never taken from a url (they "
            "would end in logs and files) but from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile; "
            "of an access point give the alias"
        )
    if not bucket:
        raise ValueError(f"{url!r} names no bucket: give s3://bucket/folder")
    return bucket, key.strip("/")


def ask(operation: str, url: str, **arguments: Any) -> Any:
    """One request, not repeated: the reply, its Body as bytes. The url says bucket and key, unless the arguments do."""
    bucket, key = split(url)
    where = {"Bucket": bucket} if "Prefix" in arguments else {"Bucket": bucket, "Key": key}
    fs = _connection().fs
    failure: BaseException | None
    try:
        reply = fs.call_s3(operation, **(where | arguments))
        if "Body" in reply:
            reply["Body"] = sync(fs.loop, _read, reply["Body"])
        return reply
    except (OSError, aiohttp.ClientError) as error:
        known = isinstance(error.__cause__, (BotoCoreError, ClientError, ResponseParserError))  # s3fs translates these
        failure = error.__cause__ if known else Unlike(f"the connection was cut ({type(error).__name__}: {error})")
    assert failure is not None
    raise failure  # out here: inside, the cause would become its own context


async def _read(body: Any) -> bytes:
    async with body:
        data: bytes = await body.read()
        return data


def field(reply: dict[str, Any], name: str) -> Any:
    """What every whole reply of its kind says. botocore makes an empty one of a reply that was cut in its head."""
    if name not in reply:
        raise Unlike(f"a reply without {name}")
    return reply[name]


def tried(verb: str, url: str, call: Callable[[], T]) -> T:
    """What `call` returns, after a bounded number of tries.

    Raises FileNotFoundError; FileExistsError where a condition was refused; ValueError for what the user must change
    (credentials, bucket, endpoint); ConnectionError for everything that may pass, once it has not passed.
    """
    connection = _connection()
    started = time.monotonic()
    enough_seconds = connection.attempts * (connection.timeout_seconds + 3 * PAUSE_SECONDS)
    attempt = 0
    while True:
        attempt += 1
        try:
            return call()
        except (BotoCoreError, ClientError, ResponseParserError, Unlike) as error:
            refused = _refused(error, url)
            if refused is not None:
                raise refused from error
            seconds = time.monotonic() - started
            if attempt >= connection.attempts or seconds > enough_seconds:
                raise _given_up(error, f"cannot {verb} {url}", f"{attempt} tries in {seconds:.0f} s") from error
            # Jittered, so that workers that were told to slow down do not come back together. No result depends on it.
            time.sleep(PAUSE_SECONDS * 2 ** min(attempt - 1, 3) * random.uniform(0.5, 1))


def _refused(error: Exception, url: str) -> Exception | None:
    """What to raise at once; None where another try may do better."""
    if isinstance(error, ClientError):
        code, status = code_of(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in ("NoSuchKey", "404"):
            return FileNotFoundError(url)
        if code == "NoSuchUpload":
            return Gone(f"{url}: its unfinished upload is not known any more")
        if code in ("PreconditionFailed", "412"):
            return FileExistsError(url)
        if code == "NoSuchBucket":
            return ValueError(f"{url}: there is no bucket {split(url)[0]!r} at {_endpoint()}; make it first")
        if code in _AGAIN or status in (408, 429) or (status >= 500 and code != "NotImplemented"):
            return None
        return ValueError(f"{url}: refused by {_endpoint()}: {_reason(error)}{_advice(code)}")
    passing = (FlexibleChecksumError, HTTPClientError, IncompleteReadError, NoConnection, ResponseParserError, Unlike)
    if isinstance(error, passing):
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return ValueError(f"{url}: {_reason(error)}; name the endpoint's own certificate by AWS_CA_BUNDLE")
        return None
    return ValueError(f"{url}: {_reason(error)}{_advice('401' if 'Credential' in type(error).__name__ else '')}")


def _given_up(error: Exception, what: str, tries: str) -> Exception:
    if _unresolved(error) not in (None, socket.EAI_AGAIN):
        return ValueError(f"{what}: there is no such host as that of {_endpoint()}; check AWS_ENDPOINT_URL")
    return ConnectionError(f"{what}: {tries} at {_endpoint()}, the last one: {_reason(error)}")


def _advice(code: str) -> str:
    if code in _CREDENTIALS:
        return (
            "; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, and what they may do in this bucket"
        )
    return "; check AWS_DEFAULT_REGION and AWS_ENDPOINT_URL" if code in _REGION else ""


def code_of(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


_PLAIN: dict[type[Exception], str] = {
    ReadTimeoutError: "no byte came in time",
    ConnectTimeoutError: "no connection in time",
    EndpointConnectionError: "no connection",
    ConnectionClosedError: "the connection was cut",
    ResponseStreamingError: "the connection was cut",
    IncompleteReadError: "the connection was cut",
}


def _reason(error: Exception) -> str:
    if isinstance(error, ClientError):
        message = error.response.get("Error", {}).get("Message", "")
        text = f"{code_of(error)} ({message})" if message else code_of(error)
    elif isinstance(error, Unlike):
        text = str(error)
    else:
        plain = (_PLAIN[kind] for kind in type(error).__mro__ if kind in _PLAIN)
        text = next(plain, f"{type(error).__name__}: {error}")
    return " ".join(_bare(text).split())[:300]


def _bare(text: str) -> str:
    """Without the user and password that an endpoint may have before its host."""
    return re.sub(r"//[^/\s@]*@", "//", text)


def _endpoint() -> str:
    return _bare(_connection().endpoint)


def _unresolved(error: BaseException | None) -> int | None:
    """The resolver's error number, if a name that it does not know lies under this error."""
    while error is not None and not isinstance(error, socket.gaierror):
        error = error.__cause__ or error.__context__
    return error.errno if error is not None else None


@dataclass(frozen=True)
class _Connection:
    fs: S3FileSystem
    endpoint: str
    attempts: int
    timeout_seconds: float


_LOCK = threading.Lock()


def _connection() -> _Connection:
    """One client a process and environment: another endpoint or profile may be set at any time."""
    known = sorted((name, value) for name, value in os.environ.items() if name.startswith(("AWS_", "ANTIDOTE_S3_")))
    with _LOCK:
        return _connected(os.getpid(), tuple(known))


@lru_cache(maxsize=2)
def _connected(_: int, __: tuple[tuple[str, str], ...]) -> _Connection:
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
        raise ValueError(f"the AWS settings of the environment or profile are wrong: {_bare(str(error))}") from error
    if _bare(client.meta.endpoint_url) != client.meta.endpoint_url:
        raise ValueError(
            f"the endpoint {_bare(client.meta.endpoint_url)} was given with a user or password before its host: take "
            "them out of AWS_ENDPOINT_URL or the profile; keys belong in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    client.meta.events.unregister("before-call.s3", add_expect_header)  # not every server answers 100 Continue
    return _Connection(fs, client.meta.endpoint_url, max(1, int(attempts or ATTEMPTS)), seconds)
