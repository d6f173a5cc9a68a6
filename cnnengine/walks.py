"""How kernels walk the operands of matrix products, broadcasting, reductions and norms; interned as in shapes.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from ._arguments import fits_int32
from ._packed import CACHED_SHAPES, Packed, PackedShape


@dataclass(frozen=True, slots=True, eq=False)
class GemmShape(PackedShape):
    """c (batch, M, N) = op(a) @ op(b), all C-contiguous. a is (batch, M, K), or (batch, K, M) where ``transpose_a``;
    b is (batch, K, N), or (batch, N, K) where ``transpose_b``. ``shared_a``: one a, without the batch axis, serves the
    whole batch; ``shared_b`` likewise."""

    batch: int
    M: int
    N: int
    K: int
    transpose_a: int
    transpose_b: int
    shared_a: int
    shared_b: int
    packed: Packed = field(init=False, repr=False)

    @property
    def reduction(self) -> int:
        return self.K

    def flops(self) -> int:
        return 2 * self.batch * self.M * self.N * self.K

    def bytes(self, itemsize: int = 4) -> int:
        a = self.M * self.K * (1 if self.shared_a else self.batch)
        b = self.K * self.N * (1 if self.shared_b else self.batch)
        return itemsize * (a + b + self.batch * self.M * self.N)


@dataclass(frozen=True, slots=True, eq=False)
class BroadcastShape(PackedShape):
    """y (d0, d1, d2, d3) = a op b; a stride of 0 repeats the operand along that axis. Neighbouring axes that behave
    alike are merged, so operands of equal shape give (1, 1, 1, n)."""

    d0: int
    d1: int
    d2: int
    d3: int
    a0: int
    a1: int
    a2: int
    a3: int
    b0: int
    b1: int
    b2: int
    b3: int
    packed: Packed = field(init=False, repr=False)

    @property
    def elements(self) -> int:
        return self.d0 * self.d1 * self.d2 * self.d3


@dataclass(frozen=True, slots=True, eq=False)
class ReduceShape(PackedShape):
    """x (outer, reduced, inner) -> y (outer, inner)."""

    outer: int
    reduced: int
    inner: int
    packed: Packed = field(init=False, repr=False)

    @property
    def reduction(self) -> int:
        return self.reduced


@dataclass(frozen=True, slots=True, eq=False)
class NormShape(PackedShape):
    """x (N, L, G, D) has one mean and variance for each n and g, over L and D; gain and offset (G*D,) belong to a
    channel. Batch norm of (M, C) is N=1, L=M, G=C, D=1; layer norm N=M, L=1, G=1, D=C; group norm of (N, H, W, C) is
    N=N, L=H*W, G groups, D=C/G; instance norm has G=C, D=1."""

    N: int
    L: int
    G: int
    D: int
    packed: Packed = field(init=False, repr=False)

    @property
    def x(self) -> tuple[int, int, int, int]:
        return (self.N, self.L, self.G, self.D)

    @property
    def statistics(self) -> tuple[int, int]:
        return (self.N, self.G)

    @property
    def channels(self) -> int:
        return self.G * self.D

    @property
    def elements(self) -> int:
        return self.N * self.L * self.G * self.D

    @property
    def reduction(self) -> int:
        """Elements of one mean."""
        return self.L * self.D


@lru_cache(CACHED_SHAPES)
def gemm_shape(
    batch: int, M: int, N: int, K: int, transpose_a: bool, transpose_b: bool, shared_a: bool, shared_b: bool
) -> GemmShape:
    """Shape of a (batched) matrix product; the callers in ``functional`` check the operands."""
    fits_int32("matmul", (batch, M, N, K))
    return GemmShape(batch, M, N, K, int(transpose_a), int(transpose_b), int(shared_a), int(shared_b))


@lru_cache(CACHED_SHAPES)
def broadcast_shape(operation: str, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[tuple[int, ...], BroadcastShape]:
    """NumPy's broadcasting of two C-contiguous operands: the result's shape and how to walk it. Raises ValueError."""
    rank = max(len(a), len(b))
    full_a, full_b = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    if any(m != n and m != 1 and n != 1 for m, n in zip(full_a, full_b, strict=True)):
        raise ValueError(f"{operation}: shapes {a} and {b} cannot be broadcast together")
    y = tuple(n if m == 1 else m for m, n in zip(full_a, full_b, strict=True))
    if 0 in y:
        raise ValueError(f"{operation}: an operand is empty: shapes {a} and {b}")
    axes: list[list[int]] = []  # [size, stride of a, stride of b], innermost first
    stride_a = stride_b = 1
    for m, n, size in zip(reversed(full_a), reversed(full_b), reversed(y), strict=True):
        if size == 1:
            continue
        step_a, step_b = stride_a if m > 1 else 0, stride_b if n > 1 else 0
        if axes and step_a == axes[-1][0] * axes[-1][1] and step_b == axes[-1][0] * axes[-1][2]:
            axes[-1][0] *= size
        else:
            axes.append([size, step_a, step_b])
        stride_a, stride_b = stride_a * m, stride_b * n
    if len(axes) > 4:
        raise ValueError(f"{operation}: broadcasting {a} with {b} needs {len(axes)} loops, 4 are supported")
    axes += [[1, 0, 0]] * (4 - len(axes))
    members = [axes[3 - i][k] for k in range(3) for i in range(4)]
    fits_int32(operation, members)
    return y, BroadcastShape(*members)


@lru_cache(CACHED_SHAPES)
def reduce_shape(outer: int, reduced: int, inner: int) -> ReduceShape:
    """Shape of a reduction; the callers in ``functional`` bring the axes into this order."""
    fits_int32("reduce", (outer, reduced, inner))
    return ReduceShape(outer, reduced, inner)


@lru_cache(CACHED_SHAPES)
def norm_shape(N: int, L: int, G: int, D: int) -> NormShape:
    """Shape of a normalisation; the callers in ``functional`` check the operands."""
    fits_int32("norm", (N, L, G * D, L * D))
    return NormShape(N, L, G, D)
