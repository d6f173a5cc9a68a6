"""``cnnengine report``: rows of several runs, the figures' geometry, colours, the page and its Markdown."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import xml.etree.ElementTree as ET
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import run as bench_run
from cnnengine.cli import main
from cnnengine.report import markdown, palette
from cnnengine.report.drawing import SHAPES, Drawing, Polygon, Words, sheet
from cnnengine.report.figures import figures
from cnnengine.report.ladder import LEFT, ladder, top_rate
from cnnengine.report.layers import layers_of
from cnnengine.report.overview import overview
from cnnengine.report.page import page
from cnnengine.report.roofline import roofline
from cnnengine.report.roofs import COPY, MULTIPLY_ADDS
from cnnengine.report.rows import by_case, by_machine, ours_of, peaks_of, read, times_faster
from cnnengine.report.scale import Log, rate_text, short

from .lines import ROOT

RESULTS = sorted((ROOT / "bench/results").glob("*.jsonl"))
EPYC = [path for path in RESULTS if "epyc" in path.name]
ORIGIN = {
    "date": "2026-01-01T00:00:00+00:00", "command": "python bench/run.py", "commit": "0" * 40, "dirty": False,
    "cpu": "CPU", "cores": 2, "threads": 2, "gpu": None, "os": "Linux x86_64", "python": "3.11.7",
    "versions": {"numpy": "2.0"}, "settings": {},
}  # fmt: skip
LATER = {"date": "2026-01-02T00:00:00+00:00"}
SVG = "{http://www.w3.org/2000/svg}"


def timed(contender: str, *milliseconds: float, **more: Any) -> dict[str, Any]:
    """A row of a convolution of 1 GFLOP and 100 MB; one sample stands for five alike."""
    head = {"suite": "conv2d", "operation": "conv2d_forward", "case": "3x3", "device": "cpu", "dtype": "float32"}
    samples = {
        "milliseconds": list(milliseconds) * (5 if len(milliseconds) == 1 else 1),
        "disturbed": [],
        "calls": 1,
        "flops": 10**9,
        "bytes": 10**8,
    }
    return {**head, "contender": contender, **samples, **ORIGIN, **more}


def peaks(**more: Any) -> dict[str, Any]:
    roof = {"suite": "peaks", "device": "cpu", "dtype": "float32", "gflops": 200.0, "gbps": 40.0, "how": "given"}
    return {**roof, **ORIGIN, **more}


TWO_RUNS = [
    timed("native", 20.0),  # on a day when the machine was half as fast
    timed("NumPy", 100.0),
    timed("native", 10.0, **LATER),
    timed("PyTorch nhwc", 30.0, **LATER),
    timed("PyTorch nchw", 40.0, **LATER),
    peaks(),
    peaks(gflops=180.0, gbps=45.0, **LATER),
]


def test_times_of_different_runs_are_never_divided() -> None:
    """NumPy is 5 times slower, as in the run where both met, not 10 times."""
    (layer,) = layers_of(TWO_RUNS)
    numpy, torch = layer.against("NumPy"), layer.against("PyTorch")
    assert numpy is not None
    assert torch is not None
    assert (numpy.ratio, numpy.milliseconds) == (5.0, 100.0)
    assert (torch.ratio, torch.name) == (3.0, "PyTorch nhwc")
    assert layer.samples("native").median == 10.0  # the newest
    assert layer.met_elsewhere("NumPy")
    assert not layer.met_elsewhere("PyTorch nhwc")
    best = layer.against_best()
    assert best is not None
    assert best.name == "PyTorch nhwc"
    assert layer.against("cuDNN") is None


def test_who_never_met_ours_is_not_compared() -> None:
    (layer,) = layers_of([timed("native", 10.0), timed("NumPy", 100.0, **LATER)])
    assert layer.against("NumPy") is None
    assert times_faster(layer.contenders, "native", "NumPy") is None


def test_the_newest_race_counts() -> None:
    rows = [timed("native", 10.0, **LATER), timed("NumPy", 20.0, **LATER), timed("native", 1.0), timed("NumPy", 9.0)]
    for order in (rows, rows[::-1]):
        (layer,) = layers_of(order)
        met = layer.against("NumPy")
        assert met is not None
        assert met.ratio == 2.0


def test_runs_of_one_race_with_different_numbers_of_rounds_are_merged() -> None:
    rows = [timed("native", 1.0), timed("NumPy", 4.0), timed("native", *[1.0] * 9, **LATER)]
    contenders = by_case(rows)["conv2d", "conv2d_forward", "cpu", "float32"]["3x3"]
    assert ours_of(contenders) == "native"
    assert times_faster(contenders, "native", "NumPy") == 4.0


def test_a_roof_is_the_best_that_a_run_measured() -> None:
    found = peaks_of(TWO_RUNS)["cpu", "float32"]
    assert (found.gflops, found.gbps) == (200.0, 45.0)


def test_machines_are_apart_and_the_last_measured_comes_first() -> None:
    other = {"cpu": "other", "date": "2026-01-03T00:00:00+00:00"}
    machines = by_machine([*TWO_RUNS, timed("native", 1.0, **other)])
    assert [cpu for cpu, _, _ in machines] == ["other", "CPU"]
    text = page([*TWO_RUNS, timed("native", 1.0, **other)])
    assert text.index("other, 2 cores</h2>") < text.index("CPU, 2 cores</h2>")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"suite": ', "not a result row: Expecting value"),
        ("[1, 2]", "expected an object with the field suite"),
        ('{"operation": "x"}', "expected an object with the field suite"),
        (json.dumps({**ORIGIN, "suite": "peaks", "dtype": "float32", "gbps": 1}), "it lacks gflops, how"),
        (json.dumps({k: v for k, v in timed("native", 1.0).items() if k != "calls"}), "it lacks calls"),
    ],
)
def test_a_line_that_is_no_row_is_named(
    line: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, output = tmp_path / "broken.jsonl", tmp_path / "report.html"
    broken.write_text(json.dumps(timed("native", 1.0)) + f"\n{line}\n")
    assert main(["report", str(broken), "--output", str(output)]) == 2
    error = capsys.readouterr().err
    assert "broken.jsonl:2: not a result row" in error
    assert message in error
    assert not output.exists()


# ------------------------------------------------------------------------------------------------ figures


def parsed(drawing: Drawing) -> ET.Element:
    return ET.fromstring(drawing.svg(alone=True))


def polygons(drawing: Drawing, tip: str) -> list[Polygon]:
    return [part for part in drawing.parts if isinstance(part, Polygon) and part.tip.startswith(tip)]


def words(drawing: Drawing) -> list[str]:
    return [part.text for part in drawing.parts if isinstance(part, Words)]


def test_scales() -> None:
    scale = Log(1.0, 1000.0, 0.0, 300.0)
    assert [scale(v) for v in (1.0, 10.0, 1000.0)] == pytest.approx([0.0, 100.0, 300.0])
    assert scale.ticks() == [1.0, 10.0, 100.0, 1000.0]
    assert Log(0.3, 3.0, 0, 1).ticks((1, 2, 5)) == [0.5, 1.0, 2.0]
    assert [rate_text(v, "GFLOP/s") for v in (233.3, 341234.0)] == ["233 GFLOP/s", "341 TFLOP/s"]
    numbers = (0, 0.01234, 1.0, 9.876, 49.1, 233.27, 12345.6)
    assert [short(v) for v in numbers] == ["0", "0.0123", "1", "9.88", "49.1", "233", "12,346"]


def test_a_drawing_is_well_formed_and_says_what_it_is() -> None:
    drawing = Drawing(100, 50, 'a "title" <b>', "and & more")
    drawing.line([(0, 0), (10, 10)], "roof", tip="a < b")
    drawing.marker(50, 25, "star", 4, "ours", data={"case": '"quoted" <x>'}, tip="1 & 2")
    drawing.words(3, 4, "x < y", angle=-90)
    root = parsed(drawing)
    assert root.get("role") == "img"
    assert root.get("aria-label") == 'a "title" <b>. and & more'
    assert [title.text for title in root.iter(f"{SVG}title")] == ["a < b", "1 & 2"]
    (mark,) = root.iter(f"{SVG}polygon")
    assert mark.get("data-case") == '"quoted" <x>'
    assert [text.text for text in root.iter(f"{SVG}text")] == ["x < y"]
    assert "var(--ours)" in drawing.svg(alone=True)
    assert "<style>" not in drawing.svg()


def test_a_sheet_puts_drawings_side_by_side() -> None:
    one = Drawing(100, 50, "one", "")
    one.box(10, 10, 20, 5, "ours", tip="box")
    made = sheet([one, one, one], 2, "three", "")
    corners = [box.points[0] for box in polygons(made, "box")]
    assert corners == [(10, 50), (110, 50), (10, 100)]
    assert (made.width, made.height) == (200, 140)


def test_shapes_have_about_the_same_area() -> None:
    """So that no series looks larger; by the shoelace formula."""
    for name, points in SHAPES.items():
        x, y = np.array(points).T
        area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
        assert 2.2 <= area <= 3.9, name


def test_a_point_of_the_roofline_stands_where_its_numbers_say() -> None:
    """1 GFLOP and 100 MB are 10 FLOP a byte; in 10 ms, 100 GFLOP/s. The ridge is 200 / 45 FLOP a byte."""
    drawing = roofline(TWO_RUNS, "cpu")
    (native,) = polygons(drawing, "native\n")
    (torch,) = polygons(drawing, "PyTorch nhwc\n")
    assert "100 GFLOP/s, 10.000 ms, 10 FLOP a byte" in native.tip
    assert native.data["operation"] == "conv2d_forward"
    at, there = (np.mean(mark.points, axis=0) for mark in (native, torch))
    across, up = axis(drawing, "middle"), axis(drawing, "end")
    assert at == pytest.approx([across["10"], up["100"]])
    decade = up["10"] - up["100"]
    assert there == pytest.approx([at[0], at[1] + decade * np.log10(3)])  # three times slower
    assert "multiply-adds, float32: 200 GFLOP/s" in words(drawing)
    assert "copies past the caches: 45 GB/s" in words(drawing)
    assert "ridge: 4.44 FLOP a byte" in words(drawing)


def axis(drawing: Drawing, anchor: str) -> dict[str, float]:
    """The pixels of an axis's values: of the horizontal one, whose words stand in the middle, or of the vertical."""
    marks = [p for p in drawing.parts if isinstance(p, Words) and p.anchor == anchor]
    return {p.text: p.x if anchor == "middle" else p.y - 4 for p in marks}


