"""The one way out to the web: http(s) only, public addresses only, bounded in bytes and in time.

img2dataset calls `urllib.request.urlopen`, which by itself follows `file://` and answers of any length.
`install` replaces what stands behind that call for the whole process. An address is judged after it is resolved and
is the very one connected to, so neither a redirect nor a name that points inwards gets past.
"""

import http.client
import ipaddress
import socket
import time
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.error import URLError


@dataclass(frozen=True)
class Limits:
    """timeout_seconds: one read of a socket; total_seconds: a whole answer; allowed: host:port though private."""

    timeout_seconds: float = 10.0
    total_seconds: float = 60.0
    max_bytes: int = 20_000_000
    allow_private: bool = False
    allowed: tuple[str, ...] = ()


class Refused(URLError):
    """An address that this process must not reach."""


def install(limits: Limits) -> None:
    """Make every `urllib.request.urlopen` of this process obey `limits`."""
    urllib.request.install_opener(_Opener(limits))


class _Opener(urllib.request.OpenerDirector):
    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits = limits
        for handler in (
            _Http(limits),
            _Https(limits),
            _Redirect(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.UnknownHandler(),
        ):
            self.add_handler(handler)

    def open(self, fullurl: Any, data: Any = None, timeout: Any = None) -> Any:
        request: Any = urllib.request.Request(fullurl, data) if isinstance(fullurl, str) else fullurl
        if not hasattr(request, "deadline"):
            request.deadline = time.monotonic() + self.limits.total_seconds
        return super().open(request, data, self.limits.timeout_seconds)


class _Redirect(urllib.request.HTTPRedirectHandler):
    """Follows to http(s) and ftp, and nothing here opens ftp. The whole chain has one deadline."""

    def redirect_request(self, req: Any, *rest: Any) -> Any:
        following: Any = super().redirect_request(req, *rest)
        if following is not None:
            following.deadline = req.deadline
        return following


class _Answer:
    """An http response whose `read` is bounded and notices a body that is shorter than announced.

    Wrapped around every answer of a chain: urllib reads the body of a redirect to its end, however long it is.
    """

    def __init__(self, response: Any, limits: Limits, deadline: float) -> None:
        self.response, self.limits, self.deadline = response, limits, deadline

    def __getattr__(self, name: str) -> Any:
        return getattr(self.response, name)

    def read(self) -> bytes:
        body = bytearray()
        while block := self.response.read1(1 << 16):
            body += block
            if len(body) > self.limits.max_bytes:
                raise URLError(f"body too large: over {self.limits.max_bytes:,} bytes")
            if time.monotonic() > self.deadline:
                raise URLError(f"answer timed out: over {self.limits.total_seconds:g} seconds in all")
        if self.response.length:
            raise http.client.IncompleteRead(bytes(body), self.response.length)
        return bytes(body)

    def __enter__(self) -> "_Answer":
        return self

    def __exit__(self, *_: object) -> None:
        self.response.close()


def _connect(limits: Limits) -> Any:
    def create_connection(address: tuple[str, int], *_: Any) -> socket.socket:
        host, port = address
        error: OSError | None = None
        for family, kind, protocol, _canonical, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            ip = ipaddress.ip_address(str(place[0]).split("%")[0])
            ip = getattr(ip, "ipv4_mapped", None) or ip
            if not ip.is_global and not limits.allow_private and f"{ip}:{port}" not in limits.allowed:
                raise Refused(f"refused address: {host} is {ip}, which is private or local")
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(limits.timeout_seconds)
                connection.connect(place)
                return connection
            except OSError as failure:
                connection.close()
                error = failure
        raise error or OSError(f"{host} has no address")

    return create_connection


class _Http(urllib.request.HTTPHandler):
    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits = limits

    def http_open(self, req: Any) -> Any:
        def connection(host: str, **keywords: Any) -> http.client.HTTPConnection:
            made = http.client.HTTPConnection(host, **keywords)
            made._create_connection = _connect(self.limits)  # type: ignore[attr-defined]
            return made

        return _Answer(self.do_open(connection, req), self.limits, req.deadline)  # type: ignore[arg-type]


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits = limits

    def https_open(self, req: Any) -> Any:
        def connection(host: str, **keywords: Any) -> http.client.HTTPSConnection:
            made = http.client.HTTPSConnection(host, **keywords)
            made._create_connection = _connect(self.limits)  # type: ignore[attr-defined]
            return made

        return _Answer(self.do_open(connection, req), self.limits, req.deadline)  # type: ignore[arg-type]
