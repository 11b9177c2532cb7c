"""The one way out to the web: http(s) only, public addresses only, bounded in bytes and in time, from first to last.

img2dataset calls `urllib.request.urlopen`, which by itself follows `file://` and answers of any length.
`install` replaces what stands behind that call for the whole process. An address is judged after it is resolved and
is the very one connected to, so neither a redirect nor a name that points inwards gets past. Every failure is a
`Failure` whose text begins with the outcome it is counted under: the server's own words can choose none.
"""

import http.client
import io
import ipaddress
import re
import socket
import ssl
import string
import time
import urllib.request
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urljoin, urlsplit

MAX_HEAD_BYTES = 256 * 1024  # status line and headers of one answer, with every "100 Continue" before them
MAX_REDIRECTS = 10
MAX_URL = 16_384  # characters; servers refuse far shorter ones
OUTCOMES = frozenset(
    "refused_address refused_scheme refused_url too_many_redirects too_large timeout truncated dns tls connection"
    " bad_answer".split()
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True)
class Limits:
    """timeout_seconds: one read of a socket; total_seconds: a whole answer; allowed: host:port though private."""

    timeout_seconds: float = 10.0
    total_seconds: float = 60.0
    max_bytes: int = 20_000_000
    allow_private: bool = False
    allowed: tuple[str, ...] = ()


class Failure(URLError):
    """Why an address gave no body. outcome: one of OUTCOMES, or http_ and the status; str() begins with it."""

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome

    def __str__(self) -> str:
        return f"{self.outcome}: {self.reason}"


def install(limits: Limits) -> None:
    """Make every `urllib.request.urlopen` of this process obey `limits`."""
    urllib.request.install_opener(_Opener(limits))