def test_bands_are_what_the_roofs_gave_beside_the_races() -> None:
    """Copies of 1 GB in 20 to 40 ms: 25 to 50 GB/s."""
    copies = timed(COPY, 20.0, 25.0, 40.0, bytes=10**9, flops=0)
    adds = timed(MULTIPLY_ADDS, 5.0, bytes=0)
    drawing = roofline([*TWO_RUNS, copies, adds], "cpu")
    (band,) = polygons(drawing, "Beside the races")
    assert "copies 25 to 50 GB/s, multiply-adds 200 to 200 GFLOP/s" in band.tip


def test_bars_are_as_long_as_the_rates() -> None:
    layers = layers_of(TWO_RUNS)
    assert top_rate(layers) == 200.0  # the roof
    drawing = ladder(layers[0], 200.0)
    lengths = {name: _length(drawing, name) for name in ("NumPy", "PyTorch nchw", "PyTorch nhwc", "native")}
    rates = {"NumPy": 10.0, "PyTorch nchw": 25.0, "PyTorch nhwc": 1000 / 30, "native": 100.0}
    for name, rate in rates.items():
        assert lengths[name] / lengths["native"] == pytest.approx(rate / 100.0), name
    names = [part.text for part in drawing.parts if isinstance(part, Words) and part.anchor == "end"]
    assert names == ["NumPy*", "PyTorch nchw", "PyTorch nhwc", "native"]  # * another run's
    assert {"ours 5.00x", "ours 4.00x", "ours 3.00x", "100", "multiply-add peak 200"} <= set(words(drawing))


