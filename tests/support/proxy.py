"""A small HTTP proxy before an S3 server that does to chosen requests what networks and busy servers do.

    with Proxy(endpoint) as proxy:  # speak to proxy.endpoint
        proxy.rules = [Rule("503", "GET", r"/shards/", times=2)]

The bytes of a request reach the server as they are, Host header and signature included. Bodies are kept in memory.
"""

import contextlib
import itertools
import random
import re
import select
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

FAULTS = {
    "503": "SlowDown, before the server hears of it",
    "500": "InternalError, before the server hears of it",
    "reset": "the connection is reset before the server hears of it",
    "lost": "the server does it, and the connection is closed without a reply",
    "cut": "half of the body, then the connection is closed: of the reply, or of what is written",
    "short": "half of the body under a Content-Length that fits: of the reply, or of what is written",
    "stall": "the server does it, half of the reply's body comes, and then nothing more",
}
STALL_SECONDS = 120.0  # unless the client closes the connection before
_ERROR = "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{}</Code><Message>injected</Message></Error>"


@dataclass
class Rule:
    """Does `fault` to requests whose method and path match, from the `first`-th on, `times` times (None: for ever)."""

    fault: str
    method: str = ".*"
    path: str = ""
    first: int = 1
    times: int | None = 1
    seen: int = 0
    done: int = 0

    def __post_init__(self) -> None:
        assert self.fault in FAULTS, self.fault

    def hits(self, method: str, path: str) -> bool:
        if not (re.fullmatch(self.method, method) and re.search(self.path, path)):
            return False
        self.seen += 1
        if self.seen < self.first or (self.times is not None and self.done >= self.times):
            return False
        self.done += 1
        return True


@dataclass
class Chance:
    """Does one of `faults`, drawn from a seed, to a share of all requests."""

    share: float
    faults: tuple[str, ...]
    seed: int = 0
    done: int = 0
    draw: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)

    @property
    def fault(self) -> str:
        return self.draw.choice(self.faults)

    def hits(self, method: str, path: str) -> bool:
        hit = self.draw.random() < self.share
        self.done += hit
        return hit


@dataclass(frozen=True)
class Message:
    """head: up to and with the empty line. body: as it came, chunks and all."""

    head: bytes
    body: bytes

    @property
    def first(self) -> list[str]:
        return self.head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")


