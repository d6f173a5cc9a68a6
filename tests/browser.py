"""A headless Chromium for tests of the pages that the package writes.

pytestmark = pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE))
with browser() as page:
    page.open(path)
    page.press(Keys.ARROW_RIGHT)
    assert page.evaluate("document.title") == "..."
    assert page.problems() == []
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
LOCAL = ("file:", "data:", "blob:", "about:", "chrome:", "chrome-untrusted:")  # of these the last are a new tab
PATIENCE = 60  # seconds for a page to load or a script to end
FLAGS = (
    "--headless",
    "--no-sandbox",  # for root, as in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "--force-color-profile=srgb",
)


def unavailable() -> str | None:
    """None, or the reason why no page can be opened here."""
    if find_spec("selenium") is None:
        return "selenium is not installed (pip install 'cnnengine[test]')"
    if CHROMIUM is None:
        return "there is no chromium"
    if DRIVER is None:
        return "there is no chromedriver"
    return None


UNAVAILABLE = unavailable()


class Page:
    """One tab; ``driver`` is selenium's."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, path: Path) -> None:
        self.driver.get(path.resolve().as_uri())

    def evaluate(self, expression: str, *arguments: Any) -> Any:
        """Of a JavaScript expression, which may use ``arguments``; what it promises, where it is a promise."""
        return self.driver.execute_script(f"return {expression}", *arguments)

    def size(self, width: int, height: int) -> None:
        """Of what is seen of the page, in pixels."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )

    def colours(self, scheme: str) -> None:
        """``light`` or ``dark``, what the reader prefers."""
        self._media(scheme, "")

    def paper(self) -> None:
        """As it would be printed"""
        self._media("light", "print")

    def _media(self, scheme: str, media: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})

    def press(self, keys: str) -> None:
        """Keys, to what has the focus: text, or names of ``selenium.webdriver.Keys``."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(keys).perform()

    def hover(self, x: float, y: float) -> None:
        """Moves the mouse, in pixels from the top left of what is seen."""
        self._mouse("mouseMoved", x, y)

    def click(self, x: float, y: float) -> None:
        self._mouse("mousePressed", x, y, button="left", clickCount=1)
        self._mouse("mouseReleased", x, y, button="left", clickCount=1)

    def drag(self, begin: tuple[float, float], end: tuple[float, float]) -> None:
        self._mouse("mousePressed", *begin, button="left", clickCount=1)
        self._mouse("mouseMoved", *end, button="left", buttons=1)
        self._mouse("mouseReleased", *end, button="left", clickCount=1)

    def _mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **more})

    def screenshot(self, path: Path) -> None:
        """What is seen of the page"""
        self.driver.save_screenshot(str(path))

    def problems(self) -> list[str]:
        """Errors of scripts, and whatever the page asked the network for, since this was last called."""
        found = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
                if not url.startswith(LOCAL):
                    found.append(f"asked the network for {url}")
        return found


@contextmanager
def browser(width: int = 1280, height: int = 800) -> Iterator[Page]:
    """A Chromium of its own, with an empty profile, that ends with the block."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            options.add_argument(flag)
        options.add_argument("about:blank")  # not the page of a new tab, which asks the network
        driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        try:
            driver.set_page_load_timeout(PATIENCE)
            driver.set_script_timeout(PATIENCE)
            page = Page(driver)
            page.size(width, height)
            yield page
        finally:
            driver.quit()
