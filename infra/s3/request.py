"""One request of S3 through s3fs, tried a bounded number of times, with its errors in plain words.

`tried` is the only loop that retries: those of s3fs and botocore are off, so that a server that is down costs ATTEMPTS
requests and not the product of three layers. What s3fs offers above single requests is not used: it believes a body
that was cut consistently, remembers listings, and swallows errors of bulk deletes.
"""

import asyncio
import random
import socket
import time
from collections.abc import Callable
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
from botocore.parsers import ResponseParserError
from fsspec.asyn import sync
from s3fs import S3FileSystem

from infra.s3 import session
from infra.s3.session import bare

T = TypeVar("T")

PAUSE_SECONDS = 1.0  # before the second try; then 2, 4, 8
SLOWEST = 64 * 2**10  # bytes a second; a server that drips, or stops reading in the middle, is slower
PIECE = 8 * 2**20  # bytes that one reply holds at most

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


_KNOWN = (BotoCoreError, ClientError, ResponseParserError, Unlike)


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
    there = session.connection()
    body = arguments.get("Body")
    seconds = there.timeout_seconds + (PIECE if body is None else len(body.getbuffer())) / SLOWEST
    try:
        return sync(there.fs.loop, _asked, there.fs, operation, where | arguments, seconds)
    except (OSError, aiohttp.ClientError) as error:
        failure = _meant(error, seconds)
    raise failure  # out here: inside, what s3fs translated would become its own context


def _meant(error: Exception, seconds: float) -> Exception:
    """One of `_KNOWN`, out of s3fs's translation of it or what neither it nor aiobotocore translates."""
    for known in (error, error.__cause__):
        if isinstance(known, _KNOWN):
            return known
    if isinstance(error, TimeoutError):
        return Unlike(f"not done in {seconds:.0f} s")
    return Unlike(f"the connection was cut ({type(error).__name__}: {error})")


async def _asked(fs: S3FileSystem, operation: str, arguments: dict[str, Any], seconds: float) -> Any:
    async with asyncio.timeout(seconds):
        reply = await fs._call_s3(operation, **arguments)
        if "Body" in reply:
            async with reply["Body"] as body:
                reply["Body"] = await body.read()
        return reply


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
    connection = session.connection()
    started = time.monotonic()
    enough_seconds = connection.attempts * (connection.timeout_seconds + 3 * PAUSE_SECONDS)
    attempt = 0
    while True:
        attempt += 1
        try:
            return call()
        except _KNOWN as error:
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
    return " ".join(bare(text).split())[:300]


def _endpoint() -> str:
    return bare(session.connection().endpoint)


def _unresolved(error: BaseException | None) -> int | None:
    """The resolver's error number, if a name that it does not know lies under this error."""
    while error is not None and not isinstance(error, socket.gaierror):
        error = error.__cause__ or error.__context__
    return error.errno if error is not None else None
