"""Runs in a process of its own, with the fake driver and the fake CuPy, and a fake ncu on the path: what an inspection
adds where there is a GPU. Prints "done"."""

from __future__ import annotations

import machine

from cnnengine.inspect import inspect

CALL = {"x": (2, 8, 8, 8), "w": (16, 3, 3, 8), "padding": 1, "algorithm": "tiled"}


def main() -> None:
    machine.install()
    found = inspect("conv2d", **CALL, emulate=0)
    m = found.measured
    assert m is not None, found.missing
    assert m.device == "NVIDIA A100-SXM4-80GB"
    assert found.bound is not None
    assert (found.bound.gpu, found.arch) == ("A100 SXM 80GB", "sm_80"), "the GPU that is here"
    assert len(m.samples) == 20
    assert m.samples[0] <= m.milliseconds <= m.samples[-1]
    seconds = 1e-3 * m.milliseconds
    assert abs(m.gbps * seconds * 1e9 - found.problem.nbytes) < 1
    assert abs(m.gflops * seconds * 1e9 - found.problem.flops) < 1
    assert m.ncu == {"conv2d_forward_tiled": {"sectors of loads": 1024.0}}, (m.ncu, m.without_ncu)
    text = found.text()
    assert "measured on NVIDIA A100-SXM4-80GB" in text
    assert "ncu, conv2d_forward_tiled: sectors of loads 1024" in text
    other = inspect("conv2d", **CALL, emulate=0, gpu="H100")
    assert other.bound is not None
    assert other.bound.gpu == "H100 SXM", "a GPU that is named is the one to predict for"
    print("done")


main()
