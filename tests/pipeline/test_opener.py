import socket
import threading
import time
import urllib.error
import urllib.request
from http.client import IncompleteRead
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline import opener
from pipeline.opener import Limits


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
    thread = threading.Thread(target=server.serve_forever, daemon=True)
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
    with pytest.raises(urllib.error.URLError, match="not allowed"):
        fetch(f"http://127.0.0.1:{site}/to:file:///etc/passwd", allowed=allowed)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:text/plain,hello"])
def test_only_http_is_spoken(url):
    with pytest.raises(urllib.error.URLError, match="unknown url type"):
        fetch(url, allow_private=True)


def test_an_answer_is_bounded_in_bytes_and_in_time(site):
    with pytest.raises(urllib.error.URLError, match="body too large: over 1,000,000 bytes"):
        fetch(f"http://127.0.0.1:{site}/endless", allow_private=True, max_bytes=1_000_000)
    start = time.monotonic()
    with pytest.raises(urllib.error.URLError, match="timed out"):
        fetch(f"http://127.0.0.1:{site}/drip", allow_private=True, total_seconds=0.5)
    assert time.monotonic() - start < 5


def test_a_body_shorter_than_announced_is_noticed(site):
    with pytest.raises(IncompleteRead):
        fetch(f"http://127.0.0.1:{site}/cut", allow_private=True)


def test_a_server_that_never_answers_times_out():
    silent = socket.create_server(("127.0.0.1", 0))
    with pytest.raises(OSError, match="timed out"):
        fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/", allow_private=True, timeout_seconds=0.3)
    silent.close()


def test_the_body_of_a_redirect_is_bounded_too(site):
    class Endless(Site):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", "/ok")
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"x" * 65536)
            except OSError:
                return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(urllib.error.URLError, match="body too large"):
        fetch(f"http://127.0.0.1:{server.server_port}/", allow_private=True, max_bytes=1_000_000)
    server.shutdown()
    server.server_close()
