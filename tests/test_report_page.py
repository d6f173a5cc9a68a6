"""The report's page in a browser: it opens in silence, filters, sorts, changes colours, fits a telephone and paper."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cnnengine.report import palette
from cnnengine.report.page import page as made
from cnnengine.report.rows import read

from .browser import UNAVAILABLE, Page, browser
from .lines import ROOT

pytestmark = pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE))
RESULTS = ROOT / "bench/results/2026-11-27-epyc-2-cores-bench-cpu.jsonl"
ROWS = "[...document.querySelectorAll('#m1-layers tbody tr')].filter(row => !row.hidden)"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(made(read(RESULTS)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    with browser() as opened:
        yield opened


@pytest.fixture
def page(tab: Page, report: Path) -> Page:
    """As it is when it is opened for the first time, at the size of a desk, with light colours."""
    tab.size(1280, 900)
    tab.colours("light")
    tab.open(report)
    tab.evaluate("localStorage.clear()")
    tab.driver.refresh()
    return tab


def choose(page: Page, selector: str, value: str, event: str = "change") -> None:
    page.evaluate(
        "(() => { const e = document.querySelector(arguments[0]); e.value = arguments[1];"
        " e.dispatchEvent(new Event(arguments[2])); })()",
        selector, value, event,
    )  # fmt: skip


def column(page: Page, number: int) -> list[str]:
    return list(
        page.evaluate(f"{ROWS}.map(row => row.cells[{number}].dataset.value ?? row.cells[{number}].textContent)")
    )


def ground(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def rgb(theme: str, role: str = "surface") -> str:
    return f"rgb({', '.join(str(v) for v in bytes.fromhex(palette.COLOURS[theme][role][1:]))})"


def test_it_opens_in_silence_and_asks_nobody(page: Page) -> None:
    assert page.evaluate("document.querySelector('h1').textContent") == "cnnengine report"
    assert page.evaluate("document.querySelectorAll('svg.drawing').length") > 50
    assert page.problems() == []


def test_the_table_is_filtered(page: Page) -> None:
    every = len(column(page, 0))
    choose(page, "[data-filter=m1-layers]", "conv2d_forward")
    forward = column(page, 0)
    assert set(forward) == {"conv2d_forward"}
    assert len(forward) == 31 < every
    choose(page, "[data-search=m1-layers]", "R50 3x3", "input")
    assert len(column(page, 1)) == 5
    assert all(name.startswith("r50 3x3") for name in column(page, 1))
    assert page.evaluate("document.querySelector('[data-count=m1-layers]').textContent") == "5 layers"
    choose(page, "[data-filter=m1-layers]", "")
    choose(page, "[data-search=m1-layers]", "", "input")
    assert len(column(page, 0)) == every


def test_the_table_is_sorted_by_number_and_by_name(page: Page) -> None:
    click = "document.querySelectorAll('#m1-layers thead button')[arguments[0]].click()"
    page.evaluate(click, 2)  # ours, ms
    down = [float(value) for value in column(page, 2)]
    assert down == sorted(down, reverse=True)
    assert page.evaluate("document.querySelectorAll('#m1-layers th')[2].ariaSort") == "descending"
    page.evaluate(click, 2)
    assert [float(value) for value in column(page, 2)] == sorted(down)
    page.evaluate(click, 0)
    names = column(page, 0)
    assert names == sorted(names, key=str.lower)
    assert page.evaluate("document.querySelectorAll('#m1-layers [aria-sort]').length") == 1
    page.evaluate(click, 6)  # ONNX Runtime / ours, which few rows have
    some = [value for value in column(page, 6) if value]
    assert column(page, 6)[: len(some)] == some == sorted(some, key=float, reverse=True)


def test_a_ladder_for_every_operation(page: Page) -> None:
    seen = "[...document.querySelectorAll('.panel')].filter(p => !p.hidden).map(p => p.dataset.operation)"
    assert page.evaluate(seen) == ["conv2d_forward"] * 6
    page.evaluate("document.querySelector('[data-all]').click()")
    assert page.evaluate(seen) == ["conv2d_forward"] * 31
    choose(page, "[data-filter=m1-panels]", "relu_forward")
    assert set(page.evaluate(seen)) == {"relu_forward"}


def test_the_roofline_shows_one_operation(page: Page) -> None:
    clear = "[...document.querySelectorAll('#m1-cpu-points [data-operation]:not(.dim)')].map(p => p.dataset.operation)"
    assert len(set(page.evaluate(clear))) > 3
    choose(page, "[data-filter=m1-cpu-points]", "max_pool2d_forward")
    assert set(page.evaluate(clear)) == {"max_pool2d_forward"}


def test_a_mark_tells_its_numbers_under_the_pointer(page: Page) -> None:
    mark = "document.querySelector('#m1-cpu-points [data-case]')"
    page.evaluate(f"{mark}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
    x, y = page.evaluate(
        f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({mark}.getBoundingClientRect())"
    )
    page.hover(x, y)
    text = page.evaluate("document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent")
    assert "GFLOP/s" in text
    assert "FLOP a byte" in text
    alike = "new Set([...document.querySelectorAll('.same')].map(p => p.dataset.case + p.dataset.operation)).size"
    assert page.evaluate(alike) == 1
    page.hover(2, 2)
    assert page.evaluate("document.getElementById('tip').hidden")


def test_colours_follow_the_system_until_somebody_chooses(page: Page) -> None:
    assert ground(page) == rgb(palette.LIGHT)
    page.colours("dark")
    assert ground(page) == rgb(palette.DARK)
    page.evaluate("document.querySelector('input[value=light]').click()")
    assert ground(page) == rgb(palette.LIGHT)
    page.driver.refresh()
    assert ground(page) == rgb(palette.LIGHT)  # remembered
    page.colours("light")
    page.evaluate("document.querySelector('input[value=dark]').click()")
    assert ground(page) == rgb(palette.DARK)
    mark = "getComputedStyle(document.querySelector('#m1-cpu-points .f-ours')).fill"
    assert page.evaluate(mark) == rgb(palette.DARK, "ours")
    page.evaluate("document.querySelector('input[value=auto]').click()")
    assert ground(page) == rgb(palette.LIGHT)


@pytest.mark.parametrize("width", [360, 700, 1280, 2200])
def test_nothing_is_wider_than_the_window(page: Page, width: int) -> None:
    page.size(width, 900)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_paper_is_white_and_has_the_whole_table(page: Page) -> None:
    page.evaluate("document.querySelector('input[value=dark]').click()")
    page.paper()
    assert ground(page) == rgb(palette.LIGHT)
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    whole = "(e => e.scrollHeight <= e.clientHeight + 1)(document.querySelector('#m1-table .scroll'))"
    assert page.evaluate(whole)


def test_the_keyboard_reaches_everything(page: Page) -> None:
    """A link to the content first; headers of tables, filters and the scrolled regions in the order of the page."""
    order = "[...document.querySelectorAll('a[href],button,input,select,[tabindex]')].every(e => e.tabIndex === 0)"
    assert page.evaluate(order)
    page.press("\ue004")  # the tabulator
    assert page.evaluate("document.activeElement.className") == "skip"


def test_it_is_there_without_scripts(page: Page, report: Path, tmp_path: Path) -> None:
    """The table, the figures and the first ladders are written in the page."""
    text = report.read_text(encoding="utf-8")
    plain = tmp_path / "plain.html"
    plain.write_text(text[: text.index("<script>")] + "</body></html>", encoding="utf-8")
    page.open(plain)
    assert len(column(page, 0)) > 100
    assert page.evaluate("[...document.querySelectorAll('.panel')].filter(p => p.offsetHeight > 0).length") == 6
