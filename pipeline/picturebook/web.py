"""The picture book's web server: one process, one event loop, every image drawn when it is asked for.

The url says everything, so the server keeps no state. asyncio and a few lines of HTTP/1.1 instead of the standard
library's threading server: a thread and a parsed e-mail header a connection cost it more than drawing the image.
"""

import asyncio
import errno
import os
import re
import sys
import time
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus

import numpy as np

from pipeline.picturebook.catalogue import ALL, USUAL
from pipeline.picturebook.draw import encoded, jpeg
from pipeline.picturebook.faults import Fault, Faults, outcome

HOST = "127.0.0.1"
LONGEST_REQUEST = 16_384  # bytes, headers included
SEEDS, ROWS = 10**20 - 1, 10**18  # the largest seed, and what rows lie below
PATH = re.compile(r"/(-?\d{1,20})/(?:(\d{1,4})/)?(\d{1,18})\.jpg")  # /SEED/ROW.jpg, or /SEED/THINGS/ROW.jpg
PAGE = b"<!doctype html><title>Gone elsewhere</title><p>This picture has moved to our new site.</p>\n"


@dataclass(frozen=True, kw_only=True)
class Book:
    """What is served, and how badly. Raises ValueError for a port that cannot be."""

    port: int
    size: int
    faults: Faults
    timeout_seconds: float = 10.0

    def __post_init__(self) -> None:
        if not 1024 <= self.port <= 65535:
            raise ValueError(f"port is 1024 to 65535, not {self.port}")

    def delay_seconds(self, fault: Fault) -> float:
        """Far above the client's time-out, or far below it: nothing in between, where luck would decide."""
        return {"slow": 3.0 * self.timeout_seconds, "sluggish": 0.02 * self.timeout_seconds}.get(fault, 0.0)


@dataclass(frozen=True)
class Answer:
    status: HTTPStatus
    kind: str
    body: bytes
    claimed: int | None = None  # a Content-Length that is not the body's
    delay_seconds: float = 0.0

    def data(self, head_only: bool, close: bool) -> bytes:
        length = len(self.body) if self.claimed is None else self.claimed
        lines = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            "Server: picturebook",
            f"Date: {formatdate(usegmt=True)}",
            f"Content-Type: {self.kind}",
            f"Content-Length: {length}",
            f"Connection: {'close' if close else 'keep-alive'}",
            "\r\n",
        )
        head = "\r\n".join(lines).encode()
        return head if head_only else head + self.body


def answer(book: Book, path: str) -> Answer:
    """What `path` gives: pure, so the same bytes every time."""
    asked = PATH.fullmatch(path)
    if asked is None:
        return _page(HTTPStatus.NOT_FOUND)
    seed, things, row = int(asked[1]), int(asked[2] or USUAL), int(asked[3])
    if not 2 <= things <= len(ALL):
        return _page(HTTPStatus.NOT_FOUND)
    fault = outcome(seed, row, book.faults)
    if fault == "not_found":
        return _page(HTTPStatus.NOT_FOUND)
    if fault == "server_error":
        return _page(HTTPStatus.SERVICE_UNAVAILABLE)
    if fault == "wrong_type":
        return _page(HTTPStatus.OK)
    if fault == "tiny":
        side = 1 + row % 2
        return Answer(HTTPStatus.OK, "image/jpeg", jpeg(np.full((side, side, 3), 255, np.uint8)))
    body = encoded(seed, row, book.size, things)
    if fault == "truncated":
        return Answer(HTTPStatus.OK, "image/jpeg", body[: len(body) // 2], claimed=len(body))
    return Answer(HTTPStatus.OK, "image/jpeg", body, delay_seconds=book.delay_seconds(fault))


async def serve(book: Book, parent: int | None) -> None:
    """Serve on 127.0.0.1 until `parent` (a process id) is this process's parent no more; None: until stopped.

    Prints one line once it answers. Raises ValueError if the port is taken.
    """
    loop = asyncio.get_running_loop()
    deadline = time.monotonic() + 2.0
    while True:
        try:
            listening = await loop.create_server(lambda: _Connection(book), HOST, book.port, backlog=1024)
            break
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            if time.monotonic() > deadline:  # a moment's grace: a killed owner's server needs one to notice
                raise ValueError(
                    f"port {book.port} on {HOST} is taken by another program; end it, or choose another port"
                ) from error
        await asyncio.sleep(0.1)
    async with listening:
        print(f"serving on http://{HOST}:{book.port}/SEED/ROW.jpg", flush=True)
        while parent is None or os.getppid() == parent:
            await asyncio.sleep(0.2)


class _Connection(asyncio.Protocol):
    """One client: requests one after another, each answered before the next is looked at."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.received = b""
        self.waiting: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self.waiting is not None:
            self.waiting.cancel()

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._next()

    def _next(self) -> None:
        while self.waiting is None and not self.transport.is_closing():
            head, found, rest = self.received.partition(b"\r\n\r\n")
            if len(head) > LONGEST_REQUEST:
                self._send(_page(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE), False, True)
                return
            if not found:
                return
            self.received = rest
            self._handle(head.decode("latin-1"))

    def _handle(self, head: str) -> None:
        request, *headers = head.split("\r\n")
        words = request.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            self._send(_page(HTTPStatus.BAD_REQUEST), False, True)
            return
        method, path, version = words
        asked = {name.lower(): value.strip().lower() for name, _, value in (line.partition(":") for line in headers)}
        wish = asked.get("connection", "keep-alive" if version == "HTTP/1.1" else "close")
        close = wish == "close"
        if method not in ("GET", "HEAD"):  # closed, so that no body of it is taken for the next request
            self._send(_page(HTTPStatus.METHOD_NOT_ALLOWED), False, True)
            return
        reply = answer(self.book, path)
        if reply.delay_seconds:
            loop = asyncio.get_running_loop()
            self.waiting = loop.call_later(reply.delay_seconds, self._late, reply, method == "HEAD", close)
        else:
            self._send(reply, method == "HEAD", close)

    def _late(self, reply: Answer, head_only: bool, close: bool) -> None:
        self.waiting = None
        self._send(reply, head_only, close)
        self._next()

    def _send(self, reply: Answer, head_only: bool, close: bool) -> None:
        close = close or reply.claimed is not None
        self.transport.write(reply.data(head_only, close))
        if close:
            self.transport.close()


def _page(status: HTTPStatus) -> Answer:
    return Answer(status, "text/html; charset=utf-8", PAGE)


def run(book: Book, parent: int | None) -> int:
    """The process's body. Returns its exit status."""
    try:
        asyncio.run(serve(book, parent))
    except ValueError as error:
        print(error, flush=True)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    return 0
