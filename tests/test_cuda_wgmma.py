"""The wgmma pipeline with bugs planted in it: the emulator's race checker, its reports or the numbers show each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cnnengine import _paths
from cnnengine.backends import _conv2d_wgmma as wgmma
from cnnengine.backends import _kernel_library as library
from cnnengine.backends.contract import Epilogue
from cnnengine.backends.emulator.backend import EmulatorBackend
from cnnengine.backends.registry import get, unavailable
from cnnengine.errors import KernelError
from cnnengine.jit import host
from cnnengine.jit import source as source_module
from cnnengine.shapes import conv2d_shape

from . import every_kernel
from .compare import assert_close

pytestmark = pytest.mark.skipif(unavailable("emulator") is not None, reason=str(unavailable("emulator")))
TILE = library.WGMMA_TILES[1]
# Four tiles for two blocks. Each takes five steps and two panels of the residual: the ring goes round twice and more.
SHAPE = conv2d_shape((1, 17, 30, 64), (72, 5, 1, 64), padding=(2, 0))
FILES = {"ring": "wgmma_ring.cuh", "tile": "wgmma_tile.cuh", "store": "wgmma_store.cuh"}
Edit = tuple[str, str, str]  # file, text, what stands there instead
# what is taken out or put wrong -> (blocks of a cluster, edits, the report; None: only the numbers)
BUGS: dict[str, tuple[int, tuple[Edit, ...], str | None]] = {
    "missing empty wait": (
        1,
        (("tile", "ptx::mbarrier_wait(&shared.empty[ring.stage], ring.parity ^ 1);", ""),),
        r"mbarrier misuse.*one arrival too many",
    ),
    "missing full wait": (
        1,
        (("tile", "ptx::mbarrier_wait(&shared.full[ring.stage], ring.parity);", ""),),
        r"missing wait for a bulk tensor copy",
    ),
    "wrong parity": (1, (("tile", "ring.parity ^ 1);", "ring.parity);"),), r"deadlock"),
    "wrong swizzle": (1, (("tile", "ptx::Swizzle::bytes128);", "ptx::Swizzle::bytes64);"),), None),
    "early accumulator read": (1, (("tile", "ptx::wgmma_wait<0>();", ""),), r"wgmma|accumulator"),
    "stage given back early": (
        1,
        (("tile", "if (step > 0) {\n        ptx::wgmma_wait<1>();", "if (step > 0) {"),),
        r"missing wgmma wait.*the write of shared memory",
    ),
    "panel filled while TMA reads it": (
        1,
        (("store", "if (lane == 0) ptx::tma_store_wait_read<1>();", ""),),
        r"the write of shared memory.*meets a bulk store in flight",
    ),
    "panel filled with moments while TMA reads it": (
        1,
        (("store", "if (lane == 0) ptx::tma_store_wait_read<1>();  // TMA has read the panel\n", ""),),
        r"the write of shared memory.*meets a bulk store in flight",
    ),
    "moments read before all warps have left theirs": (
        1,
        (("store", "ptx::named_barrier_sync(1 + consumer, 128);  // all have written", ""),),
        r"missing barrier",
    ),
    "panel without a proxy fence": (1, (("store", "ptx::fence_proxy_async();", ""),), r"missing fence.proxy.async"),
    "panel without swizzle": (1, (("store", "&out[row][chunk]", "&out[row][pair * 2 + lane / 16]"),), None),
    "block ends before TMA has read its panels": (
        1,
        (("tile", "if (threadIdx.x % 32 == 0) ptx::tma_store_wait_read<0>();", "{}"),),
        r"1 bulk tensor stores in flight",
    ),
    "residual's stage given back by one warp": (
        1,
        (("store", "ptx::named_barrier_sync(1 + consumer, 128);", ""),),
        r"missing barrier.*the write of shared memory.*after the read by thread",
    ),
    "missing wait for the residual": (
        1,
        (("store", "if (job.adds) ptx::mbarrier_wait(&shared.full[ring.stage], ring.parity);", ""),),
        r"missing wait for a bulk tensor copy",
    ),
    "stage is empty when the block's own consumers have left it": (
        2,
        (
            ("tile", "Tile::CONSUMERS * together.blocks", "Tile::CONSUMERS"),
            ("ring", "if (thread < blocks)", "if (thread == rank)"),
        ),
        r"missing wgmma wait.*the write of shared memory of block",
    ),
    "stage is given back to the own block alone": (
        2,
        (("ring", "if (thread < blocks)", "if (thread == rank)"),),
        r"deadlock",
    ),
    "stage is full with the own half": (
        2,
        (("tile", "Tile::A_BYTES + Tile::B_BYTES", "Tile::A_BYTES + Tile::B_BYTES / together.blocks"),),
        r"missing wait for a bulk tensor copy.*the read of shared memory",
    ),
    "mbarriers used before the other block has initialised them": (
        2,
        (("tile", "  together.meet();\n  const int warpgroup", "  __syncthreads();\n  const int warpgroup"),),
        r"missing barrier.*shared memory of block",
    ),
    "block ends while the other arrives at it": (
        2,
        (("tile", "if (together.blocks > 1) together.meet();", ""),),
        r"cluster misuse.*whose threads have all returned",
    ),
}


@pytest.fixture(autouse=True)
def one_kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Only it is compiled."""
    monkeypatch.setitem(library.FAMILIES, wgmma.FAMILY, (f"conv2d_forward_wgmma<{{T}}, {TILE}>",))
    library.source.cache_clear()
    yield
    library.source.cache_clear()


def forward(race: bool, together: int) -> tuple[np.ndarray, np.ndarray]:
    """(the rung's result, the oracle's). It leaves the moments of its tiles too."""
    rng = np.random.default_rng(3)
    x, w, residual = (rng.standard_normal(size).astype("float16") for size in (SHAPE.x, SHAPE.w, SHAPE.y))
    y, expected = np.full(SHAPE.y, np.nan, "float16"), np.zeros(SHAPE.y)
    backend = EmulatorBackend(every_kernel.RecordingRuntime(flags=("-O1",), race=race))
    moments = np.full((-(-SHAPE.P * SHAPE.Q // wgmma.CONSUMER_ROWS), 2, SHAPE.K), np.nan, np.float32)
    epilogue = Epilogue(residual=residual)
    with every_kernel.wgmma_planned(TILE, together):
        plan, _, operands = backend._forward(SHAPE, x, w, y, epilogue, "implicit_gemm_wgmma")
        backend._run_forward(plan, SHAPE, operands, y, epilogue, moments)
    assert np.isfinite(moments).all()
    added = Epilogue(residual=residual.astype(float))
    get("numpy").conv2d_forward(SHAPE, x.astype(float), w.astype(float), expected, added, None)
    return y, expected


@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize("race", [False, True], ids=["plain", "race checker"])
def test_the_pipeline_is_right_and_has_no_race(race: bool, together: int) -> None:
    assert_close(*forward(race, together), SHAPE.reduction)


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(bug: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together, edits, report = BUGS[bug]
    edited = tmp_path / "csrc"
    shutil.copytree(_paths.csrc_dir(), edited)
    for module in (host, source_module):
        monkeypatch.setattr(module, "csrc_dir", lambda: edited)
    for name, text, instead in edits:
        path = edited / "cuda" / FILES[name]
        content = path.read_text()
        assert text in content
        path.write_text(content.replace(text, instead))
    if report is None:
        with pytest.raises(AssertionError, match="elements are off"):
            assert_close(*forward(False, together), SHAPE.reduction)
    else:
        with pytest.raises(KernelError, match=report):
            forward(True, together)
