"""Objects of S3: the right bytes or one clear error, in bounded time. What each function promises, infra.storage says.

Read: what we write carries its own sha256 as metadata, and what arrives is checked against that. An object of others is
checked against the size and ETag of a fresh HEAD, since a body can be cut with a consistent Content-Length. An ETag is
never taken for an MD5: under KMS, in multipart uploads and in directory buckets it is none.

Written: the signature holds the sha256 of the body, so a server refuses one that was cut. A plain PUT is repeated. If
the reply to a conditional one is lost, its repetition is refused, and equal bytes say that we, or a twin, were first.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from infra.s3.request import PIECE, Gone, Unlike, ask, code_of, field, split, tried

T = TypeVar("T")

PART = 16 * 2**20  # bytes of a multipart upload's part, at least; what is longer than two is sent so
MAX_PARTS = 10_000
THREADS = 4  # pieces or parts of one object at a time
_HASH = "antidote-sha256"


@dataclass(frozen=True)
class _Found:
    """An object as a reply describes it. sha256: of its bytes, where it was we who wrote it."""

    size: int
    etag: str
    sha256: str | None


class _Replaced(Exception):
    """Between two pieces somebody wrote the object anew."""


def read(url: str) -> bytes:
    def once() -> bytes:
        pieces: dict[int, bytes] = {}
        found = _receive(url, pieces.__setitem__)
        data = b"".join(pieces[start] for start in sorted(pieces))
        _check(found, hashlib.sha256(data).hexdigest())
        return data

    return tried("read", url, once)


def download(url: str, path: Path) -> None:
    def once() -> None:
        with open(path, "w+b") as file:
            found = _receive(url, lambda start, data: _write_at(file.fileno(), data, start))
            file.seek(0)
            _check(found, hashlib.file_digest(file, "sha256").hexdigest())

    tried("read", url, once)


def write(url: str, data: bytes) -> None:
    _send(url, len(data), lambda start, stop: data[start:stop])


def upload(path: Path, url: str) -> None:
    with open(path, "rb") as file:
        _send(url, os.fstat(file.fileno()).st_size, lambda start, stop: os.pread(file.fileno(), stop - start, start))


def create(url: str, data: bytes) -> bool:
    try:
        _put(url, data, hashlib.sha256(data).hexdigest(), IfNoneMatch="*")
        return True
    except FileExistsError:
        return read(url) == data


def size(url: str) -> int:
    return tried("look at", url, lambda: _head(url)).size


def exists(url: str) -> bool:
    """Also of a folder. The reply to a HEAD has no body to say which is missing, key or bucket: the listing says it."""
    if split(url)[1]:
        with suppress(FileNotFoundError):
            size(url)
            return True
    return next(_listed(url, _prefix(url), MaxKeys=2), None) is not None  # one may be the folder itself


def names(url: str) -> list[str]:
    prefix = _prefix(url)
    return [key.removeprefix(prefix).rstrip("/") for key in _listed(url, prefix, Delimiter="/")]


def find(url: str) -> list[str]:
    prefix = _prefix(url)
    return [key.removeprefix(prefix) for key in _listed(url, prefix) if not key.endswith("/")]


def stamps(url: str) -> dict[str, str]:
    prefix = _prefix(url)
    found = {item["Key"]: f"{item.get('Size')} {item.get('ETag')}" for item in _items(url, prefix)}
    return {key.removeprefix(prefix): stamp for key, stamp in found.items() if not key.endswith("/")}


def remove(url: str) -> None:
    bucket, key = split(url)
    if not key:
        raise ValueError(f"{url} is a whole bucket, which is never removed: name a folder in it")
    doomed = [found for found in _listed(url, key) if found == key or found.startswith(f"{key}/")]
    _in_parallel(lambda one: tried("remove", url, lambda: ask("delete_object", f"s3://{bucket}", Key=one)), doomed)


# Reading


def _receive(url: str, keep: Callable[[int, bytes], object]) -> _Found:
    """Ask once for a whole object and hand on its pieces (offset, bytes) in any order, from several threads."""
    whole, first = _first(url)
    keep(0, first)
    try:
        _in_parallel(lambda start: keep(start, _piece(url, start, whole)), range(PIECE, whole.size, PIECE))
    except _Replaced as error:
        raise Unlike("it was replaced meanwhile") from error
    if whole.sha256 is None and (now := _head(url)) != whole:
        raise Unlike(f"{whole.size:,} bytes came, of {now.size:,}")
    return whole


def _first(url: str) -> tuple[_Found, bytes]:
    try:
        reply = ask("get_object", url, Range=f"bytes=0-{PIECE - 1}")
    except ClientError as error:
        if not _is_beyond(error):
            raise
        reply = ask("get_object", url)  # an empty object has no first byte
    data: bytes = reply["Body"]
    bounds = reply.get("ContentRange", "")  # bytes 0-8388607/12345678
    total = int(bounds.rpartition("/")[2]) if bounds else len(data)
    if bounds and len(data) != min(total, PIECE):
        raise Unlike(f"{len(data):,} bytes came, of {min(total, PIECE):,}")
    return _found(reply, total), data


def _piece(url: str, start: int, whole: _Found) -> bytes:
    stop = min(start + PIECE, whole.size)

    def once() -> bytes:
        try:
            reply = ask("get_object", url, Range=f"bytes={start}-{stop - 1}")
        except ClientError as error:
            raise (_Replaced() if _is_beyond(error) else error) from error
        data: bytes = reply["Body"]
        if reply.get("ETag", "") != whole.etag:
            raise _Replaced
        if len(data) != stop - start:
            raise Unlike(f"{len(data):,} bytes came, of {stop - start:,} from byte {start:,} on")
        return data

    return tried("read", url, once)


def _is_beyond(error: ClientError) -> bool:
    return code_of(error) in ("InvalidRange", "416")


def _head(url: str) -> _Found:
    reply = ask("head_object", url)
    return _found(reply, field(reply, "ContentLength"))


def _found(reply: dict[str, Any], size: int) -> _Found:
    return _Found(size, reply.get("ETag", ""), reply.get("Metadata", {}).get(_HASH))


def _check(found: _Found, sha256: str) -> None:
    if found.sha256 not in (None, sha256):
        raise Unlike(f"the {found.size:,} bytes that came are not those that were written (sha256 differs)")


def _listed(url: str, prefix: str, **options: Any) -> Iterator[str]:
    """Keys that begin so, and with a Delimiter also folders, which end with a slash; nothing of unfinished uploads."""
    found = (item["Key"] if "Key" in item else item["Prefix"] for item in _items(url, prefix, **options))
    return (key for key in found if not (key == prefix and key.endswith("/")))  # the folder itself


def _items(url: str, prefix: str, **options: Any) -> Iterator[dict[str, Any]]:
    """What a listing says of each key that begins so (`Key`, `Size`, `ETag`), and of each folder (`Prefix`)."""

    def once() -> dict[str, Any]:
        reply: dict[str, Any] = ask("list_objects_v2", url, Prefix=prefix, **options)
        if field(reply, "IsTruncated"):
            options["ContinuationToken"] = field(reply, "NextContinuationToken")
        return reply

    truncated = True
    while truncated:
        page = tried("list", url, once)
        truncated = page["IsTruncated"]
        yield from page.get("Contents", [])
        yield from page.get("CommonPrefixes", [])


def _prefix(url: str) -> str:
    key = split(url)[1]
    return f"{key}/" if key else ""


# Writing


def _put(url: str, data: bytes, sha256: str, **condition: str) -> None:
    # Of plain bytes the socket would have to be rid of all within one timeout; a file is sent in blocks.
    tried("write", url, lambda: ask("put_object", url, Body=io.BytesIO(data), Metadata={_HASH: sha256}, **condition))


def _send(url: str, size: int, part: Callable[[int, int], bytes]) -> None:
    """part: (start, stop) -> these bytes."""
    step = max(PART, -(-size // MAX_PARTS))
    starts = range(0, size, step)
    hashed = hashlib.sha256()
    for start in starts:
        hashed.update(part(start, min(start + step, size)))
    sha256 = hashed.hexdigest()
    if len(starts) <= 2:
        return _put(url, part(0, size), sha256)
    metadata = {_HASH: sha256}
    begun = tried("write", url, lambda: field(ask("create_multipart_upload", url, Metadata=metadata), "UploadId"))

    def send(number: int) -> dict[str, Any]:
        start = starts[number - 1]
        data, which = part(start, min(start + step, size)), {"UploadId": begun, "PartNumber": number}
        etag = tried("write", url, lambda: field(ask("upload_part", url, Body=io.BytesIO(data), **which), "ETag"))
        return {"ETag": etag, "PartNumber": number}

    try:
        whole = {"UploadId": begun, "MultipartUpload": {"Parts": _in_parallel(send, range(1, len(starts) + 1))}}
        there = _completed(url, whole)
    except BaseException:
        with suppress(BotoCoreError, ClientError):  # what stays is invisible, and a lifecycle rule's to remove
            ask("abort_multipart_upload", url, UploadId=begun)
        raise
    if (there.size, there.sha256) != (size, sha256):
        raise ConnectionError(f"{url} has {there.size:,} bytes after an upload of {size:,}, or other ones")


def _completed(url: str, whole: dict[str, Any]) -> _Found:
    try:
        with suppress(Gone):  # it may have been completed, and the reply lost: what is there now says it
            tried("write", url, lambda: ask("complete_multipart_upload", url, **whole))
        return tried("look at", url, lambda: _head(url))
    except FileNotFoundError as error:
        raise ConnectionError(f"{url} is not there after its upload: another one ended it") from error


def _write_at(file: int, data: bytes, start: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(file, view, start)
        view, start = view[done:], start + done


def _in_parallel(call: Callable[[Any], T], items: Iterable[Any]) -> list[T]:
    """The results in order; after the first failure nothing new is begun."""
    with ThreadPoolExecutor(THREADS) as pool:
        futures = [pool.submit(call, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
