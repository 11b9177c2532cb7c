"""What hostile web servers send: a table of named cases, a server for them, and one real download of them all.

    python -m tests.support.hostile_http

downloads every case with `Preparation` and img2dataset and prints what became of each.
"""

import gzip
import itertools
import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from tests.support import hostile_pictures as h

ROOT = Path(__file__).parents[2]

TIMEOUT_SECONDS = 2.0
THREADS = 16
SECRET = "s3cr3t-in-a-url"
OK = "HTTP/1.1 200 OK\r\n"


@dataclass(frozen=True)
class Case:
    """One row of the url table. send: bytes, or what writes them to the socket; allowed: outcomes that are right.

    url: with {site}, {other} (host:port of the server and of one that must see no request); None: /NAME at {site}.
    """

    name: str
    allowed: str
    send: Callable[[], bytes] | Callable[[socket.socket], None] | None = None
    url: str | None = None
    caption: str | None = None
    streams: bool = False

    def link(self, site: str, other: str) -> str:
        place = (self.url or "http://{site}/" + self.name.replace(" ", "-")).replace("{site}", site)
        return place.replace("{other}", other).replace("{port}", other.rpartition(":")[2])


def body(data: bytes, *headers: str, kind: str = "image/jpeg", length: object = None) -> bytes:
    said = [f"Content-Type: {kind}", f"Content-Length: {len(data) if length is None else length}", *headers]
    return (OK + "\r\n".join(said) + "\r\n\r\n").encode("latin-1") + data


def head(status: str, *headers: str) -> bytes:
    return ("\r\n".join([f"HTTP/1.1 {status}", *headers]) + "\r\n\r\n").encode("latin-1")


def for_ever(start: bytes, part: bytes, pause: float = 0.0) -> Callable[[socket.socket], None]:
    def send(connection: socket.socket) -> None:
        connection.sendall(start)
        for _ in itertools.repeat(None):
            connection.sendall(part)
            time.sleep(pause)

    return send


def slowly(data: bytes, start: bytes = b"", pause: float = 0.3) -> Callable[[socket.socket], None]:
    """A byte now, a byte then: each read is quick, the whole is not."""

    def send(connection: socket.socket) -> None:
        connection.sendall(start)
        for byte in data:
            connection.sendall(bytes([byte]))
            time.sleep(pause)

    return send


def silent(connection: socket.socket) -> None:
    time.sleep(3 * TIMEOUT_SECONDS)


@cache
def gzip_bomb() -> bytes:
    return gzip.compress(bytes(200_000_000), 9)


