"""conv2d, rung ``implicit_gemm_mma``: the kernels of conv2d_implicit_gemm.py over mma_tile.py, on tensor cores.

Its arrays are float32, so the algorithm's name is ``implicit_gemm_tf32``, as on the backend ``cuda``: it says what
becomes of the operands, 10 bits of significand instead of 23. It is never chosen, only asked for. Each operand is off
by at most 2^-11 of itself; sums are float32.

It needs a GPU; its machine code is checked everywhere.
"""

from ..errors import Unsupported
from . import conv2d_implicit_gemm as kernels
from .mma_tile import TILES

CAPABILITY = (8, 0)  # the least, of a GPU whose tensor cores take TF32


def refuse(launch):
    """Raises Unsupported where there are no tensor cores for TF32."""
    reason = launch.no_tf32()
    if reason is not None:
        raise Unsupported(f"implicit_gemm_tf32: {reason}")


def forward(launch, shape, x, w, y, epilogue, tiles=TILES):
    refuse(launch)
    kernels.forward(launch, shape, x, w, y, epilogue, tiles)


def backward_input(launch, shape, dy, w, dx, tiles=TILES):
    refuse(launch)
    kernels.backward_input(launch, shape, dy, w, dx, tiles)


def backward_weight(launch, shape, x, dy, dw, tiles=TILES):
    refuse(launch)
    kernels.backward_weight(launch, shape, x, dy, dw, tiles)


SIGNATURES = kernels.signatures(TILES)
