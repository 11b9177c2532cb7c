import itertools
import os
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline import opener
from pipeline.opener import MAX_REDIRECTS, Failure, Limits


class Site(BaseHTTPRequestHandler):
    def do_GET(self):
        kind = self.path.strip("/")
        if kind.startswith("to:"):
            self.send_response(302)
            self.send_header("Location", kind[3:])
            self.end_headers()
            return
        self.send_response(200)
        if kind == "cut":
            self.send_header("Content-Length", "100")
        self.end_headers()
        if kind == "endless":
            try:
                while True:
                    self.wfile.write(b"x" * 65536)
            except OSError:
                return
        if kind == "drip":
            try:
                for _ in range(200):
                    self.wfile.write(b"x")
                    time.sleep(0.05)
            except OSError:
                return
        self.wfile.write(b"hello")

    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def uninstall():
    yield
    urllib.request.install_opener(None)  # type: ignore[arg-type]


def fetch(url, **limits):
    opener.install(Limits(**limits))
    with urllib.request.urlopen(url, timeout=3) as answer:
        return answer.read()


def test_loopback_is_refused_unless_told_otherwise(site):
    url = f"http://127.0.0.1:{site}/ok"
    with pytest.raises(urllib.error.URLError, match="refused address"):
        fetch(url)
    assert fetch(url, allow_private=True) == b"hello"
    assert fetch(url, allowed=(f"127.0.0.1:{site}",)) == b"hello"
    with pytest.raises(urllib.error.URLError, match="refused address"):
        fetch(url, allowed=(f"127.0.0.1:{site + 1}",))


@pytest.mark.parametrize("host", ["localhost", "[::1]", "169.254.169.254", "10.0.0.1", "[::ffff:127.0.0.1]", "0.0.0.0"])
def test_every_spelling_of_a_private_address_is_refused(host, site):
    with pytest.raises(urllib.error.URLError, match=r"refused address|Address family"):
        fetch(f"http://{host}:{site}/ok", timeout_seconds=2)


def test_a_redirect_inwards_or_to_a_file_is_refused(site):
    allowed = (f"127.0.0.1:{site}",)
    assert fetch(f"http://127.0.0.1:{site}/to:/ok", allowed=allowed) == b"hello"
    with pytest.raises(urllib.error.URLError, match="refused address"):
        fetch(f"http://127.0.0.1:{site}/to:http://169.254.169.254/latest", allowed=allowed)
    with pytest.raises(urllib.error.URLError, match="refused_scheme"):
        fetch(f"http://127.0.0.1:{site}/to:file:///etc/passwd", allowed=allowed)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:text/plain,hello"])
def test_only_http_is_spoken(url):
    with pytest.raises(urllib.error.URLError, match="refused_scheme"):
        fetch(url, allow_private=True)


def test_an_answer_is_bounded_in_bytes_and_in_time(site):
    with pytest.raises(urllib.error.URLError, match="too_large: body too large: over 1,000,000 bytes"):
        fetch(f"http://127.0.0.1:{site}/endless", allow_private=True, max_bytes=1_000_000)
    start = time.monotonic()
    with pytest.raises(urllib.error.URLError, match="timed out"):
        fetch(f"http://127.0.0.1:{site}/drip", allow_private=True, total_seconds=0.5)
    assert time.monotonic() - start < 5


def test_a_body_shorter_than_announced_is_noticed(site):
    with pytest.raises(Failure, match="truncated"):
        fetch(f"http://127.0.0.1:{site}/cut", allow_private=True)


def test_a_server_that_never_answers_times_out():
    silent = socket.create_server(("127.0.0.1", 0))
    with pytest.raises(OSError, match="timed out"):
        fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/", allow_private=True, timeout_seconds=0.3)
    silent.close()