class _Meter:
    """What an answer may still cost: seconds for its whole chain of redirects, bytes for itself."""

    def __init__(self, limits: Limits, deadline: float) -> None:
        self.limits, self.deadline = limits, deadline
        self.left = MAX_HEAD_BYTES
        self.in_head = True

    def seconds(self) -> float:
        """How long the next step may take. Raises Failure once there is no time left."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Failure("timeout", f"answer timed out: over {self.limits.total_seconds:g} seconds in all")
        return min(left, self.limits.timeout_seconds)

    def count(self, received: int) -> None:
        self.left -= received
        if self.left < 0:
            what = f"headers: over {MAX_HEAD_BYTES:,}" if self.in_head else f"body: over {self.limits.max_bytes:,}"
            raise Failure("too_large", f"{what} bytes")

    def body_begins(self) -> None:
        self.in_head = False
        self.left = self.limits.max_bytes + MAX_HEAD_BYTES  # as much again for chunk sizes and trailers


class _Metered(io.RawIOBase):
    """What http.client reads from. It reads lines of headers, chunk sizes and trailers for as long as they come, so
    the bounds must lie beneath it, at each read of the socket."""

    def __init__(self, connection: socket.socket, meter: _Meter) -> None:
        self.connection, self.meter = connection, meter
        self.raw: Any = connection.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self.connection.settimeout(self.meter.seconds())
        received: int | None = self.raw.readinto(buffer)
        self.meter.count(received or 0)
        return received

    def close(self) -> None:
        if not self.closed:
            self.raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """One answer: `read` gives the whole body, bounded, and notices one that is shorter than announced."""

    def __init__(self, sock: socket.socket, *args: Any, meter: _Meter, **keywords: Any) -> None:
        super().__init__(sock, *args, **keywords)
        self.fp.close()
        self.fp: Any = io.BufferedReader(_Metered(sock, meter))
        self.meter = meter

    def begin(self) -> None:
        super().begin()
        self.meter.body_begins()
        if len({length.strip() for length in self.headers.get_all("Content-Length", [])}) > 1:
            raise Failure("bad_answer", "several lengths are announced for one body")

    def read(self, amt: int | None = None) -> bytes:
        """amt is not obeyed. Raises Failure."""
        body = io.BytesIO()
        try:
            while block := self.read1(1 << 16):
                body.write(block)
                if body.tell() > self.meter.limits.max_bytes:
                    raise Failure("too_large", f"body too large: over {self.meter.limits.max_bytes:,} bytes")
            if self.length:
                raise http.client.IncompleteRead(b"", self.length)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _failure(error) from error
        finally:
            self.close()
        return body.getvalue()  # not copied, unlike that of a bytearray


class _Opener(urllib.request.OpenerDirector):
    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits = limits
        for handler in (_Web(limits), _Redirect(), _OnlyPictures(), urllib.request.HTTPDefaultErrorHandler()):
            self.add_handler(handler)

    def open(self, fullurl: Any, data: Any = None, timeout: Any = None) -> Any:
        """Each hop of a chain comes by here. Raises Failure and nothing else."""
        assert data is None
        try:
            request: Any = urllib.request.Request(fullurl) if isinstance(fullurl, str) else fullurl
            request.full_url = _spelled(request.full_url)
            if not hasattr(request, "deadline"):
                request.deadline, request.hops = time.monotonic() + self.limits.total_seconds, 0
            return super().open(request, None, self.limits.timeout_seconds)
        except (OSError, http.client.HTTPException, ValueError, OverflowError) as error:
            raise _failure(error) from error


class _OnlyPictures(urllib.request.HTTPErrorProcessor):
    """200 is a whole image; 204 is none, and 206 a part that nobody asked for."""

    def http_response(self, request: Any, response: Any) -> Any:
        if response.status == 200:
            return response
        parent: Any = self.parent
        return parent.error("http", request, response, response.status, response.reason, response.headers)

    https_response = http_response


class _Redirect(urllib.request.BaseHandler):
    """Follows to http(s), within the deadline of the whole chain; the body of a redirect is never read."""

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        fp.close()
        place = headers.get("Location")
        if place is None:
            return None
        if req.hops == MAX_REDIRECTS:
            raise Failure("too_many_redirects", f"over {MAX_REDIRECTS}")
        following: Any = urllib.request.Request(
            _spelled(urljoin(req.full_url, place)), headers={"User-Agent": req.get_header("User-agent", "")}
        )
        following.deadline, following.hops = req.deadline, req.hops + 1
        return self.parent.open(following)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class _Web(urllib.request.AbstractHTTPHandler):
    """http and https over metered connections."""

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits = limits
        self.context = ssl.create_default_context()  # one for all: to read the authorities' file takes 10 ms
        self.context.set_alpn_protocols(["http/1.1"])

    def http_open(self, req: Any) -> Any:
        return self._open(http.client.HTTPConnection, req)

    def https_open(self, req: Any) -> Any:
        return self._open(partial(http.client.HTTPSConnection, context=self.context), req)

    def _open(self, kind: Any, req: Any) -> Any:
        meter = _Meter(self.limits, req.deadline)

        def connection(host: str, **keywords: Any) -> http.client.HTTPConnection:
            made = kind(host, **keywords)
            made._create_connection = partial(_connect, meter)
            made.response_class = partial(_Response, meter=meter)
            return made  # type: ignore[no-any-return]

        return self.do_open(connection, req)  # type: ignore[arg-type]

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_


def _spelled(url: str) -> str:
    """The address as it may be sent: blanks and letters beyond ASCII written %XX, as browsers do.

    Raises Failure if it is not http(s), holds control characters, a user name or a password, or is too long, and
    ValueError if it is no url. None of them repeats it: it may hold a secret.
    """
    if len(url) > MAX_URL:
        raise Failure("refused_url", f"over {MAX_URL:,} characters")
    if re.search(r"[\x00-\x1f\x7f]", url):
        raise Failure("refused_url", "it holds a control character")
    parts = urlsplit(url)  # its .port raises ValueError above 65535, which glibc would take modulo 65536
    if parts.scheme not in ("http", "https"):
        raise Failure("refused_scheme", f"{parts.scheme!r} is not http or https")
    if "@" in parts.netloc:
        raise Failure("refused_url", "it holds a user name or password")
    if not parts.hostname or "%" in parts.netloc or parts.port == 0:  # urllib would decode %40 in a host's name
        raise Failure("refused_url", "it names no host")
    written = partial(quote, safe=string.punctuation)
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    return parts._replace(netloc=host, path=written(parts.path), query=written(parts.query), fragment="").geturl()


def _connect(meter: _Meter, address: tuple[str, int], *_: Any) -> socket.socket:
    host, port = address
    limits, error = meter.limits, OSError(f"{host} has no address")
    for family, kind, protocol, _canonical, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        ip = _meant(ipaddress.ip_address(str(place[0]).split("%")[0]))
        if not _is_public(ip) and not limits.allow_private and f"{ip}:{port}" not in limits.allowed:
            raise Failure("refused_address", f"refused address: {host} is {ip}, which is private or local")
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(meter.seconds())
            connection.connect(place)
            return connection
        except OSError as failure:
            connection.close()
            if isinstance(failure, Failure):
                raise
            error = failure
    raise error


Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _meant(ip: Address) -> Address:
    """The IPv4 address that one of IPv6 is a spelling of, or leads to through a gateway."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    within = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
    if within is None and (ip in _NAT64 or (ip.packed[:12] == bytes(12) and int(ip) > 1)):
        within = ipaddress.IPv4Address(ip.packed[12:])
    return within or ip


def _is_public(ip: Address) -> bool:
    site_local = isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or site_local)


def _failure(error: Exception) -> Failure:
    """What any error on the way to a body is counted as."""
    cause: Any = error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error
    if isinstance(error, HTTPError):
        error.close()
        return Failure(f"http_{error.code}", f"the server answered with status {error.code}")
    if isinstance(cause, Failure):
        return cause
    kinds: tuple[tuple[Any, str], ...] = (
        (TimeoutError, "timeout"),
        (socket.gaierror, "dns"),
        (ssl.SSLError, "tls"),
        (http.client.IncompleteRead, "truncated"),
        (http.client.RemoteDisconnected, "connection"),
        (http.client.InvalidURL, "refused_url"),
        (http.client.HTTPException, "bad_answer"),
        (ValueError | OverflowError, "refused_url"),
    )
    outcome = next((name for kind, name in kinds if isinstance(cause, kind)), "connection")
    return Failure(outcome, "timed out" if outcome == "timeout" else str(cause))
