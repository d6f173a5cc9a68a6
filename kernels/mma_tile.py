"""The core of rung ``implicit_gemm_mma``: simt_tile.py's tile multiplied on tensor cores, through inline PTX.

    mma.sync.m16n8k8   d (16, 8) += a (16, 8) @ b (8, 8), by the 32 threads of a warp together

The operands are float32 rounded to TF32, which keeps 10 bits of the significand; products and sums are float32.

No thread holds a matrix: each of the warp's lanes holds a fragment, and the instruction says which elements those are.
With g = lane // 4 and t = lane % 4, in the PTX manual ("Matrix Fragments for mma.m16n8k8"):

    a0..a3   rows g, g + 8, g, g + 8    at k = t, t, t + 4, t + 4
    b0, b1   k = t, t + 4               of column g
    d0..d3   rows g, g, g + 8, g + 8    of columns 2t, 2t + 1, 2t, 2t + 1

A warp multiplies WM x WN of the block's tile, WM/16 times WN/8 instructions for each 8 of k. So a thread's TM = WM/8
rows and TN = WN/4 columns of sums lie as d does, and the kernels of conv2d_implicit_gemm.py work over this core as over
simt_tile.py's: ``row``, ``column``, ``clear`` and ``multiply`` are all that changes.

Banks: a line of a buffer is BM + 8 floats long, so element (k, row) lies in bank (8k + row) % 32: the lanes of a warp
read a fragment's register at t = 0..3 and g = 0..7 from all 32 banks. csrc/cuda/mma_tile.cuh does more: copies that
bypass the registers (cp.async), a ring of four stages, fragments by ldmatrix, 16-bit operands.
"""

from collections import namedtuple
from functools import cache

from numba import cuda, float32

from .common import SIMULATED
from .simt_tile import Core, clear_of

WARP = 32  # on tensor cores in the simulator too
SIMULATOR_LACKS = "Numba's simulator has no tensor cores; csrc/emulator has, behind the backend 'emulator'"

if SIMULATED:

    def tf32(value):
        raise NotImplementedError(SIMULATOR_LACKS)

    def mma_m16n8k8(d0, d1, d2, d3, a0, a1, a2, a3, b0, b1):
        raise NotImplementedError(SIMULATOR_LACKS)

else:
    from llvmlite import ir
    from numba import types
    from numba.cuda import cgutils
    from numba.cuda.extending import intrinsic

    FLOAT, WORD = ir.FloatType(), ir.IntType(32)

    @intrinsic
    def tf32(context, value):
        """The nearest TF32 number, ties away from zero, as float32"""

        def build(context, builder, signature, arguments):
            convert = ir.InlineAsm(ir.FunctionType(WORD, [FLOAT]), "cvt.rna.tf32.f32 $0, $1;", "=r,f")
            return builder.bitcast(builder.call(convert, arguments), FLOAT)

        return float32(float32), build

    @intrinsic
    def mma_m16n8k8(context, d0, d1, d2, d3, a0, a1, a2, a3, b0, b1):
        """This lane's d0..d3 after d += a @ b. All lanes of a warp call it together."""

        def build(context, builder, signature, arguments):
            d, operands = arguments[:4], [builder.bitcast(value, WORD) for value in arguments[4:]]
            result = ir.LiteralStructType([FLOAT] * 4)
            multiply = ir.InlineAsm(
                ir.FunctionType(result, [WORD] * 6 + [FLOAT] * 4),
                "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"
                " {$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$0,$1,$2,$3};",
                "=f,=f,=f,=f,r,r,r,r,r,r,0,1,2,3",  # the last four arguments come in the results' registers
                side_effect=True,
            )
            # convergent: it stays where all lanes call it
            made = builder.call(multiply, [*operands, *d], attrs=("convergent",))
            return cgutils.pack_array(builder, [builder.extract_value(made, i) for i in range(4)])

        return types.UniTuple(float32, 4)(*[float32] * 10), build


class MmaTile(namedtuple("MmaTile", ["BM", "BN", "BK", "WM", "WN"])):
    """BM x BN outputs of a block, BK of the reduction a step, WM x WN outputs of a warp; the sizes mean what SimtTile's
    of the same name do."""

    PAD = 8

    @property
    def TM(self):
        return self.WM // 8

    @property
    def TN(self):
        return self.WN // 4

    @property
    def THREADS(self):
        return self.BM // self.WM * (self.BN // self.WN) * WARP

    @property
    def core(self):
        return core(self)


GPU_TILES = (MmaTile(128, 128, 8, 64, 32), MmaTile(64, 64, 8, 32, 32))  # 256 threads of 64 sums, 128 of 32
TILES = (MmaTile(32, 16, 8, 16, 16),) if SIMULATED else GPU_TILES


@cuda.jit(device=True, inline="always")
def lane_row():
    """g of this thread's lane: its row of a and d, and its column of b"""
    return cuda.threadIdx.x % WARP // 4


@cuda.jit(device=True, inline="always")
def lane_position():
    """t: its position along k in a and b, and its pair of columns in d"""
    return cuda.threadIdx.x % 4


@cache
def core(tile):
    """The device functions of a tile, as simt_tile.core."""
    BN, BK, WM, WN = tile[1:]
    TM, TN = tile.TM, tile.TN
    WARPS_N = BN // WN
    assert WM % 16 == 0, "whole instructions along m,"
    assert WN % 8 == 0, "along n, and"
    assert BK % 8 == 0, "along k"

    @cuda.jit(device=True, inline="always")
    def row(i):
        """Row i of this thread's TM rows: g and g + 8 of each 16"""
        return cuda.threadIdx.x // WARP // WARPS_N * WM + i * 8 + lane_row()

    @cuda.jit(device=True, inline="always")
    def column(j):
        """Column j of its TN columns: 2t and 2t + 1 of each 8"""
        return cuda.threadIdx.x // WARP % WARPS_N * WN + j // 2 * 8 + lane_position() * 2 + j % 2

    @cuda.jit(device=True, inline="always")
    def multiply(a_tile, b_tile, current, total):
        """total (TM, TN) += the warp's rows of a_tile[current] times its columns of b_tile[current]"""
        fragment_a = cuda.local.array((TM, 2), float32)  # row i at k = t and t + 4
        fragment_b = cuda.local.array((TN, 2), float32)  # at even j column g of 8 columns, at k = t and t + 4
        first_column = cuda.threadIdx.x // WARP % WARPS_N * WN + lane_row()
        for k in range(0, BK, 8):
            for half in range(2):
                kk = k + half * 4 + lane_position()
                for i in range(TM):
                    fragment_a[i, half] = tf32(a_tile[current, kk, row(i)])
                for j in range(0, TN, 2):
                    fragment_b[j, half] = tf32(b_tile[current, kk, first_column + j * 4])
            for i in range(0, TM, 2):
                for j in range(0, TN, 2):
                    d0, d1, d2, d3 = mma_m16n8k8(
                        total[i, j], total[i, j + 1], total[i + 1, j], total[i + 1, j + 1],
                        fragment_a[i, 0], fragment_a[i + 1, 0], fragment_a[i, 1], fragment_a[i + 1, 1],
                        fragment_b[j, 0], fragment_b[j, 1],
                    )  # fmt: skip
                    total[i, j] = d0
                    total[i, j + 1] = d1
                    total[i + 1, j] = d2
                    total[i + 1, j + 1] = d3

    return Core(row, column, clear_of(TM, TN), multiply)
