"""``cnnengine trace`` without a browser: what is recorded of a block, against the counters and against the result."""

from __future__ import annotations

import platform
from dataclasses import fields
from functools import cache as keep
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from cnnengine.backends.contract import IDENTITY
from cnnengine.backends.registry import unavailable
from cnnengine.cli import main
from cnnengine.errors import KernelError, Unsupported
from cnnengine.jit import host
from cnnengine.jit.counters import Counts
from cnnengine.jit.trace import KINDS
from cnnengine.shapes import Conv2dShape, conv2d_shape
from cnnengine.trace import VERBS, Recording, page_of, record
from cnnengine.trace.steps import steps_of
from cnnengine.trace.sums import follow
from cnnengine.trace.tiles import regions

from .harness import oracle

REASON = unavailable("emulator")
NO_GCC = REASON is None and not host.can_count(host.compiler())
pytestmark = [
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
    pytest.mark.skipif(NO_GCC, reason="the counters need g++"),
]
ONE_BLOCK = conv2d_shape((1, 3, 8, 4), (8, 3, 3, 4), padding=(0, 1))  # a line of 8 outputs: one block of every rung
RUNGS = [
    ("forward", "direct", "float32"),
    ("forward", "tiled", "float32"),
    ("forward", "tiled", "float16"),
    ("forward", "implicit_gemm", "float32"),
    ("forward", "implicit_gemm_mma", "float16"),
    ("forward", "implicit_gemm_mma", "bfloat16"),
    ("forward", "implicit_gemm_tf32", "float32"),
    ("forward", "implicit_gemm_3xtf32", "float32"),
    ("backward_input", "tiled", "float32"),
    ("backward_weight", "implicit_gemm_mma", "float16"),
]
FUSES = platform.machine() not in ("x86_64", "AMD64")  # whether g++ fuses a multiplication into an addition


@keep
def recorded(verb: str, algorithm: str, dtype: str, shape: Conv2dShape = ONE_BLOCK, block: int = 0) -> Recording:
    return record(shape, *operands(verb, dtype, shape), verb=verb, algorithm=algorithm, block=(block, 0, 0))


def operands(verb: str, dtype: str, shape: Conv2dShape) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    sizes = {"x": shape.x, "w": shape.w, "dy": shape.y}
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    return [rng.standard_normal(sizes[name]).astype(kind) for name in VERBS[verb][:2]]


def counted(recording: Recording) -> Counts:
    """The counters of the recorded requests, added up anew from the trace, which has no branches"""
    parts = {}
    for field in (f for f in fields(Counts) if f.name != "branch"):
        mine = recording.trace.requests[recording.trace.requests["kind"] == KINDS.index(field.name)]
        lanes = sum(int(m).bit_count() for m in mine["lanes"])
        values = {"requests": len(mine), "lanes": lanes}
        have = {f.name for f in fields(type(field.default))}
        for name in ("sectors", "ideal_sectors", "wavefronts", "least_wavefronts"):
            if name in have:
                values[name] = int(mine[name].sum())
        parts[field.name] = values
    return parts  # type: ignore[return-value]


@pytest.mark.parametrize(("verb", "algorithm", "dtype"), RUNGS, ids=lambda value: value)
def test_totals_are_the_counters(verb: str, algorithm: str, dtype: str) -> None:
    recording = recorded(verb, algorithm, dtype)
    assert recording.launched.grid == (1, 1, 1), "else the counters have other blocks too"
    total = recording.counters.total
    for name, values in counted(recording).items():
        for what, value in values.items():
            assert value == getattr(getattr(total, name), what), (name, what)


@pytest.mark.parametrize("algorithm", ["tiled", "implicit_gemm_mma"])
def test_totals_by_line_are_the_counters(algorithm: str) -> None:
    recording = recorded("forward", algorithm, "float32" if algorithm == "tiled" else "float16")
    lines: dict[str, int] = {}
    for request in recording.trace.requests:
        if KINDS[request["kind"]] in ("shared_load", "shared_store", "shared_copy", "ldmatrix"):
            line = str(recording.trace.places[request["place"]][0])
            lines[line] = lines.get(line, 0) + int(request["wavefronts"])
    assert lines == {line: c.wavefronts for line, c in recording.counters.lines.items() if c.wavefronts}


@pytest.mark.parametrize(("verb", "algorithm", "dtype"), RUNGS, ids=lambda value: value)
def test_the_sums_become_what_the_kernel_stores(verb: str, algorithm: str, dtype: str) -> None:
    recording = recorded(verb, algorithm, dtype)
    sums = follow(recording)
    kept = sums.index[sums.index >= 0]
    assert sorted(kept.tolist()) == list(range(recording.result.size)), "every element, once"
    followed = sums.final[sums.index >= 0].astype(recording.result.dtype)
    stored = recording.result.reshape(-1)[kept]
    if algorithm.startswith("implicit_gemm_") or not FUSES:
        assert np.array_equal(followed.view(np.uint8), stored.view(np.uint8))
    wanted = np.zeros(recording.result.shape)
    first, second = (recording.arrays[name].astype(np.float64) for name in VERBS[verb][:2])
    rest = (IDENTITY,) if verb == "forward" else ()
    getattr(oracle(), f"conv2d_{verb}")(recording.shape, first, second, wanted, *rest, None)
    rounding = {"implicit_gemm_mma": 1e-2, "implicit_gemm_tf32": 1e-2}.get(
        algorithm, 1e-5 if dtype == "float32" else 1e-2
    )
    np.testing.assert_allclose(recording.result.astype(np.float64), wanted, rtol=rounding, atol=3 * rounding)


