"""All rungs on one layer, side by side, as the emulator counts them.

    python examples/ladder/rungs.py [--x 1,8,16,64] [--w 64,3,3,64]

Padding keeps height and width. Bytes from global memory are sectors of 32 bytes and what TMA brings; turns are those of
shared memory's banks; instructions are those of a warp that reach memory.
"""

import argparse

from cnnengine.commands.inspect import sizes
from cnnengine.inspect import inspect
from cnnengine.jit.counters import Counts

RUNGS = {
    "direct": "float32",
    "tiled": "float32",
    "implicit_gemm": "float32",
    "winograd": "float32",
    "implicit_gemm_mma": "float16",
    "implicit_gemm_wgmma": "float16",
}


def row(rung: str, dtype: str, counts: Counts, multiply_adds: int) -> str:
    nbytes = 32 * counts.global_sectors + counts.bulk_load.nbytes + counts.bulk_store.nbytes
    reached = (counts.global_load, counts.global_store, counts.global_copy, counts.bulk_load, counts.bulk_store)
    shared = (counts.shared_load, counts.shared_store, counts.ldmatrix, counts.stmatrix)
    instructions = sum(part.requests for part in (*reached, *shared))
    return (
        f"{rung:20}{dtype:9}{nbytes / multiply_adds:15.3f}{instructions:14}{counts.wavefronts:8}{counts.conflicts:11}"
        f"{counts.block_barrier.requests:10}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--x", type=sizes, default=(1, 8, 16, 64), help="N,H,W,C")
    parser.add_argument("--w", type=sizes, default=(64, 3, 3, 64), help="K,R,S,C")
    arguments = parser.parse_args()

    print(
        f"{'rung':20}{'dtype':9}{'bytes/mul-add':>15}{'instructions':>14}{'turns':>8}{'conflicts':>11}{'barriers':>10}"
    )
    for rung, dtype in RUNGS.items():
        layer = {"x": arguments.x, "w": arguments.w, "padding": "same", "dtype": dtype}
        found = inspect("conv2d", **layer, algorithm=rung, specialised=False, measure=False)
        if found.emulated is None or not found.emulated.whole:
            raise SystemExit(found.missing.get("counters", "the layer is too large to be emulated as a whole"))
        print(row(rung, dtype, found.emulated.counters.total, found.problem.flops // 2))


if __name__ == "__main__":
    main()