def _length(drawing: Drawing, name: str) -> float:
    (bar,) = [p for p in polygons(drawing, name) if p.points[0][0] == LEFT]
    return float(bar.points[1][0] - bar.points[0][0])


def test_what_memory_bounds_is_told_in_bytes() -> None:
    """100 MB in 10 ms are 10 GB/s."""
    copy = timed(COPY, 25.0, bytes=10**9, flops=0)
    (layer,) = layers_of([timed("native", 10.0), copy, peaks()])
    assert (layer.unit, layer.rate("native"), layer.roof) == ("GB/s", 10.0, 40.0)
    assert layer.share() == (pytest.approx(0.25), COPY)  # of 40 GB/s, beside it


def test_the_overview_has_every_ratio_and_their_mean() -> None:
    rows = [*TWO_RUNS, *(timed(n, ms, case="1x1", **LATER) for n, ms in (("native", 1.0), ("PyTorch nhwc", 12.0)))]
    drawing = overview(layers_of(rows))
    assert [tip.splitlines()[0] for tip in (p.tip for p in polygons(drawing, "")) if "PyTorch nhwc" in tip] == [
        "3.00x PyTorch nhwc",
        "12.00x PyTorch nhwc",
    ]
    (mean,) = polygons(drawing, "geometric mean")
    assert mean.tip == "geometric mean 6.00x PyTorch, of 2 cases, 3.00 to 12.00"
    with pytest.raises(ValueError, match="no row has ours beside somebody else's"):
        overview(layers_of([timed("native", 1.0)]))