def test_every_multiply_add_is_seen() -> None:
    """Of `direct`, those whose pixel is in the image; of `tiled`, the whole tile's, in whole steps of 16."""
    direct, tiled = (follow(recorded("forward", name, "float32")) for name in ("direct", "tiled"))
    assert len(direct.groups) == 2 * 9 * 4, "two warps, every tap and channel"
    steps = -(-9 * 4 // 16) * 16
    assert len(tiled.groups) == 2 * steps
    assert {len(rows) for rows in tiled.rows.values()} == {len(columns) for columns in tiled.columns.values()} == {4}


def test_shared_memory_holds_the_patches() -> None:
    """By the tags: a[buffer][k][row] is x at the row's pixel and k's tap and channel, or nothing in the padding; and
    b[buffer][k][column] is w."""
    recording = recorded("forward", "tiled", "float32")
    sums = follow(recording)
    steps, (a, b) = steps_of(recording, sums), regions(sums.tile)
    s, found = recording.shape, {}
    at = held = 0
    for i, kind in enumerate(steps.kind):
        lanes = int(steps.lanes[i]).bit_count()
        reached = KINDS[kind].startswith(("global", "shared"))
        if KINDS[kind] == "shared_store":
            found |= dict(zip(steps.at[at : at + lanes], steps.held[held : held + lanes], strict=True))
            held += lanes
            if i + 1 == len(steps) or len(found) == 2 * 16 * 32:  # the first step of the reduction
                break
        at += lanes * reached
    for region in (a, b):
        for k in range(16):
            r, c, channel = k // 4 // 3, k // 4 % 3, k % 4
            for line in range(32):
                code = found[region.begin + (k * region.dims[2] + line) * 4]
                if region.name == "a":
                    inside = line < 8 and 0 <= line - 1 + c < s.W
                    wanted = 1 + (r * s.W + line - 1 + c) * s.C + channel if inside else 0
                else:
                    wanted = 1 + 3 * 8 * 4 + line * 36 + k if line < 8 else 0
                assert code == wanted, (region.name, k, line)


def test_blocks_together_are_the_launch() -> None:
    shape = conv2d_shape((1, 8, 8, 4), (8, 3, 3, 4), padding=1)
    blocks = [recorded("forward", "tiled", "float32", shape, block) for block in (0, 1)]
    assert blocks[0].launched.grid == (2, 1, 1)
    total = blocks[0].counters.total
    requests = [b.trace.requests for b in blocks]
    assert sum(int(r["sectors"].sum()) for r in requests) == total.global_sectors
    assert sum(int((r["wavefronts"] - r["least_wavefronts"]).sum()) for r in requests) == total.conflicts > 0
    kept = [follow(b).index for b in blocks]
    assert sorted(e for index in kept for e in index[index >= 0].tolist()) == list(range(8 * 8 * 8))


def test_a_wrong_sum_is_an_error() -> None:
    recording = recorded("forward", "tiled", "float32")
    result = recording.result
    kept = result[0, 0, 3, 5]
    result[0, 0, 3, 5] += 0.25
    try:
        with pytest.raises(KernelError, match="1 of 64 sums are not what the kernel stored"):
            page_of(recording)
    finally:
        result[0, 0, 3, 5] = kept


def test_what_cannot_be_traced_is_said() -> None:
    x, w = operands("forward", "float32", ONE_BLOCK)
    with pytest.raises(ValueError, match=r"block \(1, 0, 0\) is not in the grid of \(1, 1, 1\) blocks"):
        record(ONE_BLOCK, x, w, block=(1, 0, 0))
    with pytest.raises(ValueError, match=r"x must be \(1, 3, 8, 4\), received \(1, 3, 8, 5\)"):
        record(ONE_BLOCK, np.zeros((1, 3, 8, 5), np.float32), w)
    with pytest.raises(Unsupported, match=r"algorithm must be one of direct, tiled.* received 'winograd'"):
        record(ONE_BLOCK, x, w, algorithm="winograd")
    large = conv2d_shape((1, 64, 64, 16), (8, 3, 3, 16))
    with pytest.raises(ValueError, match="elements, a picture holds 60000: make the image smaller"):
        record(large, np.zeros(large.x, np.float32), np.zeros(large.w, np.float32))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "trace.html"
    sizes = ["--x", "1,3,8,4", "--w", "8,3,3,4", "--padding", "0"]
    assert main(["trace", "conv2d", *sizes, "--output", str(page)]) == 0
    assert "warp requests" in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "%DATA%" not in text
    assert "http://" not in text
    assert "https://" not in text
    assert main(["trace", "conv2d", *sizes, "--block", "9,0,0", "--output", str(page)]) == 2
    assert "block (9, 0, 0) is not in the grid" in capsys.readouterr().err
    assert main(["trace", "conv2d", "--x", "1,3,8", "--output", str(page)]) == 2
    assert "expected 4 numbers with commas between them, received '1,3,8'" in capsys.readouterr().err
