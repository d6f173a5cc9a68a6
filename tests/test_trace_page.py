"""The page of ``cnnengine trace`` in a browser: stepped, scrubbed, pointed at; what it shows is what was recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnengine.backends.registry import unavailable
from cnnengine.jit import host
from cnnengine.shapes import conv2d_shape
from cnnengine.trace import Recording, page_of, record
from cnnengine.trace.sums import follow

from .browser import UNAVAILABLE, Page, browser

REASON = unavailable("emulator")
NO_GCC = REASON is None and not host.can_count(host.compiler())
pytestmark = [
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
    pytest.mark.skipif(NO_GCC, reason="the counters need g++"),
    pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE)),
]
S = conv2d_shape((1, 8, 8, 4), (8, 3, 3, 4), padding=1)
READY = """new Promise((ready) => {
  const look = setInterval(() => document.body.dataset.ready && (clearInterval(look), ready(true)), 10);
})"""
STATE = """(() => {
  const state = page.machine.state;
  return JSON.stringify([page.machine.step, [...state.shared], [...state.flying], [...state.sums], [...state.products],
                         [...state.stored], state.reads.map((r) => [...r])]);
})()"""


@pytest.fixture(scope="module")
def window() -> Iterator[Page]:
    with browser(1440, 1000) as page:
        yield page


@pytest.fixture(params=["direct", "tiled", "implicit_gemm", "implicit_gemm_mma"])
def opened(request: pytest.FixtureRequest, window: Page, tmp_path: Path) -> tuple[Page, Recording]:
    """A page of a rung in the browser, and what it was made of"""
    dtype = "float16" if request.param == "implicit_gemm_mma" else "float32"
    rng = np.random.default_rng(3)
    x, w = (rng.standard_normal(size).astype(dtype) for size in (S.x, S.w))
    recording = record(S, x, w, algorithm=request.param)
    path = tmp_path / "trace.html"
    path.write_text(page_of(recording, "the command"), encoding="utf-8")
    assert path.stat().st_size < 5_000_000
    window.colours("light")
    window.open(path)
    assert window.evaluate(READY)
    return window, recording


def test_the_page_shows_what_was_recorded(opened: tuple[Page, Recording]) -> None:
    """Sectors, wavefronts and conflicts as the page reckons them from addresses; the sums that it adds up itself."""
    page, recording = opened
    requests = recording.trace.requests
    steps = page.evaluate("page.trace.length")
    totals = page.evaluate("page.totals[page.trace.length - 1]")
    assert totals["sectors"] == requests["sectors"].sum()
    assert totals["wavefronts"] == requests["wavefronts"].sum()
    assert totals["conflicts"] == (requests["wavefronts"] - requests["least_wavefronts"]).sum()
    costs = page.evaluate(f"Array.from({{length: {steps}}}, (_, s) => costOf(page.trace, s))")
    columns = page.evaluate("page.trace.steps")
    assert [c["sectors"] for c in costs] == columns["sectors"]
    assert [c["wavefronts"] for c in costs] == columns["wavefronts"]
    assert [c["least"] for c in costs] == columns["least"]

    page.evaluate(f"page.go({steps - 1})")
    sums = follow(recording)
    shown = np.array(page.evaluate("[...page.machine.state.sums]"), np.float32).reshape(sums.index.shape)
    kept = sums.index >= 0
    assert np.array_equal(shown[kept], sums.final[kept])
    stored = recording.result.reshape(-1)[sums.index[kept]]
    np.testing.assert_allclose(shown[kept].astype(stored.dtype), stored, rtol=1e-5, atol=1e-5)
    assert page.evaluate("page.machine.state.stored.reduce((a, b) => a + b)") == kept.sum()
    assert page.problems() == []


def test_it_is_stepped_and_scrubbed(opened: tuple[Page, Recording]) -> None:
    from selenium.webdriver import Keys

    page, _ = opened
    at = "page.machine.step"
    page.press(Keys.ARROW_RIGHT * 3)
    assert page.evaluate(at) == 2
    assert page.evaluate("document.getElementById('count').textContent").startswith("step 3 of ")
    assert page.evaluate("document.querySelector('#source .here') !== null")
    forward = page.evaluate(STATE)
    page.press(Keys.ARROW_RIGHT + Keys.ARROW_LEFT)
    assert page.evaluate(STATE) == forward
    page.press(Keys.END)
    last = page.evaluate("page.trace.length") - 1
    assert page.evaluate(at) == last

    box = page.evaluate(
        "(({x, y, width, height}) => [x, y, width, height])(document.getElementById('scrub').getBoundingClientRect())"
    )
    page.click(box[0] + box[2] / 2, box[1] + box[3] / 2)
    middle = page.evaluate(at)
    assert abs(middle - last / 2) < last / 10
    halfway = page.evaluate(STATE)
    page.drag((box[0] + box[2] / 2, box[1] + box[3] / 2), (box[0] + box[2] / 4, box[1] + box[3] / 2))
    assert abs(page.evaluate(at) - last / 4) < last / 10
    page.press(Keys.HOME)
    assert page.evaluate(at) == -1
    page.evaluate(f"page.go({middle})")
    assert page.evaluate(STATE) == halfway, "back and forth leads to the same place"

    page.press(Keys.HOME)
    page.evaluate("document.getElementById('speed').value = '120'")
    page.press(" ")
    page.evaluate("new Promise((done) => setTimeout(done, 400))")
    page.press(" ")
    stopped = page.evaluate(at)
    assert stopped > 3
    page.evaluate("new Promise((done) => setTimeout(done, 150))")
    assert page.evaluate(at) == stopped, "paused"
    assert page.problems() == []


def middle_of(page: Page, picture: str, box: str) -> tuple[float, float]:
    """Of a rectangle [x, y, w, h] of a picture, where the mouse goes; scrolled to first"""
    page.evaluate(f"document.getElementById('{picture}').scrollIntoView({{block: 'center'}})")
    x, y = page.evaluate(
        f"(([x, y, w, h]) => {{ const at = page.pictures['{picture}'].canvas.getBoundingClientRect();"
        f" return [at.x + x + w / 2, at.y + y + h / 2]; }})({box})"
    )
    return x, y


def told(page: Page) -> dict[str, str]:
    rows = page.evaluate(
        "[...document.querySelectorAll('#tip tr')].map((r) => [...r.children].map((c) => c.textContent))"
    )
    return dict(rows)


def test_it_tells_what_is_pointed_at(opened: tuple[Page, Recording]) -> None:
    page, recording = opened
    first = next(
        i for i, name in enumerate(page.evaluate("page.trace.names")) if name in ("global_load", "global_copy")
    )
    page.evaluate(f"page.go({first})")
    lane, warp = page.evaluate(f"[page.trace.lanes[{first}][1], page.trace.steps.warp[{first}]]")
    thread = 32 * warp + lane
    element = page.evaluate(f"page.trace.where[{first}][1]")
    array = page.evaluate(f"page.trace.steps.array[{first}]")
    name = ("x", "w", "y")[array]
    indices: Any = np.unravel_index(element, recording.arrays[name].shape)
    called = f"{name}[{', '.join(map(str, indices))}]"

    threads = "page.pictures.threads"
    page.hover(
        *middle_of(
            page,
            "threads",
            f"[{threads}.left + {lane} * {threads}.size, {threads}.top + {warp} * ({threads}.row + 3), {threads}.size,"
            f" {threads}.row]",
        )
    )
    words = told(page)
    assert words["thread"] == f"{thread} (warp {warp}, lane {lane})"
    assert words["element"] == called
    assert words["global byte"] == f"{name} + {element * recording.result.itemsize}"
    value = float(recording.arrays[name].reshape(-1)[element])
    assert float(words["reads"].split(",")[0]) == pytest.approx(value, rel=1e-5)
    assert page.evaluate(f"page.view.related.elements[{array}].has({element})")

    picture = ("first", "second")[array]
    page.hover(*middle_of(page, picture, f"page.pictures.{picture}.cell({element})"))
    assert told(page)["element"] == called
    assert page.evaluate(f"page.view.related.threads.has({thread})")

    page.evaluate("page.go(page.trace.length - 1)")
    page.hover(*middle_of(page, "sums", "page.pictures.sums.cell(9)"))
    sums = follow(recording)
    words = told(page)
    place = (
        np.unravel_index(sums.index.reshape(-1)[9], recording.result.shape) if sums.index.reshape(-1)[9] >= 0 else None
    )
    assert words["becomes"] == (f"y[{', '.join(map(str, place))}]" if place else "nothing: outside of the result")
    assert float(words["value"]) == pytest.approx(float(sums.final.reshape(-1)[9]), rel=1e-5)

    if recording.launched.shared_bytes:
        word = page.evaluate(
            "page.machine.state.shared.findIndex((code) => page.trace.source(code)) * page.machine.unit >> 2"
        )
        page.hover(*middle_of(page, "shared", f"page.pictures.shared.word({word})"))
        assert told(page)["shared byte"] == f"{4 * word} (bank {word % 32})"
    page.hover(2, 2)
    assert page.evaluate("document.getElementById('tip').style.display") == "none"
    assert page.problems() == []


def test_light_and_dark(opened: tuple[Page, Recording]) -> None:
    page, _ = opened
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.press("t")
    dark = page.evaluate(ground)
    assert dark != light
    page.press("t")
    assert page.evaluate(ground) == light
    page.colours("dark")
    page.evaluate("delete document.documentElement.dataset.theme")
    assert page.evaluate(ground) == dark
    inside = "[...document.querySelectorAll('canvas')].every((c) => c.getBoundingClientRect().right <= innerWidth)"
    assert page.evaluate(inside), "nothing sticks out"