def images() -> Iterator[Case]:
    """Whole answers: (allowed outcomes, name, body)."""
    small, tail = h.jpeg(), h.PAYLOAD + b"PK\x03\x04" + bytes(20)
    many, none, good = "too_many_pixels", "not_an_image", "success"
    elsewhere = b'<meta http-equiv="refresh" content="0; url=http://169.254.169.254/">'
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    entities = f'<!ENTITY l0 "ha">{laughs}<!ENTITY file SYSTEM "file:///etc/passwd">'
    svg = f'<?xml version="1.0"?><!DOCTYPE svg [{entities}]><svg><text>&l9;&file;</text></svg>'
    table: list[tuple[str, str, Callable[[], bytes]]] = [
        # bombs
        (many, "png claims 50000", lambda: h.png(h.SIDE, h.SIDE, 8, 2, zlib.compress(bytes(100)))),
        (many, "png of 50000", lambda: h.zeros_png(h.SIDE, 1, 0)),
        (many, "jpeg claims 50000", lambda: h.resized_header(small, h.SIDE, h.SIDE)),
        (many, "jpeg claims just too much", lambda: h.resized_header(small, 8001, 8000)),
        (many, "jpeg of 50000", lambda: h.grey_jpeg(h.SIDE)),
        (many, "webp claims 50000", lambda: h.wide_webp(h.SIDE)),
        (many, "lossless webp claims 16384", lambda: h.lossless_webp(16384)),
        (none, "gif claims 50000", lambda: h.wide_gif(h.SIDE)),
        (none, "ico holds a png of 50000", lambda: h.icon(h.zeros_png(h.SIDE, 1, 0))),
        (f"{many} {none}", "png claims 2 to the 31", lambda: h.png(2**31 - 1, 2**31 - 1, 8, 2, b"")),
        (none, "png of nothing", lambda: h.png(0, 0, 8, 2, b"")),
        (f"{none} too_small bad_aspect_ratio", "png of one row", lambda: h.png(60_000_000, 1, 8, 0, b"")),
        ("bad_aspect_ratio", "png of a ribbon", lambda: h.png(2000, 20, 8, 0, h.deflated(bytes(2001), 20))),
        ("too_small", "jpeg of eight pixels", lambda: h.encoded(h.picture(8), "JPEG")),
        (good, "rgba png of 8000", lambda: h.zeros_png(8000, 8, 6)),
        (good, "rgba png of 8000 in 16 bits", lambda: h.zeros_png(8000, 16, 6)),
        (good, "progressive jpeg of 8000", lambda: h.progressive_jpeg(8000, 14)),
        (many, "progressive jpeg of 8000 in 2000 scans", lambda: h.progressive_jpeg(8000, 2000)),
        (good, "progressive jpeg in 5000 scans", lambda: h.progressive_jpeg(96, 5000)),
        (f"{none} {good}", "png profile bomb", lambda: h.small_png(h.chunk(b"iCCP", b"p\0\0" + gzip_inside()))),
        (f"{none} {good}", "png text bomb", lambda: h.small_png(h.chunk(b"zTXt", b"t\0\0" + gzip_inside()))),
        (
            f"{none} {good}",
            "png text bombs behind",
            lambda: h.small_png(tail=h.chunk(b"zTXt", b"t\0\0" + gzip_inside())),
        ),
        (f"{none} {good}", "png pixels without end", lambda: h.png(32, 32, 8, 2, h.deflated(bytes(1 << 20), 200))),
        (none, "png of a million chunks", lambda: h.small_png(*[h.chunk(b"tEXt", b"a\0b")] * 700_000)),
        (none, "jpeg of a million segments", lambda: h.with_segments(h.segment(0xFE, b"") * 1_000_000)),
        (none, "jpeg of a million fill bytes", lambda: h.with_segments(b"\xff" * 5_000_000)),
        # rare, but images
        (good, "plain jpeg", lambda: small),
        (good, "progressive jpeg", lambda: h.jpeg(progressive=True)),
        (good, "grey jpeg", lambda: h.encoded(h.picture().convert("L"), "JPEG")),
        (good, "cmyk jpeg", lambda: h.encoded(h.picture().convert("CMYK"), "JPEG")),
        (good, "ycck jpeg", lambda: as_ycck(h.encoded(h.picture().convert("CMYK"), "JPEG"))),
        (good, "png of 16 bits", lambda: h.sixteen_bits(3)),
        (good, "grey png of 16 bits", lambda: h.sixteen_bits(1)),
        (good, "png of 1 bit", lambda: h.encoded(h.picture().convert("1"), "PNG")),
        (good, "interlaced png", h.interlaced_png),
        (good, "palette png", lambda: h.encoded(h.picture().convert("P"), "PNG")),
        (good, "palette png with transparency", lambda: h.encoded(h.picture().convert("P"), "PNG", transparency=3)),
        (good, "rgba png", lambda: h.encoded(h.picture(32, 4), "PNG")),
        (good, "grey png with transparency", lambda: h.encoded(h.picture().convert("LA"), "PNG")),
        (good, "webp with transparency", lambda: h.encoded(h.picture(32, 4), "WEBP")),
        (good, "lossless webp", lambda: h.encoded(h.picture(), "WEBP", lossless=True)),
        (good, "webp of 3000 frames", lambda: h.animated_webp(3000)),
        (good, "png of 3000 frames", lambda: h.animated_png(3000)),
        (none, "gif of 3000 frames", lambda: h.animated_gif(3000)),
        (good, "jpeg on its side", lambda: h.with_segments(h.exif((0x0112, 3, 1, 6 << 16)))),
        (
            good,
            "jpeg with megabytes of exif",
            lambda: h.with_segments(h.segment(0xE1, b"Exif\0\0" + bytes(65000)) * 40),
        ),
        (
            f"{none} {good}",
            "jpeg with exif in a circle",
            lambda: h.with_segments(h.exif((0x8769, 4, 1, 8), following=8)),
        ),
        (
            f"{none} {good}",
            "jpeg with exif out of bounds",
            lambda: h.with_segments(h.exif((0x0112, 2, 2**32 - 1, 2**32 - 1))),
        ),
        (
            good,
            "two images in one jpeg",
            lambda: h.encoded(h.picture(), "MPO", save_all=True, append_images=[h.picture(64)]),
        ),
        # no images
        (none, "nothing", lambda: b""),
        (none, "one byte", lambda: b"\xff"),
        (none, "svg of a billion laughs and a file", lambda: svg.encode()),
        (none, "postscript", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50000 50000\n(x) run\n"),
        (none, "html called jpeg", lambda: b"<!doctype html>" + elsewhere + h.PAYLOAD),
        (none, "pickle", lambda: b"\x80\x04cos\nsystem\n(S'touch HOSTILE-PAYLOAD'\ntR."),
        (none, "script in a gif", lambda: h.animated_gif(1) + h.PAYLOAD),
        (good, "zip behind a jpeg", lambda: small + tail),
        (good, "html behind a png", lambda: h.small_png() + h.PAYLOAD),
        (good, "html behind a webp", lambda: h.encoded(h.picture(), "WEBP") + h.PAYLOAD),
        (good, "script in a jpeg comment", lambda: h.with_segments(h.segment(0xFE, h.PAYLOAD))),
        (good, "script in a png text", lambda: h.small_png(h.chunk(b"tEXt", b"Comment\0" + h.PAYLOAD))),
    ]
    for allowed, name, make in table:
        yield Case(name, allowed, lambda make=make: body(make()))
    for name, data in h.cut_jpeg().items():
        yield Case(f"jpeg cut {name}", none, lambda data=data: body(data))
    for name, place in {"inside IHDR": 20, "inside IDAT": 60, "before IEND": -12}.items():
        yield Case(f"png cut {name}", none, lambda place=place: body(h.small_png()[:place]))
    yield Case("webp cut", none, lambda: body(h.encoded(h.picture(), "WEBP")[:60]))
    # Bodies that say they are packed: nothing here unpacks.
    for coding, make in {"gzip": gzip_bomb, "deflate": lambda: zlib.compress(small)}.items():
        yield Case(f"packed as {coding}", none, lambda c=coding, m=make: body(m(), f"Content-Encoding: {c}"))
    yield Case("not packed, though it says so", good, lambda: body(small, "Content-Encoding: gzip"))
    yield Case("jpeg called html", good, lambda: body(small, kind="text/html"))


@cache
def gzip_inside() -> bytes:
    return h.deflated(bytes(1 << 20), 200)


def as_ycck(data: bytes) -> bytes:
    at = data.index(b"Adobe") + 11
    return data[:at] + b"\x02" + data[at + 1 :]


def framing() -> Iterator[Case]:
    """How long is a body, where do headers end: every way to lie about it."""
    small = h.jpeg()
    chunked = head("200 OK", "Transfer-Encoding: chunked")
    one = f"{len(small):x}\r\n".encode() + small + b"\r\n"
    end = b"0\r\n\r\n"
    answers: list[tuple[str, str, bytes]] = [
        ("truncated", "length too long", body(small, length=len(small) + 1)),
        ("not_an_image", "length too short", body(small, length=len(small) // 2)),
        ("success", "length negative", body(small, length=-5)),
        ("truncated", "length huge", body(small, length="9" * 30)),
        ("success", "length no number", body(small, length="lots")),
        ("bad_answer", "two lengths that differ", body(small, f"Content-Length: {len(small) // 2}")),
        ("success", "two lengths that agree", body(small, f"Content-Length: {len(small)}")),
        ("success", "no length", head("200 OK") + small),
        ("success", "chunks", chunked + one + end),
        (
            "success",
            "chunks and a length",
            head("200 OK", "Transfer-Encoding: chunked", "Content-Length: 7") + one + end,
        ),
        ("truncated", "chunks without an end", chunked + one),
        ("truncated", "a chunk of absurd size", chunked + b"F" * 16 + b"\r\n" + small),
        ("truncated bad_answer", "a chunk size of 70000 digits", chunked + b"F" * 70_000 + b"\r\n" + small),
        ("truncated", "a chunk of negative size", chunked + b"-5\r\n" + small),
        ("truncated", "a chunk size that is no number", chunked + b"lots\r\n" + small),
        (
            "not_an_image",
            "chunks in a coding of their own",
            head("200 OK", "Transfer-Encoding: gzip, chunked") + one + end,
        ),
        ("bad_answer", "HTTP 0.9", small),
        ("bad_answer", "status in words", b"HTTP/1.1 fine OK\r\n\r\n" + small),
        ("bad_answer", "status 99999", b"HTTP/1.1 99999 OK\r\n\r\n" + small),
        ("bad_answer", "HTTP 9.9", b"HTTP/9.9 200 OK\r\n\r\n" + small),
        ("bad_answer", "ssh", b"SSH-2.0-OpenSSH_9.9\r\n"),
        ("bad_answer", "an outcome for a status line", b"success: HTTP Error 200:\r\n\r\n"),
        ("bad_answer", "200 headers", head("200 OK", *["X-More: x"] * 200) + small),
        ("success", "a header with a NUL", head("200 OK", "X-More: a\0b") + small),
        ("success bad_answer", "a header without a colon", head("200 OK", "nonsense") + small),
        ("success", "line ends of one byte", b"HTTP/1.1 200 OK\n\n" + small),
        ("success", "100 Continue twice", head("100 Continue") * 2 + body(small)),
        ("http_101", "switching protocols", head("101 Switching Protocols", "Upgrade: evil") + small),
        ("disallowed", "noai", body(small, "X-Robots-Tag: noai")),
        ("disallowed", "noai for us alone", body(small, "X-Robots-Tag: clip-antidote: NoAI")),
        ("success", "noai for another", body(small, "X-Robots-Tag: otherbot: noai")),
    ]
    for status in (204, 206, 300, 401, 404, 407, 429, 503, 599):
        extra = {429: "Retry-After: 999999999", 503: "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT"}.get(status, "X-A: b")
        realm = 'WWW-Authenticate: Basic realm="give me secrets"'
        answers.append((f"http_{status}", f"status {status}", head(f"{status} timeout: words", extra, realm) + small))
    for allowed, name, data in answers:
        yield Case(name, allowed, lambda data=data: data)
    endless: list[tuple[str, str, Callable[[socket.socket], None]]] = [
        ("too_large", "a body without end", for_ever(head("200 OK") + small, bytes(65536))),
        ("too_large", "chunks without number", for_ever(chunked, b"10000\r\n" + bytes(65536) + b"\r\n")),
        ("too_large", "chunk extensions without end", for_ever(chunked, b"1;" + b"x" * 60_000 + b"\r\nx\r\n")),
        (
            "too_large",
            "trailers without end",
            for_ever(chunked + one + b"0\r\n", b"X-More: " + b"x" * 60_000 + b"\r\n"),
        ),
        ("too_large bad_answer", "headers without end", for_ever(OK.encode(), b"X-More: " + b"x" * 9000 + b"\r\n")),
        ("bad_answer too_large", "a header line without end", for_ever(OK.encode() + b"X-More: ", b"x" * 65536)),
        ("bad_answer too_large", "a status line without end", for_ever(b"HTTP/1.1 200 ", b"x" * 65536)),
        ("too_large", "100 Continue without end", for_ever(head("100 Continue"), head("100 Continue", "X: y"))),
        ("timeout", "a slow body", slowly(small, head("200 OK"))),
        ("timeout", "slow headers", slowly(body(small))),
        ("timeout", "slow chunks", for_ever(chunked, b"1\r\nx\r\n", 0.3)),
        ("timeout", "slow 100 Continue", for_ever(b"", head("100 Continue"), 0.3)),
        ("timeout", "slow trailers", for_ever(chunked + one + b"0\r\n", b"X-More: y\r\n", 0.3)),
        ("timeout", "a body that stops", lambda c: (c.sendall(body(small)[:400]), silent(c))[0]),
        ("timeout", "no answer", silent),
        ("success", "a body in small pieces", slowly(small, head("200 OK"), 0.0)),
    ]
    for allowed, name, send in endless:
        yield Case(name, allowed, send, streams=True)


def redirects() -> Iterator[Case]:
    """To places that must not be reached; {other} sees not one request."""
    inside = "http://127.0.0.1:{port}/latest/meta-data/"
    places: list[tuple[str, str, str]] = [
        ("refused_address", "the metadata service", "http://169.254.169.254/latest/meta-data/"),
        ("refused_address", "the metadata service of IPv6", "http://[fd00:ec2::254]/"),
        ("refused_address", "another port of loopback", inside),
        ("refused_address", "loopback over https", "https://127.0.0.1:{port}/"),
        ("refused_address", "loopback in decimal", "http://2130706433:{port}/"),
        ("refused_address", "loopback in octal", "http://0177.0.0.1:{port}/"),
        ("refused_address", "another loopback", "http://127.8.8.8:{port}/"),
        ("refused_address", "localhost", "http://localhost:{port}/"),
        ("refused_address", "loopback of IPv6", "http://[::1]:{port}/"),
        ("refused_address", "any address", "http://0.0.0.0:{port}/"),
        ("refused_address", "mapped IPv4", "http://[::ffff:127.0.0.1]:{port}/"),
        ("refused_address", "compatible IPv4", "http://[::127.0.0.1]:{port}/"),
        ("refused_address", "NAT64", "http://[64:ff9b::7f00:1]:{port}/"),
        ("refused_address", "6to4", "http://[2002:7f00:1::]:{port}/"),
        ("refused_address", "a private network", "http://10.0.0.1/"),
        ("refused_address", "a carrier's network", "http://100.64.0.1/"),
        ("refused_address", "multicast", "http://224.0.0.1/"),
        ("refused_address", "a name that leads inwards", "http://inwards.hostile.test:{port}/"),
        ("refused_address", "a name that changes its mind", "http://rebinding.hostile.test:{port}/"),
        ("refused_url refused_address", "wide digits", "http://\uff11\uff12\uff17.0.0.1:{port}/"),
        ("refused_scheme", "a file", "file:///etc/passwd"),
        ("refused_scheme", "ftp", "ftp://127.0.0.1:{port}/"),
        ("refused_scheme", "data", "data:image/png;base64,iVBORw0KGgo="),
        ("refused_url", "a user at loopback", "http://169.254.169.254:80@127.0.0.1:{port}/"),
        ("refused_url", "an escaped user", "http://good%40127.0.0.1:{port}/"),
        ("refused_url refused_address", "a backslash", "http://good.example\\@127.0.0.1:{port}/"),
        ("refused_url", "an open bracket", "http://[::1/"),
        ("refused_url", "a port beyond all", "http://127.0.0.1:99999/"),
        ("http_404", "no host", "http:///etc/passwd"),
        ("dns", "a name that is not", "http://nowhere.hostile.test/"),
        ("http_404", "a path with new lines, escaped", "/%0d%0aX-Injected:%201"),
        ("too_many_redirects", "itself", "/to-itself"),
        ("too_many_redirects", "nothing", ""),
        ("success", "an image", "/plain-jpeg"),
        ("success", "an image by one more", "/to-an-image"),
    ]
    for allowed, name, place in places:
        yield Case(f"to {name}", allowed, streams=True, send=lambda c, p=place: send_redirect(c, p))
    for status in (301, 303, 307, 308):
        yield Case(
            f"{status} to loopback",
            "refused_address",
            streams=True,
            send=lambda c, s=status: send_redirect(c, inside, s),
        )
    yield Case("a redirect without a place", "http_302", lambda: head("302 Found"))
    yield Case(
        "a redirect with a folded place", "refused_url http_404", lambda: head("302 Found", "Location: /a\r\n b")
    )
    yield Case(
        "a redirect with a body without end",
        "success",
        for_ever(head("302 Found", "Location: /plain-jpeg"), bytes(65536)),
        streams=True,
    )
    for hop in range(12):
        place = f"/hop-{hop + 1}" if hop < 11 else "/plain-jpeg"
        yield Case(
            f"hop {hop}",
            "success" if hop > 1 else "too_many_redirects",
            streams=True,
            send=lambda c, p=place: send_redirect(c, p),
        )
    yield Case("slow redirects", "timeout", streams=True, send=slow_redirect)


def send_redirect(connection: socket.socket, place: str, status: int = 302) -> None:
    port = connection_ports[connection.getsockname()[1]]
    said = place.replace("{port}", str(port)).encode()
    connection.sendall(f"HTTP/1.1 {status} Found\r\nLocation: ".encode() + said + b"\r\n\r\n")


def slow_redirect(connection: socket.socket) -> None:
    time.sleep(0.8 * TIMEOUT_SECONDS)
    send_redirect(connection, "/slow-redirects")


def table_rows() -> Iterator[Case]:
    """Hostile lines of the url table itself; captions come back as they were given."""
    good = "http://{site}/plain-jpeg"
    urls: list[tuple[str, str, str]] = [
        ("refused_url", "a password", f"http://user:{SECRET}@{{site}}/plain-jpeg"),
        ("refused_url", "a token for a user", f"http://{SECRET}@{{site}}/plain-jpeg"),
        ("refused_url", "a carriage return", "http://{site}/a\rX-Injected: 1\r/b"),
        ("refused_url", "a NUL", good + "\0.png"),
        ("success", "blanks", "http://{site}/plain-jpeg?a b"),
        ("success", "letters beyond ASCII", "http://{site}/plain-jpeg?\u00fc\u4e2d"),
        ("refused_url", "100 kB", good + "?" + "x" * 100_000),
        ("success", "a fragment", good + "#" + "x" * 100),
        ("success", "capital letters", "HTTP://{site}/plain-jpeg"),
        ("refused_url", "port 0", "http://127.0.0.1:0/"),
        ("refused_url", "a port in words", "http://127.0.0.1:http/"),
        ("refused_url", "no host", "http://"),
        ("refused_address", "another port of loopback", "http://{other}/"),
        ("dns refused_url", "a label of 64 letters", f"http://{'x' * 64}.hostile.test/"),
        ("tls", "https where there is none", "https://{site}/plain-jpeg"),
        ("refused_address", "wide digits", "http://\uff11\uff12\uff17.\uff10.\uff10.\uff11:{port}/"),
        ("http_404", "a path upwards", "http://{site}/../../../etc/passwd"),
    ]
    captions = {
        "a NUL": "before\0after",
        "a carriage return": "before\rafter",
        "1 MB": "word " * 200_000 + "end",
        "marks that turn the line": "cat \u202egnp.exe\u202c \u2066dog\u2069",
        "line separators": "one\u2028two\u2029three\x0bfour",
        "a script": "<script>alert(1)</script>",
        "a way upwards": "../../../../etc/passwd",
        "what a terminal obeys": "\x1b]0;owned\x07\x1b[2J",
        "nothing": "",
        "the last plane": "\U0010ffff\ufffe\ufeff",
        "JSON": '{"row": 0, "key": "../x"}',
        "braces": "{0.__class__} %s $(id) `id`",
    }
    for allowed, name, place in urls:
        yield Case(f"url with {name}", allowed, url=place)
    for name, caption in captions.items():
        yield Case(f"caption with {name}", "success", url=good, caption=caption)


def cases() -> list[Case]:
    """The main table; names are unique, and are paths."""
    return [*images(), *framing(), *redirects(), *table_rows()]


def hang_ups() -> list[Case]:
    """For a run without a server of the source's own, where a refused connection would mean that that one died."""

    def reset(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    return [
        Case("hanging up", "connection", lambda: b""),
        Case("a reset", "connection", reset, streams=True),
        Case("half a status line", "bad_answer", lambda: b"HTTP/1.1 2"),
        Case("nobody there", "connection", url="http://127.0.0.1:1/"),
        Case("plain jpeg", "success", lambda: body(h.jpeg())),
    ]


# The servers

connection_ports: dict[int, int] = {}


class _Site(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        asked = b""
        self.request.settimeout(30)
        with suppress(OSError):
            while b"\r\n\r\n" not in asked:
                if not (part := self.request.recv(65536)):
                    return
                asked += part
                if asked.startswith(b"\x16"):  # a hand held out for TLS
                    self.request.sendall(head("400 Bad Request"))
                    return
            path = asked.split(b" ")[1].decode("latin-1").partition("?")[0]
            self.server.seen.append(asked)  # type: ignore[attr-defined]
            case = self.server.cases.get(path)  # type: ignore[attr-defined]
            if case is None:
                self.request.sendall(head("404 Not Found"))
            elif case.streams:
                case.send(self.request)
            else:
                self.request.sendall(case.send())


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256

    def handle_error(self, *_: Any) -> None: ...


@contextmanager
def serving(table: list[Case]) -> Iterator[tuple[_Server, list[_Server]]]:
    """(the site, servers on one other port of every loopback there is: they play the metadata service)."""
    site = _Server(("127.0.0.1", 0), _Site)
    site.cases = {"/" + case.name.replace(" ", "-"): case for case in table if case.url is None}
    others = [_Server(("127.0.0.1", 0), _Site)]
    port = others[0].server_address[1]
    for case in table:
        if not case.streams and case.send is not None:
            made = case.send()  # beforehand: some take a second to make
            site.cases["/" + case.name.replace(" ", "-")] = replace(case, send=lambda made=made: made)
    for family, host in ((socket.AF_INET6, "::1"), (socket.AF_INET, "127.8.8.8")):
        kind = type("_More", (_Server,), {"address_family": family})
        with suppress(OSError):
            others.append(kind((host, port), _Site))
    connection_ports[site.server_address[1]] = port
    for server in (site, *others):
        server.seen = []
        server.cases = getattr(server, "cases", {})
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield site, others
    finally:
        for server in (site, *others):
            server.shutdown()
            server.server_close()


# The download, in a process of its own so that its memory and its files can be told from ours

DOWNLOADER = """
import json, os, socket, sys, time

written = []
def watch(event, arguments):
    if event == "open" and isinstance(arguments[1], str) and any(letter in arguments[1] for letter in "wxa+"):
        written.append(os.fsdecode(arguments[0]) if isinstance(arguments[0], (str, bytes)) else str(arguments[0]))
    elif event in ("os.mkdir", "os.rename", "os.symlink", "os.link"):
        written.append(str(arguments[0] if event == "os.mkdir" else arguments[1]))
    elif event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork"):
        started.append(str(arguments)[:200])
started = []

real = socket.getaddrinfo
asked = []
def resolve(host, port, *rest, **more):
    if str(host).endswith("hostile.test"):
        asked.append(host)
        kind = str(host).split(".")[0]
        if kind == "rebinding" and asked.count(host) > 1:
            return real("127.0.0.1", port, *rest, **more)
        if kind in ("inwards", "rebinding"):
            return real("127.8.8.8", port, *rest, **more)
        raise socket.gaierror(-2, "Name or service not known")
    return real(host, port, *rest, **more)
socket.getaddrinfo = resolve

from contextlib import contextmanager
from pipeline.fetch import _img2dataset
from pipeline.preparation import Preparation
from pipeline.sources.cc3m import Cc3m

table, out, allowed, timeout, threads = sys.argv[1:]
class Served(Cc3m):
    @contextmanager
    def _serving(self):
        yield tuple(filter(None, [allowed]))
    def serving(self, timeout_seconds):
        return self._serving()

_img2dataset()
def mib(what):  # not ru_maxrss: a process inherits that of the one that started it
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith(what))
before = mib("VmRSS")
sys.addaudithook(watch)
start = time.monotonic()
line = Preparation(
    source=Served(urls=table), out=out, backend="local", timeout_seconds=float(timeout), threads=int(threads),
    allow_private=not allowed,
).run()
took = time.monotonic() - start
peak = mib("VmHWM")
print(json.dumps({"line": line, "seconds": took, "before_mib": before, "peak_mib": peak, "written": written,
                  "started": started, "asked": asked}))
"""


@dataclass(frozen=True)
class Downloaded:
    """What one run of the table left: outcome by case name, what it cost, what it wrote and said."""

    outcomes: dict[str, str]
    captions: dict[str, str]
    counted: dict[str, int]
    about: dict[str, Any]
    out: Path
    said: str
    requests: list[bytes]
    requests_to_others: list[bytes]
    appeared: list[str]
    seconds_of_server: float


def tree(*folders: Path) -> set[str]:
    return {str(path) for folder in folders for path in folder.rglob("*")}


def download(folder: Path, table: list[Case], *, own_server: bool = True) -> Downloaded:
    """Serve the table, download it through `Preparation` into folder/out, and gather what there is to judge."""
    from pipeline.dataset import Dataset

    places = {name: folder / name for name in ("home", "tmp", "cwd")}
    for place in places.values():
        place.mkdir(parents=True)
    start = time.monotonic()
    with serving(table) as (site, others):
        here, other = (f"127.0.0.1:{server.server_address[1]}" for server in (site, others[0]))
        lines = [f"{name_of(case)}\t{case.link(here, other)}\n" for case in table]
        (folder / "table.tsv").write_bytes("".join(lines).encode())
        words = [folder / "table.tsv", folder / "out", here if own_server else "", TIMEOUT_SECONDS, THREADS]
        more = {"HOME": str(places["home"]), "TMPDIR": str(places["tmp"]), "ANTIDOTE_CACHE": str(folder / "cache")}
        more |= {
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "MPLCONFIGDIR": "/dev/null",
        }
        before = tree(*places.values())
        done = subprocess.run(
            [sys.executable, "-c", DOWNLOADER, *map(str, words)],
            cwd=places["cwd"],
            env=os.environ | more,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-5000:]}"
        appeared = sorted(tree(*places.values()) - before)
        requests, strays = list(site.seen), [line for server in others for line in server.seen]
    made = Dataset.open(str(folder / "out"))
    rows = [row for shard in made.shards for row in made.index(shard).to_pylist()]
    return Downloaded(
        outcomes={table[row["row"]].name: row["outcome"] for row in rows},
        captions={table[row["row"]].name: row["caption"] for row in rows},
        counted=made.outcomes,
        about=json.loads(done.stdout.strip().splitlines()[-1]),
        out=folder / "out",
        said=done.stdout.rpartition("\n{")[0] + done.stderr,
        requests=requests,
        requests_to_others=strays,
        appeared=appeared,
        seconds_of_server=time.monotonic() - start,
    )


def name_of(case: Case) -> str:
    return case.name if case.caption is None else case.caption


def wrong(table: list[Case], found: Downloaded) -> list[str]:
    """A line for each case that did not end as it should, none if all did."""
    return [
        f"{case.name}: {found.outcomes.get(case.name)} where {case.allowed} is right"
        for case in table
        if found.outcomes.get(case.name) not in case.allowed.split()
    ]


def shown(table: list[Case], found: Downloaded) -> str:
    bad = {line.partition(":")[0] for line in wrong(table, found)}
    lines = [f"{'case':48} {'outcome':20} right"]
    for case in table:
        right = f"NO: {case.allowed}" if case.name in bad else "yes"
        lines.append(f"{case.name[:48]:48} {found.outcomes.get(case.name, '-'):20} {right}")
    counts = ", ".join(f"{count} {name}" for name, count in Counter(found.outcomes.values()).most_common())
    about = found.about
    lines.append(
        f"{len(table)} cases: {counts}\n{about['seconds']:.1f} s; peak {about['peak_mib']:.0f} MiB, "
        f"{about['before_mib']:.0f} MiB before the first request; {THREADS} threads, time-out {TIMEOUT_SECONDS:g} s"
    )
    return "\n".join(lines)


def main() -> int:
    import tempfile

    status = 0
    with tempfile.TemporaryDirectory() as scratch:
        for name, table, own in (("web", cases(), True), ("hang-ups", hang_ups(), False)):
            found = download(Path(scratch) / name, table, own_server=own)
            print(shown(table, found), flush=True)
            status |= bool(wrong(table, found))
    return status


if __name__ == "__main__":
    sys.exit(main())
