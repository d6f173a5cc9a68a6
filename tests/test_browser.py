"""The browser that pages are tested in sees what is wrong with a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from .browser import UNAVAILABLE, browser

pytestmark = pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE))

PAGE = """<!doctype html><title>%s</title>
<style>body { margin: 0 } :root { --scheme: light } @media (prefers-color-scheme: dark) { :root { --scheme: dark } }
@media print { :root { --scheme: paper } }</style>
<script>
const keys = [];
let at = null;
addEventListener("keydown", (event) => keys.push(event.key));
addEventListener("mousemove", (event) => (at = [event.clientX, event.clientY]));
%s</script>"""


def test_a_page_is_driven_and_its_problems_are_seen(tmp_path: Path) -> None:
    good, throws, asks = (tmp_path / f"{name}.html" for name in ("good", "throws", "asks"))
    good.write_text(PAGE % ("good", ""))
    throws.write_text(PAGE % ("throws", "throw Error('as planned')"))
    asks.write_text(PAGE % ("asks", "new Image().src = 'http://192.0.2.1/picture.png'"))
    with browser(640, 480) as page:
        page.open(good)
        assert page.evaluate("document.title") == "good"
        assert page.evaluate("[innerWidth, innerHeight]") == [640, 480]
        assert page.evaluate("arguments[0] + 1", 2) == 3
        assert page.evaluate("Promise.resolve(4)") == 4
        page.press("a")
        page.hover(30, 40)
        assert page.evaluate("[keys, at]") == [["a"], [30, 40]]
        scheme = "getComputedStyle(document.documentElement).getPropertyValue('--scheme').trim()"
        for name in ("dark", "light"):
            page.colours(name)
            assert page.evaluate(scheme) == name
        page.paper()
        assert page.evaluate(scheme) == "paper"
        page.screenshot(tmp_path / "good.png")
        assert (tmp_path / "good.png").stat().st_size > 100
        assert page.problems() == []
        page.open(throws)
        assert any("as planned" in problem for problem in page.problems())
        page.open(asks)
        assert "asked the network for http://192.0.2.1/picture.png" in page.problems()
