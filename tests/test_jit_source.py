"""Sources, their fingerprints, and shapes compiled in."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from cnnengine import _paths
from cnnengine.backends import _kernel_library as library
from cnnengine.backends.contract import IDENTITY
from cnnengine.backends.emulator.backend import EmulatorBackend
from cnnengine.backends.registry import get, unavailable
from cnnengine.jit import source as source_module
from cnnengine.jit.source import KernelSource, constant_shape, fingerprint
from cnnengine.shapes import conv2d_shape, pool2d_shape


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of csrc that a test may edit."""
    copy = tmp_path / "csrc"
    shutil.copytree(_paths.csrc_dir(), copy)
    monkeypatch.setattr(source_module, "csrc_dir", lambda: copy)
    return copy


@pytest.mark.parametrize(
    "file", ["cuda/conv2d.cuh", "cuda/conv2d/tiled.cuh", "cuda/tile.cuh", "shapes.h", "cuda/platform.cuh"]
)
def test_a_change_in_any_included_file_changes_the_fingerprint(sources: Path, file: str) -> None:
    before = fingerprint(library.source("conv2d", "float32"))
    with (sources / file).open("a") as included:
        included.write("\n// changed\n")
    assert fingerprint(library.source("conv2d", "float32")) != before


def test_a_change_elsewhere_does_not(sources: Path) -> None:
    before = fingerprint(library.source("conv2d", "float32"))
    with (sources / "cuda" / "pool2d.cuh").open("a") as other:
        other.write("\n// changed\n")
    assert fingerprint(library.source("conv2d", "float32")) == before


def test_details_are_part_of_the_fingerprint() -> None:
    plain = KernelSource("cuda/dropout.cuh", ("dropout<float>",))
    others = [
        fingerprint(plain, "sm_80"),
        fingerprint(plain, "sm_90a"),
        fingerprint(KernelSource("cuda/dropout.cuh", ("dropout<__half>",)), "sm_80"),
        fingerprint(KernelSource("cuda/dropout.cuh", ("dropout<float>",), "struct S {};"), "sm_80"),
    ]
    assert len(set(others)) == 4


def test_constant_shape_keeps_only_the_batch() -> None:
    shape = conv2d_shape((2, 9, 8, 6), (4, 3, 3, 6))
    name, definition = constant_shape(shape)
    assert definition == (
        f"struct {name} {{\n  int N;\n  static constexpr int H = 9, W = 8, C = 6, K = 4, R = 3, S = 3, stride_h = 1, "
        "stride_w = 1, pad_h = 0, pad_w = 0, dilation_h = 1, dilation_w = 1, groups = 1, P = 7, Q = 6;\n};\n"
    )
    assert constant_shape(conv2d_shape((5, 9, 8, 6), (4, 3, 3, 6))) == (name, definition)
    assert constant_shape(conv2d_shape((2, 9, 9, 6), (4, 3, 3, 6)))[0] != name


def test_constant_shape_names_an_unknown_member() -> None:
    with pytest.raises(ValueError, match="Pool2dShape has no member 'K', it has"):
        constant_shape(pool2d_shape("max_pool2d", (1, 4, 4, 1), 2), ("K",))


@pytest.mark.parametrize("algorithm", ["direct", "tiled", "implicit_gemm"])
def test_constant_shapes_compute_the_same_bits(algorithm: str, rng: np.random.Generator) -> None:
    """One compilation serves two batch sizes."""
    reason = unavailable("emulator")
    if reason is not None:
        pytest.skip(f"backend emulator is absent: {reason}")
    runtime_shapes = get("emulator")
    constant_shapes = EmulatorBackend()
    constant_shapes.constant_shapes = True
    for batch in (1, 3):
        shape = conv2d_shape((batch, 7, 9, 4), (10, 3, 3, 2), stride=2, padding=1, groups=2)
        x, w, dy = (rng.standard_normal(s).astype("float32") for s in (shape.x, shape.w, shape.y))
        results = []
        for backend in (runtime_shapes, constant_shapes):
            y, dx, dw = (np.full(s, np.nan, "float32") for s in (shape.y, shape.x, shape.w))
            backend.conv2d_forward(shape, x, w, y, IDENTITY, algorithm)
            backend.conv2d_backward_input(shape, dy, w, dx, algorithm)
            backend.conv2d_backward_weight(shape, x, dy, dw, algorithm)
            results.append((y, dx, dw))
        for a, b in zip(*results, strict=True):
            np.testing.assert_array_equal(a, b)
