"""The wgmma pipeline with bugs planted in it: the emulator's race checker, its reports or the numbers show each."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from cnnengine import _paths
from cnnengine.backends.contract import IDENTITY
from cnnengine.backends.emulator.backend import EmulatorBackend
from cnnengine.backends.registry import get, unavailable
from cnnengine.errors import KernelError
from cnnengine.jit import host
from cnnengine.jit import source as source_module
from cnnengine.shapes import conv2d_shape

from . import every_kernel
from .compare import assert_close

pytestmark = pytest.mark.skipif(unavailable("emulator") is not None, reason=str(unavailable("emulator")))
SHAPE = conv2d_shape(
    (1, 9, 16, 128), (64, 3, 3, 128), padding=1
)  # two tiles, 18 steps: the ring goes round three times
BUGS = {  # what is taken out or put wrong -> (text, what stands there instead, the report; None: only the numbers)
    "missing empty wait": (
        "ptx::mbarrier_wait(&shared.empty[ring.stage], ring.parity ^ 1);",
        "",
        r"mbarrier misuse.*one arrival too many",
    ),
    "missing full wait": (
        "ptx::mbarrier_wait(&shared.full[ring.stage], ring.parity);",
        "",
        r"missing wait for a bulk tensor copy",
    ),
    "wrong parity": ("ring.parity ^ 1);", "ring.parity);", r"deadlock"),
    "wrong swizzle": ("ptx::Swizzle::bytes128);", "ptx::Swizzle::bytes64);", None),
    "early accumulator read": ("ptx::wgmma_wait<0>();", "", r"wgmma|accumulator"),
    "stage given back early": ("if (step > 0) {\n        ptx::wgmma_wait<1>();", "if (step > 0) {", r"data race|wgmma"),
}


def forward(race: bool) -> tuple[np.ndarray, np.ndarray]:
    """(the rung's result, the oracle's)"""
    rng = np.random.default_rng(3)
    x, w = (rng.standard_normal(size).astype("float16") for size in (SHAPE.x, SHAPE.w))
    y, expected = np.full(SHAPE.y, np.nan, "float16"), np.zeros(SHAPE.y)
    backend = EmulatorBackend(every_kernel.RecordingRuntime(flags=("-O1",), race=race))
    backend.conv2d_forward(SHAPE, x, w, y, IDENTITY, "implicit_gemm_wgmma")
    get("numpy").conv2d_forward(SHAPE, x.astype(float), w.astype(float), expected, IDENTITY, None)
    return y, expected


@pytest.mark.parametrize("race", [False, True], ids=["plain", "race checker"])
def test_the_pipeline_is_right_and_has_no_race(race: bool) -> None:
    assert_close(*forward(race), SHAPE.reduction)


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(bug: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, instead, report = BUGS[bug]
    edited = tmp_path / "csrc"
    shutil.copytree(_paths.csrc_dir(), edited)
    for module in (host, source_module):
        monkeypatch.setattr(module, "csrc_dir", lambda: edited)
    path = edited / "cuda" / "wgmma_tile.cuh"
    content = path.read_text()
    assert text in content
    path.write_text(content.replace(text, instead))
    if report is None:
        with pytest.raises(AssertionError, match="elements are off"):
            assert_close(*forward(False), SHAPE.reduction)
    else:
        with pytest.raises(KernelError, match=report):
            forward(True)