@contextmanager
def raw(*parts, for_ever=False, pause=0.0):
    """A server that sends these bytes whatever it is asked, the last ones again and again; yields its port."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer(connection):
        with connection, suppress(OSError):
            connection.recv(65536)
            for part in itertools.chain(parts, itertools.repeat(parts[-1]) if for_ever else ()):
                connection.sendall(part)
                time.sleep(pause)

    def accept():
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listening.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with listening:
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


OK = b"HTTP/1.1 200 OK\r\n"


def test_the_body_of_a_redirect_is_never_read(site):
    head = f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{site}/ok\r\n\r\n".encode()
    with raw(head, b"x" * 65536, for_ever=True) as port:
        assert fetch(f"http://127.0.0.1:{port}/", allow_private=True) == b"hello"


@pytest.mark.parametrize(
    "parts",
    [
        (OK, b"X-More: " + b"x" * 8000 + b"\r\n"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 100,),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-More: " + b"x" * 8000 + b"\r\n"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1;" + b"x" * 8000 + b"\r\nx\r\n"),
        (b"HTTP/1.1 200 " + b"x" * 8000, b"x" * 8000),
    ],
    ids=["headers", "100 Continue", "trailers", "chunk extensions", "a status line"],
)
def test_endless_words_around_a_body_are_bounded_in_bytes_and_in_time(parts):
    with raw(*parts, for_ever=True) as port, pytest.raises(Failure, match=r"too_large|bad_answer"):
        fetch(f"http://127.0.0.1:{port}/", allow_private=True, max_bytes=1_000_000)
    start = time.monotonic()
    with raw(*parts, for_ever=True, pause=0.1) as port, pytest.raises(Failure, match=r"timeout|bad_answer"):
        fetch(f"http://127.0.0.1:{port}/", allow_private=True, total_seconds=0.5)
    assert time.monotonic() - start < 3


def test_redirects_end(site):
    with raw(b"HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n") as port, pytest.raises(Failure, match="too_many_redir"):
        fetch(f"http://127.0.0.1:{port}/", allow_private=True)
    chain = "/to:" * MAX_REDIRECTS + "/ok"
    assert fetch(f"http://127.0.0.1:{site}{chain}", allow_private=True) == b"hello"
    with pytest.raises(Failure, match="too_many_redirects"):
        fetch(f"http://127.0.0.1:{site}/to:{chain}", allow_private=True)


def test_the_whole_chain_of_redirects_has_one_deadline(site):
    parts = (b"HTTP/1.1 302 Found\r\n", b"Location: /again\r\n", b"\r\n")
    start = time.monotonic()
    with raw(*parts, pause=0.15) as port, pytest.raises(Failure, match="timeout"):
        fetch(f"http://127.0.0.1:{port}/", allow_private=True, total_seconds=0.7)
    assert time.monotonic() - start < 3


@pytest.mark.parametrize(
    ("url", "outcome"),
    [
        ("http://user:secret@127.0.0.1:{site}/ok", "refused_url: it holds a user name or password"),
        ("http://127.0.0.1:{site}/to:http://good@127.0.0.1:{site}/ok", "refused_url: it holds a user name"),
        ("http://good%40127.0.0.1:{site}/ok", "refused_url"),
        ("http://127.0.0.1:{site}/a\r\nX-Injected: 1", "refused_url: it holds a control character"),
        ("http://127.0.0.1:{site}/" + "x" * 20_000, "refused_url: over"),
        ("http://127.0.0.1:99999/", "refused_url"),
        ("http://[::1/", "refused_url"),
        ("http:///ok", "refused_url: it names no host"),
        ("http://" + "x" * 64 + ".example/", "refused_url|dns"),
    ],
)
def test_an_address_that_is_no_plain_one_is_refused_and_not_repeated(site, url, outcome):
    with pytest.raises(Failure, match=outcome) as refused:
        fetch(url.replace("{site}", str(site)), allow_private=True)
    assert "secret" not in str(refused.value)


def test_blanks_and_letters_are_sent_as_browsers_send_them():
    asked = []

    class Echo(Site):
        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    assert fetch(f"http://127.0.0.1:{server.server_port}/a b/ü%20?q=ñ#part", allow_private=True) == b"hello"
    server.shutdown()
    server.server_close()
    assert asked == ["/a%20b/%C3%BC%20?q=%C3%B1"]


@pytest.mark.parametrize(
    "address",
    "224.0.0.1 240.0.0.1 255.255.255.255 100.64.0.1 192.168.0.1 ::1 ::127.0.0.1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe "
    "2002:7f00:1:: 2002:a9fe:a9fe::1 fec0::1 fe80::1%eth0 ff02::1 fd00::1 ::ffff:10.0.0.1 ::".split(),
)
def test_no_name_leads_inwards_whatever_it_resolves_to(address, monkeypatch):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    found = [(family, socket.SOCK_STREAM, 6, "", (address, 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(Failure, match="refused_address"):
        fetch("http://good.example/", timeout_seconds=0.2)


def test_a_name_that_changes_its_mind_is_resolved_once(site, monkeypatch):
    """DNS rebinding: the address that was judged is the one connected to."""
    answers = iter(["192.0.2.1", "127.0.0.1", "127.0.0.1"])
    asked, reached = [], []

    def resolve(host, port, *_, **__):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    def connect(self, place):
        reached.append(place[0])
        raise ConnectionRefusedError("nobody is there")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(opener, "_is_public", lambda ip: str(ip) == "192.0.2.1")
    with pytest.raises(Failure, match="connection"):
        fetch(f"http://rebinding.example:{site}/", timeout_seconds=0.2)
    assert (asked, reached) == (["rebinding.example"], ["192.0.2.1"])


def test_a_server_can_not_choose_what_it_is_counted_as():
    for words in (b"timeout: HTTP Error 200\r\n\r\n", b"success\r\n\r\n", b"HTTP/1.1 2x0 refused_address:\r\n\r\n"):
        with raw(words) as port, pytest.raises(Failure) as failure:
            fetch(f"http://127.0.0.1:{port}/", allow_private=True)
        assert failure.value.outcome == "bad_answer"


@pytest.mark.parametrize(
    ("status", "outcome"), [(204, "http_204"), (206, "http_206"), (304, "http_304"), (418, "http_418")]
)
def test_only_200_is_an_image(status, outcome):
    with raw(f"HTTP/1.1 {status} Words\r\n\r\nhello".encode()) as port, pytest.raises(Failure) as failure:
        fetch(f"http://127.0.0.1:{port}/", allow_private=True)
    assert failure.value.outcome == outcome


def test_tls_is_metered_too(tmp_path, monkeypatch):
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"]
    try:
        subprocess.run([*made, *names], check=True, capture_output=True)
    except FileNotFoundError:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("openssl is not installed: make services")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    url = f"https://127.0.0.1:{server.server_port}"
    with pytest.raises(Failure, match="tls"):
        fetch(f"{url}/ok", allow_private=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    assert fetch(f"{url}/ok", allow_private=True) == b"hello"
    with pytest.raises(Failure, match="too_large"):
        fetch(f"{url}/endless", allow_private=True, max_bytes=1_000_000)
    with pytest.raises(Failure, match="timeout"):
        fetch(f"{url}/drip", allow_private=True, total_seconds=0.5)
    server.shutdown()
    server.server_close()
