"""Prints the table of docs/kernels/conv2d-cpu.md: every convolution layer and pass, the native backend against PyTorch.

    python bench/layers_cpu.py [--only TEXT] [--rounds 15] [--threads 1]

PyTorch runs its own choice of kernel (oneDNN) in both layouts; the ratio is against the faster of the two. Variants of
a row take turns in random order, with a pause and an uncounted call at each switch. With one thread the times are
processor time, which other programs on the machine disturb little; with more they are wall time. Medians, milliseconds.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from bench.layers import CONV2D, Conv2dLayer
from cnnengine.backends import get
from cnnengine.backends.contract import IDENTITY
from cnnengine.backends.native import set_num_threads

PAUSE_SECONDS = 0.002
SAMPLE_SECONDS = 0.004
PASSES = ("forward", "backward_input", "backward_weight")


def variants(layer: Conv2dLayer, which: str) -> dict[str, Callable[[], object]]:
    """{"ours": call, "nchw": call, "nhwc": call}"""
    s, backend, rng = layer.shape, get("native"), np.random.default_rng(0)
    x, w, y = (rng.standard_normal(shape, dtype=np.float32) for shape in (s.x, s.w, s.y))
    out = np.empty({"forward": s.y, "backward_input": s.x, "backward_weight": s.w}[which], np.float32)
    calls: dict[str, Callable[[], object]] = {
        "ours": {
            "forward": lambda: backend.conv2d_forward(s, x, w, out, IDENTITY, None),
            "backward_input": lambda: backend.conv2d_backward_input(s, y, w, out, None),
            "backward_weight": lambda: backend.conv2d_backward_weight(s, x, y, out, None),
        }[which]
    }
    geometry = ([s.stride_h, s.stride_w], [s.pad_h, s.pad_w], [s.dilation_h, s.dilation_w])
    for layout, memory in (("nchw", torch.contiguous_format), ("nhwc", torch.channels_last)):
        tx, tw, ty = (torch.from_numpy(a).permute(0, 3, 1, 2).contiguous(memory_format=memory) for a in (x, w, y))
        if which == "forward":
            calls[layout] = lambda x=tx, w=tw: torch.conv2d(x, w, None, *geometry, s.groups)  # type: ignore[misc]
        else:
            mask = [which == "backward_input", which == "backward_weight", False]
            calls[layout] = lambda x=tx, w=tw, y=ty, mask=mask: torch.ops.aten.convolution_backward(  # type: ignore[misc]
                y, x, w, None, *geometry, False, [0, 0], s.groups, mask
            )
    return calls


def race(calls: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Milliseconds per call of each variant, one sample a round."""
    repeats, times = {}, {name: [] for name in calls}  # type: ignore[var-annotated]
    for name, call in calls.items():
        call()
        start = clock()
        call()
        repeats[name] = max(1, int(SAMPLE_SECONDS / (clock() - start)))
    for _ in range(rounds):
        for name in random.sample(list(calls), len(calls)):
            time.sleep(PAUSE_SECONDS)
            calls[name]()
            start = clock()
            for _ in range(repeats[name]):
                calls[name]()
            times[name].append((clock() - start) / repeats[name] * 1e3)
    return times


def main() -> None:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--only", default="", help="only layers whose name contains this")
    p.add_argument("--passes", default=",".join(PASSES), help="comma-separated")
    p.add_argument("--rounds", type=int, default=15)
    p.add_argument("--threads", type=int, default=1)
    options = p.parse_args()
    torch.set_num_threads(options.threads)
    set_num_threads(options.threads)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    print("| layer (batch) | pass | ours | GFLOP/s | PyTorch NCHW | PyTorch channels_last | PyTorch / ours |")
    print("|---|---|--:|--:|--:|--:|--:|")
    ratios = []
    with torch.no_grad():
        for layer in CONV2D:
            if options.only not in layer.name:
                continue
            for which in options.passes.split(","):
                times = race(variants(layer, which), options.rounds, clock)
                ours, nchw, nhwc = (statistics.median(times[name]) for name in ("ours", "nchw", "nhwc"))
                ratios.append(min(nchw, nhwc) / ours)
                print(
                    f"| {layer.name} ({layer.N}) | {which} | {ours:.3f} | {layer.shape.flops() / ours * 1e-6:.0f} | "
                    f"{nchw:.3f} | {nhwc:.3f} | {ratios[-1]:.2f} |",
                    flush=True,
                )
    print(f"\nSlowest ratio {min(ratios):.2f}, median {statistics.median(ratios):.2f}, best {max(ratios):.2f}.")


if __name__ == "__main__":
    main()