class Proxy:
    """endpoint: to be spoken to. requests: (method, path with query) of everything that came in, in order."""

    def __init__(self, target: str) -> None:
        place = urlsplit(target)
        self.target = (place.hostname, place.port)
        self.rules: list[Rule | Chance] = []
        self.requests: list[tuple[str, str]] = []
        self._lock, self._ended = threading.Lock(), threading.Event()

    def __enter__(self) -> "Proxy":
        self._server = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.endpoint = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client, client.makefile("rb") as stream, contextlib.suppress(OSError):
            while (head := _head(stream)) and self._answer(client, stream, head):
                pass

    def _answer(self, client: socket.socket, stream, head: bytes) -> bool:
        """True: the connection goes on."""
        if _header(head, "expect") and _length(head) != 0:
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        request = Message(head, b"".join(_body(stream, head)))
        method, path = request.first[0], unquote(request.first[1])
        with self._lock:
            self.requests.append((method, path))
            fault = next((rule.fault for rule in self.rules if rule.hits(method, path)), None)
        if fault in ("503", "500"):
            code = {"503": "SlowDown", "500": "InternalError"}[fault]
            client.sendall(_reply(f"HTTP/1.1 {fault} {code}", _ERROR.format(code).encode(), method))
            return True
        if fault == "reset":
            _reset(client)
            return False
        if fault in ("cut", "short") and request.body:
            return self._halve(client, request, fault)
        reply = self._forward(request)
        if fault is None:
            client.sendall(reply.head + reply.body)
            return (_header(reply.head, "connection") or "").lower() != "close" and _length(reply.head) is not None
        if fault == "short" and reply.body:
            client.sendall(_shorter(reply))
            return True
        if fault == "short":
            client.sendall(reply.head)
            return True
        if fault != "lost":
            half = reply.head + reply.body[: len(reply.body) // 2] if reply.body else reply.head[:20]
            client.sendall(half)
        if fault == "stall":
            self._wait(client)
        return False

    def _halve(self, client: socket.socket, request: Message, fault: str) -> bool:
        """Half of what is written comes to the server: as the end of the connection, or under its own length."""
        half = request.body[: len(request.body) // 2]
        if fault == "short":
            head = re.sub(rb"(?i)content-length: \d+", b"Content-Length: %d" % len(half), request.head)
            reply = self._forward(Message(head, half))
            client.sendall(reply.head + reply.body)
            return False
        with socket.create_connection(self.target) as server:
            server.sendall(request.head + half)
            server.shutdown(socket.SHUT_RDWR)
        _reset(client)
        return False

    def _forward(self, request: Message) -> Message:
        with socket.create_connection(self.target) as server, server.makefile("rb") as stream:
            server.sendall(request.head + request.body)
            head = _head(stream)
            while head.split(b" ", 2)[1].startswith(b"1"):  # 100 Continue; we have said it
                head = _head(stream)
            empty = request.first[0] == "HEAD" or head.split(b" ", 2)[1] in (b"204", b"304")
            body = b"" if empty else b"".join(_body(stream, head, until_end=True))
            return Message(head, body)

    def _wait(self, client: socket.socket) -> None:
        for _ in range(int(STALL_SECONDS * 10)):
            closed, _, _ = select.select([client], [], [], 0.1)
            if closed or self._ended.is_set():
                return


def _head(stream) -> bytes:
    """Up to the empty line; b"" at the end of the connection."""
    lines = list(itertools.takewhile(lambda line: line not in (b"\r\n", b""), iter(stream.readline, None)))
    return b"".join([*lines, b"\r\n"]) if lines else b""


def _header(head: bytes, name: str) -> str | None:
    found = re.search(rb"(?im)^" + name.encode() + rb":[ \t]*([^\r\n]*)", head)
    return found[1].decode("latin-1") if found else None


def _length(head: bytes) -> int | None:
    """None: chunked, or up to the end."""
    if _header(head, "transfer-encoding"):
        return None
    length = _header(head, "content-length")
    return int(length) if length is not None else None


def _body(stream, head: bytes, until_end: bool = False) -> Iterator[bytes]:
    if (length := _length(head)) is not None:
        data = stream.read(length)
        if len(data) != length:
            raise ConnectionError("cut")
        yield data
    elif (_header(head, "transfer-encoding") or "").lower() == "chunked":
        while True:
            line = stream.readline()
            yield line
            size = int(line.split(b";")[0], 16)
            if size == 0:
                break
            yield stream.read(size + 2)
        while (line := stream.readline()) not in (b"\r\n", b""):
            yield line  # trailers
        yield b"\r\n"
    elif until_end:
        yield stream.read()


def _plain(message: Message) -> bytes:
    """The body without its chunks."""
    if (_header(message.head, "transfer-encoding") or "").lower() != "chunked":
        return message.body
    rest, data = message.body, b""
    while True:
        line, _, rest = rest.partition(b"\r\n")
        size = int(line.split(b";")[0], 16)
        if size == 0:
            return data
        data, rest = data + rest[:size], rest[size + 2 :]


def _shorter(reply: Message) -> bytes:
    """Half of a body, with all lengths in the head made to fit, also that of a range's whole."""
    whole = _plain(reply)
    half = whole[: len(whole) // 2]
    kept = [
        line
        for line in reply.head.rstrip(b"\r\n").split(b"\r\n")
        if not line.lower().startswith((b"content-length", b"transfer-encoding"))
    ]
    head = b"\r\n".join([*kept, b"Content-Length: %d" % len(half)]) + b"\r\n\r\n"
    if found := re.search(rb"(?i)content-range: bytes (\d+)-(\d+)/(\d+)", head):
        start, stop, total = map(int, found.groups())
        total = start + len(half) if stop + 1 == total else total
        head = head.replace(found[0], b"Content-Range: bytes %d-%d/%d" % (start, start + len(half) - 1, total))
    return head + half


def _reply(status: str, body: bytes, method: str) -> bytes:
    head = f"{status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return head + (b"" if method == "HEAD" else body)


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
