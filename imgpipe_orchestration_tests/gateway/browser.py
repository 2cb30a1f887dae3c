"""A headless Chromium, visitors who notice what is wrong with a page, and the packages from npm that they use.

Where there is no Chromium (or no npm packages) the tests that need it are skipped and say what to do; on CI (CI=true)
that is a failure, for there it must be.
"""

import io
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from imgpipe_orchestration_tests.lacking import lacking

NPM = Path.home() / ".cache" / "imgpipe" / "npm" / "node_modules"
SCREENSHOTS = os.environ.get("SCREENSHOTS")
"""A folder for pictures of the pages; `make screenshots` names docs/images."""

TALLEST = 1500
"""Pixels of a picture of a page."""
PATIENCE = 60_000
"""Milliseconds for what a page does by itself: opening an operation of /docs takes seconds on an idle machine, and this
one may be busy with other tests."""

_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The best first: Chromium's headless shell takes 0.4 times the CPU time of the whole browser."""

_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
]


def npm(path: str) -> Path:
    """A file of a package from npm."""
    file = NPM / path
    if not file.is_file():
        lacking(path.partition("/")[0], "make npm-test-tools (needs npm)")
    return file


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser of a test session."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        lacking("Chromium", f"apt-get install {_NAMES[0]}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=_ARGUMENTS)
        yield browser
        browser.close()


class Visitor:
    """Somebody with a browser who looks at one origin and notes what should not be."""

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.base = base
        self.hosts = {urlsplit(base).netloc}
        self.trouble: list[str] = []
        self.allowed: list[str] = []
        """Parts of console messages that a test expects."""
        page.on("console", lambda message: message.type in {"error", "warning"} and self._note(message.text))
        page.on("pageerror", lambda error: self._note(f"uncaught: {error}"))
        page.on("request", lambda request: self._look_at(request.url))
        page.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)

    def _note(self, message: str) -> None:
        self.trouble.append(message)

    def _look_at(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in {"http", "https", "ws"} and parts.netloc not in self.hosts:
            self.trouble.append(f"request to another host: {url}")

    def go(self, path: str) -> Page:
        self.page.goto(self.base + path)
        return self.page

    def axe(self) -> list[str]:
        """What axe finds against WCAG 2.2 A and AA, one line a finding."""
        self.page.evaluate(npm("axe-core/axe.min.js").read_text())
        rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
        found: Any = self.page.evaluate("tags => axe.run({runOnly: tags})", rules)
        return [f"{v['id']}: {node['html'][:200]}" for v in found["violations"] for node in v["nodes"]]

    def picture(self, name: str) -> None:
        """A screenshot into SCREENSHOTS, where that is set: of long pages the upper part, in 256 colours, which take a
        third of the bytes."""
        if SCREENSHOTS:
            width, height = self.page.evaluate("[innerWidth, document.documentElement.scrollHeight]")
            part: Any = {"x": 0, "y": 0, "width": width, "height": min(height, TALLEST)}
            taken = self.page.screenshot(full_page=True, animations="disabled", clip=part)
            with Image.open(io.BytesIO(taken)) as image:
                few = image.convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
            few.save(Path(SCREENSHOTS) / f"{name}.png", optimize=True)

    def content(self) -> None:
        """Holds the page to what every page must hold to."""
        unexpected = [t for t in self.trouble if not any(allowed in t for allowed in self.allowed)]
        assert not unexpected, unexpected


@contextmanager
def visitor(browser: Browser, base: str, hosts: Sequence[str] = (), **context: Any) -> Iterator[Visitor]:
    """A visitor with a profile of their own; at the end nothing may have gone wrong unnoticed.

    Args:
        hosts: addresses beside `base` that its pages may ask.
    """
    options: dict[str, Any] = {"viewport": {"width": 1280, "height": 860}, "reduced_motion": "reduce", **context}
    with browser.new_context(**options) as profile:
        somebody = Visitor(profile.new_page(), base)
        somebody.hosts |= {urlsplit(host).netloc for host in hosts}
        yield somebody
        somebody.content()
