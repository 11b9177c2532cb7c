"""A headless Chromium that a test drives: the DevTools protocol over two pipes, with nothing but the standard library.

Chromium started with --remote-debugging-pipe reads commands on file descriptor 3 and answers on 4: JSON, one message
after another, each closed by a NUL byte. No port is opened, so nothing else on the machine can reach it.
"""

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60.0


def find() -> str:
    """The program, else the test is skipped; on a machine that must have it (CI=true) it fails."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        said = (
            f"no {' or '.join(NAMES)} on the PATH: `make services` installs it; the report is not opened in a browser"
        )
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(said)
    return found


class Browser:
    """One Chromium with a profile of its own. `call` sends a command and waits for its answer; events are kept."""

    def __init__(self, process: subprocess.Popen[bytes], send: int, receive: int) -> None:
        self.process, self.send, self.receive = process, send, receive
        self.number = 0
        self.rest = b""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self.send, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + SECONDS
        while True:
            answer = self._next(deadline, method)
            if answer.get("id") == self.number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])

    def wait_for(self, method: str, session: str) -> None:
        """Until an event came, be it before now."""
        deadline = time.monotonic() + SECONDS
        while not any(event["method"] == method and event.get("sessionId") == session for event in self.events):
            self._next(deadline, method)

    def _next(self, deadline: float, what: str) -> dict[str, Any]:
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.receive], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"chromium did not answer {what} within {SECONDS:g} seconds"
            data = os.read(self.receive, 1 << 20)
            assert data, f"chromium ended before it answered {what}"
            self.rest += data
        line, self.rest = self.rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        if "id" not in message:
            self.events.append(message)
        return message

    def open(self, url: str, width: int, height: int = 800, dark: bool = False) -> "Page":
        """A new tab with that page in it, loaded to the end, as wide as said whatever is in it."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, target, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        page.call("Emulation.setDeviceMetricsOverride", mobile=width < 600, **size)
        if dark:
            page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        page.call("Page.navigate", url=url)
        self.wait_for("Page.loadEventFired", page.session)
        return page


class Page:
    """One tab."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self.browser, self.target, self.session = browser, target, session

    def close(self) -> None:
        self.browser.call("Target.closeTarget", targetId=self.target)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **params)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def requested(self) -> list[str]:
        """Every url that was asked for, but for what lies in the page itself."""
        events = self._events("Network.requestWillBeSent")
        return [url for event in events if not (url := str(event["request"]["url"])).startswith("data:")]

    def complaints(self) -> list[str]:
        """What the console was told, exceptions, and requests that failed."""
        told = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Network.loadingFailed")
        return [json.dumps(event) for name in told for event in self._events(name)]

    def _events(self, method: str) -> list[dict[str, Any]]:
        self.evaluate("0")  # all that happened before it has been said by then
        return [
            event["params"]
            for event in self.browser.events
            if event["method"] == method and event.get("sessionId") == self.session
        ]

    def screenshot(self, whole: bool = False) -> bytes:
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole, **self._clip(whole))["data"]
        return base64.b64decode(data)

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def pdf(self) -> bytes:
        """As it would be printed on A4."""
        return base64.b64decode(
            self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=True)["data"]
        )


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium, and its end: the group of processes it began is gone afterwards, and its profile."""
    program = find()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ["--headless=new", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-extensions"]
        flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        flags += ["--no-sandbox"] if os.getuid() == 0 else []
        flags += ["--disable-dev-shm-usage", "--remote-debugging-pipe", f"--user-data-dir={Path(profile, 'profile')}"]
        commands, send = os.pipe()
        receive, answers = os.pipe()

        def plumb() -> None:
            high = [os.dup(end) for end in (commands, answers)]  # neither may be 3 or 4 itself
            high = [os.dup(end) if end in (3, 4) else end for end in high]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        process = subprocess.Popen(
            [program, *flags, "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(3, 4),
            preexec_fn=plumb,
            start_new_session=True,
        )
        os.close(commands)
        os.close(answers)
        try:
            yield Browser(process, send, receive)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(send)
            os.close(receive)
