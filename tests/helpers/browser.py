"""A headless Chromium: pages as it shows them, and clicks through chromedriver's own HTTP interface."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["DRIVER", "PROGRAM", "Page", "dumped", "opened"]

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1400,1800",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


def dumped(path: Path, place: str = "") -> str:
    """The document of a page after its scripts ran, at an address such as ``#cell=0,1``."""
    with tempfile.TemporaryDirectory() as profile:
        words = [PROGRAM, *_FLAGS, f"--user-data-dir={profile}", "--virtual-time-budget=5000", "--dump-dom"]
        done = subprocess.run([*words, f"{path.resolve().as_uri()}{place}"], capture_output=True, timeout=240)
    return done.stdout.decode()


class Page:
    """A page that is open; ``run`` evaluates JavaScript, ``click`` and ``press`` act as a user does."""

    _ELEMENT = "element-6066-11e4-a52e-4f735466cecf"

    def __init__(self, address: str) -> None:
        self.address = address

    def call(self, method: str, path: str, **body: Any) -> Any:
        request = urllib.request.Request(f"{self.address}{path}", method=method)
        request.add_header("Content-Type", "application/json")
        data = json.dumps(body).encode() if method == "POST" else None
        with urllib.request.urlopen(request, data, timeout=120) as answer:
            return json.load(answer)["value"]

    def run(self, script: str) -> Any:
        return self.call("POST", "/execute/sync", script=script, args=[])

    def find(self, selector: str) -> str:
        return self.call("POST", "/element", using="css selector", value=selector)[self._ELEMENT]

    def click(self, selector: str) -> None:
        self.call("POST", f"/element/{self.find(selector)}/click")

    def press(self, selector: str, keys: str) -> None:
        self.call("POST", f"/element/{self.find(selector)}/value", text=keys)

    def hover(self, selector: str) -> None:
        move = {"type": "pointerMove", "duration": 0, "x": 0, "y": 0, "origin": {self._ELEMENT: self.find(selector)}}
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": [move]}
        self.call("POST", "/actions", actions=[mouse])

    def text(self, selector: str) -> str:
        return self.call("GET", f"/element/{self.find(selector)}/text")

    def wait(self, script: str) -> None:
        """Waits until JavaScript is true."""
        deadline = time.monotonic() + 90
        while not self.run(f"return Boolean({script})"):
            assert time.monotonic() < deadline, f"never true: {script}"
            time.sleep(0.05)


@contextlib.contextmanager
def opened(path: Path, place: str = "") -> Iterator[Page]:
    """A page in a browser that closes at the end; what it wrote to the console is in ``page.log``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as profile:
        driver = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            root = Page(f"http://127.0.0.1:{port}")
            deadline = time.monotonic() + 90
            while True:
                with contextlib.suppress(OSError):
                    if root.call("GET", "/status")["ready"]:
                        break
                assert time.monotonic() < deadline, "chromedriver does not answer"
                time.sleep(0.05)
            options = {"args": [*_FLAGS, f"--user-data-dir={profile}"], "binary": PROGRAM}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            session = root.call("POST", "/session", capabilities={"alwaysMatch": wanted})["sessionId"]
            page = Page(f"{root.address}/session/{session}")
            try:
                page.call("POST", "/url", url=f"{path.resolve().as_uri()}{place}")
                yield page
                log = page.call("POST", "/se/log", type="browser")
                assert not log, f"the page complains: {log}"
            finally:
                page.call("DELETE", "")
        finally:
            driver.terminate()
            driver.wait(60)