def test_the_figures_of_the_committed_results(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install 'cnnengine[plot]')")
    drawn = figures([row for path in EPYC for row in read(path)])
    assert {"overview-cpu", "roofline-cpu", "ladder-conv2d_forward", "ladder-sgd"} <= drawn.keys()
    for drawing in drawn.values():
        assert parsed(drawing).get("viewBox") == f"0 0 {drawing.width:g} {drawing.height:g}"
        assert all(
            -2 <= x <= drawing.width + 2 and -2 <= y <= drawing.height + 2
            for part in drawing.parts
            if not isinstance(part, Words)
            for x, y in part.points
        )
    drawn["roofline-cpu"].png(tmp_path / "roofline.png", palette.DARK)
    from PIL import Image

    with Image.open(tmp_path / "roofline.png") as picture:
        assert picture.size == (1920, 1120)
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or []}
    wanted = palette.COLOURS[palette.DARK]
    assert {tuple(bytes.fromhex(wanted[role][1:])) for role in ("surface", "ours", "torch", "roof")} <= colours


# ------------------------------------------------------------------------------------------------ colours

THEMES = pytest.mark.parametrize("theme", [palette.LIGHT, palette.DARK])
# what red, green and blue become for those who lack a cone, linear light; G. Machado, M. Oliveira, L. Fernandes, "A
# physiologically-based model for simulation of color vision deficiency", IEEE TVCG 15(6), 2009, table 1, severity 1
SEEN = {
    "all cones": np.eye(3),
    "no long": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no middle": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "no short": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
APART = 0.08  # in Oklab, where black and white are 1 apart
READABLE = 4.5  # WCAG 2.2, level AA, of text


def test_contrast_is_that_of_the_standard() -> None:
    assert palette.contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert palette.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
    assert palette.contrast("#123456", "#123456") == 1.0


@THEMES
def test_text_and_marks_can_be_read(theme: str) -> None:
    colours = palette.COLOURS[theme]
    pairs = [(text, ground) for text in palette.TEXT for ground in palette.GROUNDS]
    pairs += [("ink", tint) for tint in palette.TINTS]
    pairs += [(role, "surface") for role in (*palette.SERIES, "roof")]
    pairs += [("surface", "ink"), ("ours", "raised")]  # the tip under the pointer; a pressed button
    low = {pair: palette.contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}
    assert not {pair: value for pair, value in low.items() if value < READABLE}


@THEMES
def test_the_roofs_name_can_be_read_on_the_band(theme: str) -> None:
    colours = palette.COLOURS[theme]
    ground, over = (np.array(list(bytes.fromhex(colours[role][1:]))) for role in ("surface", "muted"))
    (opacity,) = {p.opacity for p in polygons(roofline([row for path in EPYC for row in read(path)], "cpu"), "Beside")}
    blended = "#" + bytes(np.round(ground + opacity * (over - ground)).astype(int).tolist()).hex()
    assert palette.contrast(colours["ink"], blended) >= READABLE


@THEMES
@pytest.mark.parametrize("seen", SEEN)
def test_series_are_told_apart_without_a_cone(theme: str, seen: str) -> None:
    places = {role: _oklab(palette.COLOURS[theme][role], SEEN[seen]) for role in palette.SERIES}
    close = {
        (a, b): round(float(np.linalg.norm(places[a] - places[b])), 3) for a, b in itertools.combinations(places, 2)
    }
    assert not {pair: distance for pair, distance in close.items() if distance < APART}


def test_series_are_told_apart_without_any_colour() -> None:
    families = [family for _, family in palette.THEIRS] + [palette.DEFAULT, palette.RUNG, palette.OTHER]
    looks = Counter((family.shape, family.hollow) for family in families)
    assert max(looks.values()) == 1, looks


def _oklab(colour: str, seen: Any) -> Any:
    """B. Ottosson, "A perceptual color space for image processing", 2020."""
    srgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    light = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    axes = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return axes @ np.cbrt(cones @ np.clip(np.array(seen) @ light, 0, 1))


# ------------------------------------------------------------------------------------------------ the page

VOID = {"meta", "link", "input", "br"}


class Document(HTMLParser):
    """Ids, references and whether every element is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.urls: list[str] = []
        self.headings: list[int] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attributes}
        self.ids += [known["id"]] if "id" in known else []
        self.references += [
            known[n] for n in ("aria-labelledby", "data-filter", "data-search", "data-all") if n in known
        ]
        self.urls += [known[n] for n in ("href", "src") if n in known]
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        del tag, attributes

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("files", [EPYC, RESULTS], ids=["one machine", "several machines"])
def test_the_page_is_whole(files: list[Path]) -> None:
    text = page([row for path in files for row in read(path)])
    found = Document(text)
    assert found.open == []
    assert max(Counter(found.ids).values()) == 1
    assert set(found.references) <= set(found.ids)
    assert all(url == "data:," or (url.startswith("#") and url[1:] in found.ids) for url in found.urls)
    assert found.headings[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(found.headings))
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text
    assert text.count("<table") == text.count("<caption>")
    assert len(text) < 5e6


def test_the_page_tells_the_numbers() -> None:
    text = page(TWO_RUNS)
    assert "<strong>3.00x</strong><span>convolution against PyTorch, geometric mean of 1" in text
    assert '<td title="NumPy, run B" data-value="100">100<sup>B</sup></td>' in text
    assert re.search(r'class="ratio tint-much-faster" title="faster: 5\.000 times NumPy" data-value="5">5\.00', text)
    for fact in ("2026-01-02T00:00:00+00:00", "python bench/run.py", "0" * 12, "CPU, 2 cores, 2 threads", "numpy 2.0"):
        assert fact in text
    slow = page([timed("native", 10.0), timed("PyTorch nhwc", 4.0)])
    assert 'tint-much-slower" title="slower: 0.400 times PyTorch nhwc"' in slow


def test_who_was_absent_or_failed_is_named() -> None:
    head = {k: v for k, v in timed("x", 1.0).items() if k != "milliseconds"}
    rows = [
        *TWO_RUNS,
        {**head, "contender": "cuDNN", "absent": "no GPU"},
        {**head, "contender": "all", "failed": "a differs <by> 1"},
    ]
    for text in (page(rows), markdown.document(rows).replace("<", "&lt;").replace(">", "&gt;")):
        assert "cuDNN did not take part: no GPU" in text
        assert "failed: conv2d_forward, 3x3, float32: a differs &lt;by&gt; 1" in text


def test_names_are_text_and_never_markup() -> None:
    evil = '"><script>alert(1)</script>'
    text = page(
        [
            timed("native", 1.0, case=evil, operation=evil, cpu=evil),
            timed("NumPy", 2.0, case=evil, operation=evil, cpu=evil),
        ]
    )
    assert "<script>alert" not in text
    assert Document(text).open == []


def test_the_overhead_of_python_is_judged() -> None:
    def call(operation: str, contender: str, ms: float) -> dict[str, Any]:
        return timed(contender, ms, suite="overhead", operation=operation, case="1x1x1x1", flops=0, bytes=0)

    rows = [
        *TWO_RUNS,
        call("relu", "call", 0.010),
        call("relu", "kernel", 0.001),
        call("add", "call", 0.003),
        call("add", "kernel", 0.001),
    ]
    text = page(rows)
    assert '<td data-value="9">9.00</td><td class="tint-slower">above</td>' in text
    assert '<td data-value="2">2.00</td><td class="tint-faster">within</td>' in text
    assert "| relu | 10.00 | 1.00 | 9.00 | **no** |" in markdown.document(rows)


# ------------------------------------------------------------------------------------------------ the command


def test_the_command_writes_all_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install 'cnnengine[plot]')")
    rows, output = tmp_path / "rows.jsonl", tmp_path / "report.html"
    rows.write_text("".join(json.dumps(row) + "\n" for row in TWO_RUNS))
    more = ["--markdown", str(tmp_path / "report.md"), "--figures", str(tmp_path / "figures")]
    assert main(["report", str(rows), "--output", str(output), *more]) == 0
    assert "7 rows of 1 file" in capsys.readouterr().out
    assert output.read_text().startswith("<!doctype html>")
    assert "| 3x3 | 10.000 | 30.000 | 40.000 | 100.000 |" in (tmp_path / "report.md").read_text()
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    stems = ("overview-cpu", "roofline-cpu", "ladder-conv2d_forward")
    assert names == {f"{stem}.{ending}" for stem in stems for ending in ("svg", "png")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no result files are named, and there are none in bench/results"),
        (["missing.jsonl"], "missing.jsonl: No such file or directory"),
        (["--only", "relu"], "--only and --seconds say what --run measures, which is not given"),
        (["untimed.jsonl"], "untimed.jsonl: the result files hold no timed row"),
    ],
)
def test_wrong_use_is_told_in_a_sentence(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("untimed.jsonl").write_text(json.dumps(peaks()) + "\n")
    assert main(["report", *arguments, "--output", "report.html"]) == 2
    assert message in capsys.readouterr().err
    assert not Path("report.html").exists()


@pytest.mark.parametrize("status", [0, 1, 2])
def test_a_fresh_run_is_measured_beside_the_page(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """bench/run.py is asked in its own words, and what it wrote is shown together with the file that is named."""
    asked: list[list[str]] = []

    def measure(command: list[str], cwd: Path) -> Any:
        asked.append(command)
        assert (cwd / command[1]).is_file()
        options = bench_run.parser().parse_args(command[2:])
        options.output.write_text(json.dumps(timed("native", 1.0, **LATER)) + "\n")
        assert (options.suites, options.only, options.seconds) == (["conv2d"], "r50", 0.5)
        return subprocess.CompletedProcess(command, status)

    monkeypatch.setattr(subprocess, "run", measure)
    older, output = tmp_path / "older.jsonl", tmp_path / "report.html"
    older.write_text(json.dumps(timed("native", 2.0)) + "\n" + json.dumps(timed("NumPy", 8.0)) + "\n")
    options = ["--run", "conv2d", "--only", "r50", "--seconds", "0.5", "--output", str(output)]
    assert main(["report", str(older), *options]) == (2 if status == 2 else 0)
    said = capsys.readouterr()
    assert len(asked) == 1
    if status == 2:
        assert "bench/run.py ended with status 2" in said.err
        return
    assert ("some races failed" in said.err) == (status == 1)
    assert "3 rows of 2 files" in said.out
    assert (tmp_path / "report.jsonl").exists()
