"""What ``cnnengine report --predict`` says of rungs that nobody timed."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from cnnengine.backends.registry import unavailable
from cnnengine.cli import main
from cnnengine.inspect.gpus import find
from cnnengine.jit import host, nvrtc
from cnnengine.report import markdown, predicted, predictions
from cnnengine.report.page import page
from cnnengine.report.rows import PREDICTED, read

from .test_report import Document, timed

ROW: dict[str, Any] = {
    "suite": PREDICTED, "case": "3x3", "dtype": "float16", "rung": "tiled", "operation": "conv2d_forward",
    "gpu": "H100 SXM", "arch": "sm_90a", "flops": 10**9, "bytes": 10**6, "kernels": ["k"], "registers": 100,
    "spill_bytes": 0, "shared_bytes": 17408, "threads": 256, "occupancy": 0.25, "limiters": ["registers"], "waves": 2.5,
    "missing": {}, "bound": "arithmetic", "milliseconds_at_best": 0.02, "tflops_at_most": 66.9,
    "emulated": "conv2d_forward: small", "differs": "", "emulated_flops": 2000, "sectors_a_load": 4.0,
    "sectors_a_store": 16.0, "traffic": 500, "bulk": 0, "wavefronts": 10, "conflicts": 1,
    "date": "2026-01-01T00:00:00+00:00", "command": "cnnengine report --predict H100", "versions": {},
}  # fmt: skip
UNCOUNTED = {k: v for k, v in ROW.items() if k not in ("traffic", "emulated", "differs")} | {
    "rung": "direct", "missing": {"counters": "no compiler"},
}  # fmt: skip
REASONS = (nvrtc.problem(), unavailable("emulator"))
NO_GCC = REASONS[1] is None and not host.can_count(host.compiler())


def test_a_row_is_told_in_numbers() -> None:
    """500 bytes for 2,000 FLOP are 250 for 1,000; times 10^9 FLOP over 1,000 and 10^6 bytes: 250 times the least."""
    assert predictions.asked(ROW) == 250.0
    seen = dict(zip(predictions.HEADS, (text for _, text in predictions.cells(ROW)), strict=True))
    assert seen["bytes for 1,000 FLOP"] == "250"
    assert seen["times least"] == "250x"
    assert seen["bank conflicts"] == "10%"
    assert (seen["occupancy"], seen["shared, KB"], seen["waves"]) == ("25%", "17.0", "2.5")
    assert (seen["sectors a load"], seen["at best, us"]) == ("4.0", "20.0")


def test_what_is_not_known_is_left_empty_and_said() -> None:
    assert predictions.asked(UNCOUNTED) is None
    seen = dict(zip(predictions.HEADS, (text for _, text in predictions.cells(UNCOUNTED)), strict=True))
    assert (seen["bytes for 1,000 FLOP"], seen["times least"]) == ("", "")
    assert "Missing: counters: no compiler" in predictions.notes([UNCOUNTED])
    with pytest.raises(ValueError, match="no predicted row has the emulator's counts"):
        predictions.traffic([UNCOUNTED])
    text = page([timed("native", 1.0), UNCOUNTED])
    assert "no compiler" in text
    assert "What each rung asks of memory" not in text


def test_page_and_markdown_have_them_apart_from_what_was_measured() -> None:
    rows = [timed("native", 1.0), ROW, UNCOUNTED]
    text = page(rows)
    assert Document(text).open == []
    assert '<section id="predictions"' in text
    assert "H100 SXM (sm_90a)" in text
    assert "For H100" not in page(rows[:1])
    table = markdown.document(rows)
    assert (
        "| tiled | float16 | 100 | 0 | 17.0 | 25% | registers | 2.5 | 4.0 | 16.0 | 10% | 250 | 250x | 20.0 |" in table
    )
    assert "predicted" not in markdown.document(rows[:1])


def test_the_figure_is_logarithmic_and_says_its_numbers() -> None:
    quarter = ROW | {"rung": "direct", "traffic": 5000}
    drawing = predictions.traffic([quarter, ROW])
    root = ET.fromstring(drawing.svg(alone=True))
    assert "direct float16 2,500, tiled float16 250" in str(root.get("aria-label"))
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"2,500", "250", "direct", "tiled", "3x3, float16"} <= set(texts)


def test_rows_are_read_back_and_an_unknown_gpu_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(timed("native", 1.0)) + "\n" + json.dumps(ROW) + "\n")
    assert len(read(rows)) == 2
    output = tmp_path / "report.html"
    assert main(["report", str(rows), "--output", str(output), "--predict", "no such GPU"]) == 2
    assert "--predict: gpu must be one of" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl"}
    rows.write_text(json.dumps({k: v for k, v in ROW.items() if k != "rung"}) + "\n")
    assert main(["report", str(rows), "--output", str(output)]) == 2
    assert "it lacks rung" in capsys.readouterr().err


@pytest.mark.skipif(any(REASONS), reason=str(next(filter(None, REASONS), "")))
@pytest.mark.skipif(NO_GCC, reason="the counters need g++")
def test_rungs_are_compiled_and_counted() -> None:
    """One image of 8 x 8; who does not take a shape has no row. A warp asks for at most 32 sectors at once."""
    small = predicted.Case("small", (1, 8, 8, 64), (64, 3, 3, 64))
    (row,) = predicted.predictions("H100", (small,), ("float32",), ("depthwise", "direct"))
    assert (row["rung"], row["gpu"], row["missing"].keys() - {"machine code, instruction mix"}) == (
        "direct", "H100 SXM", set(),
    )  # fmt: skip
    assert row["flops"] == row["emulated_flops"] == 2 * 8 * 8 * 64 * 9 * 64
    assert 1 <= row["sectors_a_load"] <= 32
    assert row["traffic"] >= row["bytes"]
    assert 0 < row["registers"] <= 255
    assert row["spill_bytes"] == 0
    assert 0 < row["occupancy"] <= 1
    assert row["shared_bytes"] == row["wavefronts"] == 0  # no shared memory
    assert row["milliseconds_at_best"] >= row["flops"] / find("H100").fp32 * 1e-9


def test_winograd_is_predicted_with_the_products_that_it_has_left() -> None:
    """F(2x2, 3x3) multiplies 16 times for four outputs of nine taps; three products make one of 3xtf32."""
    assert predicted.PRODUCTS == {"winograd": 16 / 36, "implicit_gemm_3xtf32": 3.0}
    assert predicted.RUNGS.index("winograd") == predicted.RUNGS.index("implicit_gemm") + 1
