"""The contract over the CUDA kernels of ``csrc/cuda``, written once for the GPU and for the emulator.

A subclass brings the memory verbs and a ``Runtime`` that turns a kernel's source into something to call.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from .. import _launch
from ..errors import Unsupported
from ..jit.launch import Kernel, Runtime
from ..jit.source import KernelSource, constant_shape
from ..shapes import (
    BroadcastShape,
    Conv2dShape,
    GemmShape,
    NormShape,
    Pool2dShape,
    ReduceShape,
    norm_shape,
    reduce_shape,
)
from . import _conv2d_norm
from . import _conv2d_plans as conv2d
from . import _kernel_library as library
from . import _kernel_plans as plans
from ._kernel_library import TYPES
from ._kernel_plans import Plan
from .contract import CONV2D_VERBS, IDENTITY, Array, Epilogue, PackedWeight
from .winograd import winograd_allowed

FUSED_ACTIVATIONS = ("identity", "relu")  # what the epilogue of csrc/cuda/epilogue.cuh has
StepArrays = tuple[Array, Array, Array | None, Array | None]  # parameter, gradient, first and second state
STEP_ELEMENTS = 2048  # a block's share in csrc/cuda/optimizer_step.cuh
STEP_TAILS = {n: struct.Struct(f"<{n}q{n}ii4x") for n in library.STEP_TENSORS}  # count, first_block, tensors


class KernelBackend:
    """All verbs that are kernels. ``constant_shapes`` compiles a convolution or pooling for its shape (any N)."""

    name: str
    device: str
    dtypes = frozenset(TYPES)
    algorithms: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **dict.fromkeys(CONV2D_VERBS[:2], (*conv2d.ALGORITHMS, conv2d.WINOGRAD)),
        CONV2D_VERBS[2]: conv2d.ALGORITHMS,
    }

    workspace: Callable[[int], Array]
    empty: Callable[[tuple[int, ...], Any], Array]

    def __init__(self, runtime: Runtime, *, constant_shapes: bool = False) -> None:
        self.runtime = runtime
        self.constant_shapes = constant_shapes
        self._found: dict[tuple[Any, ...], Any] = {}

    # launching

    def _kernel(self, family: str, template: str, dtype: np.dtype[Any]) -> Kernel:
        kernel = self._found.get((template, dtype))
        if kernel is None:
            expression = template.format(T=TYPES[dtype.name])
            kernel = self._found[template, dtype] = self.runtime.kernel(library.source(family, dtype.name), expression)
        return kernel

    def _run(self, family: str, plan: Plan, dtype: np.dtype[Any], arguments: tuple[Any, ...]) -> None:
        self._kernel(family, plan.kernel, dtype)(plan.grid, plan.block, plan.shared_bytes, arguments, plan.cluster)

    def _run_shape(
        self,
        family: str,
        plan: Plan,
        dtype: np.dtype[Any],
        arguments: tuple[Any, ...],
        shape: Conv2dShape | Pool2dShape,
    ) -> None:
        """A kernel whose last argument is the shape, which may be compiled in."""
        if not self.constant_shapes:
            self._run(family, plan, dtype, (*arguments, shape.packed))
            return
        kernel = self._found.get((plan.kernel, dtype, shape))
        if kernel is None:
            name, definition = constant_shape(shape)
            expression = plan.kernel.format(T=TYPES[dtype.name]).replace(type(shape).__name__, name)
            source = KernelSource(f"cuda/{family}.cuh", (expression,), definition)
            kernel = self._found[plan.kernel, dtype, shape] = self.runtime.kernel(source, expression)
        kernel(plan.grid, plan.block, plan.shared_bytes, (*arguments, shape.N))

    def _elementwise(
        self, family: str, template: str, dtype: np.dtype[Any], per_thread: int, count: int, *arguments: Any
    ) -> None:
        if count == 0:
            return
        grid, block = plans.elementwise(count, per_thread)
        self._kernel(family, template, dtype)(grid, block, 0, arguments)

    # convolution

    def conv2d_prepare(self, shape: Conv2dShape, w: Array, algorithm: str | None) -> PackedWeight:
        """Every rung but winograd reads w as it is. A measured choice is kept, for any N."""
        given = self._given(w)
        if algorithm is not None and algorithm.endswith(conv2d.OR_ANOTHER):
            return PackedWeight(w, w, self.name, algorithm)
        if conv2d.first_layer("conv2d_forward", shape, algorithm, given):
            return PackedWeight(w, w, self.name, conv2d.FIRST_LAYER)
        plan = conv2d.conv2d_forward(shape, algorithm, given)
        if plan.filters is None:
            return PackedWeight(w, w, self.name, plan.algorithm)
        transformed = self.empty((plan.workspace // w.dtype.itemsize,), w.dtype)
        self._run_shape(plan.family, plan.filters, w.dtype, (w, transformed), shape)
        return PackedWeight(w, transformed, self.name, plan.algorithm)

    def _given(self, *arrays: Array | None) -> conv2d.Given:
        """What a convolution's plan depends on beside the shape."""
        dtype: str = arrays[0].dtype.name  # type: ignore[union-attr]
        return conv2d.Given(dtype, _launch.alignment(arrays), self.runtime.capability(), winograd_allowed())

    def conv2d_forward(
        self, shape: Conv2dShape, x: Array, w: Array | PackedWeight, y: Array, epilogue: Epilogue, algorithm: str | None
    ) -> None:
        plan, shape, operands = self._forward(shape, x, w, y, epilogue, algorithm)
        self._run_forward(plan, shape, operands, y, epilogue, None)
        self._activate(y, epilogue)

    def _run_forward(
        self, plan: conv2d.ConvPlan, shape: Conv2dShape, operands: tuple[Array, Array], y: Array, epilogue: Epilogue,
        moments: Array | None,
    ) -> None:  # fmt: skip
        rest = _epilogue(epilogue)
        if plan.maps:
            *channels, residual, relu = rest
            mapped = (*operands, y, y if residual is None else residual)
            self._run_on_maps(plan, mapped, (int(residual is not None), *channels, relu, moments))
        else:
            rest = y, *rest
            self._run_convolution(plan, shape, operands, (*rest, moments) if plan.moment_pixels else rest)

    def _forward(
        self, shape: Conv2dShape, x: Array, w: Array | PackedWeight, y: Array, epilogue: Epilogue, algorithm: str | None
    ) -> tuple[conv2d.ConvPlan, Conv2dShape, tuple[Array, Array]]:
        """The plan, and the shape and operands it is for: with more channels where ``first_layer`` adds them."""
        weight = w.w if isinstance(w, PackedWeight) else w
        if isinstance(w, PackedWeight) and algorithm is None and w.algorithm.endswith(conv2d.OR_ANOTHER):
            algorithm = w.algorithm
        others = epilogue.residual, epilogue.bias, epilogue.scale, epilogue.shift
        given = self._given(x, weight, y, *others)
        if padded := conv2d.first_layer("conv2d_forward", shape, algorithm, given):
            shape, algorithm = padded
            x, weight = (self._pad_channels(a, shape.C) for a in (x, weight))
            given = self._given(x, weight, y, *others)
        elif isinstance(w, PackedWeight) and w.algorithm == conv2d.WINOGRAD and algorithm in (None, conv2d.WINOGRAD):
            plan = conv2d.conv2d_forward(shape, conv2d.WINOGRAD, given)
            return plan._replace(filters=None), shape, (x, w.packed)
        return conv2d.conv2d_forward(shape, algorithm, given), shape, (x, weight)

    def conv2d_norm_forward(
        self, shape: Conv2dShape, x: Array, w: Array | PackedWeight, bias: Array | None, y: Array,
        algorithm: str | None, gain: Array | None, offset: Array | None, residual: Array | None, z: Array,
        mean: Array, variance: Array, epsilon: float, activation: str,
    ) -> None:  # fmt: skip
        """Where the convolution's kernel leaves the moments of its tiles, y is read once."""
        epilogue = IDENTITY if bias is None else Epilogue(bias)
        plan, used, operands = self._forward(shape, x, w, y, epilogue, algorithm)
        walk, known = _conv2d_norm.walk(shape), (y, gain, offset, residual, z, mean, variance)
        if not plan.moment_pixels:
            self.conv2d_forward(shape, x, w, y, epilogue, algorithm)
            self.norm_forward(walk, *known, epsilon, activation)
            return
        joined = plans.norm_tiles(walk, plan.moment_pixels)
        nbytes = joined.tiles * 2 * walk.channels * 4
        room = self.workspace(nbytes + joined.splits * 2 * walk.channels * 4)
        moments, partial = room[:nbytes], room[nbytes:]
        self._run_forward(plan, used, operands, y, epilogue, moments)
        dtype = x.dtype
        if joined.plan is None:
            partial = moments
        else:
            last = walk.L - (joined.tiles - 1) * plan.moment_pixels
            sizes = plan.moment_pixels, last, joined.chunk, joined.splits, joined.shape.packed
            self._run("norm", joined.plan, dtype, (moments, partial, *sizes))
        group = plans.norm_groups("norm_group_moments<{T}, NormShape>", walk, joined.splits)
        pixels = min(joined.chunk * plan.moment_pixels, walk.L)
        self._run("norm", group, dtype, (None, partial, mean, variance, pixels, joined.splits, walk.packed))
        ending = float(epsilon), int(_is_relu("conv2d_norm_forward", activation))
        self._run_columns(
            "norm_apply<{T}, NormShape, %d>", walk, _norm_vector(walk, dtype, known), dtype, (*known, *ending)
        )

    def conv2d_backward_input(self, shape: Conv2dShape, dy: Array, w: Array, dx: Array, algorithm: str | None) -> None:
        given = self._given(dy, w, dx)
        if padded := conv2d.first_layer("conv2d_backward_input", shape, algorithm, given):
            wide = self.empty(padded.shape.x, dx.dtype)
            self.conv2d_backward_input(padded.shape, dy, self._pad_channels(w, padded.shape.C), wide, padded.algorithm)
            self._cut_channels(wide, dx)
            return
        for plan in conv2d.conv2d_backward_input(shape, algorithm, given):
            if len(plan.maps) == 3:
                self._run_on_maps(plan, (dy, w, dx), ())
            else:
                self._run_convolution(plan, shape, (dy, w), (dx,))

    def conv2d_backward_weight(self, shape: Conv2dShape, x: Array, dy: Array, dw: Array, algorithm: str | None) -> None:
        given = self._given(x, dy, dw)
        if padded := conv2d.first_layer("conv2d_backward_weight", shape, algorithm, given):
            wide = self.empty(padded.shape.w, dw.dtype)
            wide_x = self._pad_channels(x, padded.shape.C)
            self.conv2d_backward_weight(padded.shape, wide_x, dy, wide, padded.algorithm)
            self._cut_channels(wide, dw)
            return
        plan = conv2d.conv2d_backward_weight(shape, algorithm, given)
        if plan.products.algorithm == "direct":
            self._run_convolution(plan.products, shape, (x, dy), (dw,))
            return
        partial = self.workspace(plan.workspace) if plan.total is not None else None
        self._run_convolution(plan.products, shape, (x, dy), (dw, partial, np.int64(plan.pixels)))
        if plan.total is not None:
            self._run("conv2d", plan.total, x.dtype, (partial, dw, np.int64(dw.size), plan.splits))

    def _pad_channels(self, a: Array, width: int) -> Array:
        """``a`` with channels of zeros behind its own."""
        wide = self.empty((*a.shape[:-1], width), a.dtype)
        sizes = (np.int64(a.size // a.shape[-1]), a.shape[-1], width)
        self._elementwise(
            "conv2d/first_layer",
            "conv2d_first_layer_pad<{T}>",
            a.dtype,
            plans.ELEMENTS_PER_THREAD,
            wide.size,
            a,
            wide,
            *sizes,
        )
        return wide

    def _cut_channels(self, wide: Array, a: Array) -> None:
        """Into ``a`` the first channels of ``wide``."""
        sizes = (np.int64(a.size // a.shape[-1]), a.shape[-1], wide.shape[-1])
        self._elementwise(
            "conv2d/first_layer",
            "conv2d_first_layer_cut<{T}>",
            a.dtype,
            plans.ELEMENTS_PER_THREAD,
            a.size,
            wide,
            a,
            *sizes,
        )

    def _run_convolution(
        self, plan: conv2d.ConvPlan, shape: Conv2dShape, operands: tuple[Array, Array], rest: tuple[Any, ...]
    ) -> None:
        dtype = operands[0].dtype
        if plan.filters is not None:
            transformed = self.workspace(plan.workspace)
            self._run_shape(plan.family, plan.filters, dtype, (operands[1], transformed), shape)
            operands = operands[0], transformed
        if plan.maps:
            self._run_on_maps(plan, operands, rest)
        else:
            self._run_shape(plan.family, plan.launch, dtype, (*operands, *rest, *plan.sizes), shape)

    def _run_on_maps(self, plan: conv2d.ConvPlan, mapped: tuple[Array, ...], rest: tuple[Any, ...]) -> None:
        """``mapped``: the arrays of the plan's maps."""
        dtype = mapped[0].dtype
        source = library.source(plan.family, dtype.name)
        maps = (self.runtime.tensor_map(source, *pair) for pair in zip(plan.maps, mapped, strict=True))
        self._run(plan.family, plan.launch, dtype, (*maps, *rest, plan.geometry))

    # pooling

    def pool2d_forward(self, kind: str, shape: Pool2dShape, x: Array, y: Array, index: Array | None) -> None:
        _named(library.POOL, "pool2d", kind)
        plan = plans.pool2d("forward", kind, shape, x.dtype.name, _launch.alignment((x, y, index)))
        self._run_shape("pool2d", plan, x.dtype, (x, y, index) if kind == "max" else (x, y), shape)

    def pool2d_backward(self, kind: str, shape: Pool2dShape, dy: Array, index: Array | None, dx: Array) -> None:
        _named(library.POOL, "pool2d", kind)
        plan = plans.pool2d("backward", kind, shape, dy.dtype.name, _launch.alignment((dy, index, dx)))
        self._run_shape("pool2d", plan, dy.dtype, (dy, index, dx) if kind == "max" else (dy, dx), shape)

    # elementwise

    def activation_forward(self, kind: str, x: Array, y: Array, parameter: float) -> None:
        template = f"activation_forward<{{T}}, {_named(library.ACTIVATIONS, 'activation', kind)}>"
        arguments = (x, y, np.int64(x.size), float(parameter))
        self._elementwise("activation", template, x.dtype, _of_one(x), x.size, *arguments)

    def activation_backward(self, kind: str, saved: Array, dy: Array, dx: Array, parameter: float) -> None:
        template = f"activation_backward<{{T}}, {_named(library.ACTIVATIONS, 'activation', kind)}>"
        arguments = (saved, dy, dx, np.int64(dy.size), float(parameter))
        self._elementwise("activation", template, dy.dtype, plans.at_once(dy.dtype.itemsize), dy.size, *arguments)

    def unary(self, op: str, x: Array, y: Array) -> None:
        template = f"unary<{{T}}, {_named(library.UNARY, 'unary', op)}>"
        self._elementwise("binary", template, x.dtype, _of_one(x), x.size, x, y, np.int64(x.size))

    def binary(self, op: str, shape: BroadcastShape, a: Array, b: Array, y: Array) -> None:
        template = f"binary<{{T}}, {_named(library.BINARY, 'binary', op)}, BroadcastShape>"
        self._elementwise("binary", template, a.dtype, plans.at_once(a.dtype.itemsize), y.size, a, b, y, shape.packed)

    def cast(self, x: Array, y: Array) -> None:
        if x.dtype.name in TYPES and y.dtype.name in TYPES:
            template = f"cast<{{T}}, {TYPES[y.dtype.name]}>"
            self._elementwise("binary", template, x.dtype, _of_one(x, y), x.size, x, y, np.int64(x.size))
        else:
            y[...] = x

    def reduce(self, op: str, shape: ReduceShape, x: Array, y: Array) -> None:
        first, chunk, splits, second, nbytes = plans.reduce(_named(library.REDUCE, "reduce", op), shape)
        if second is None:
            self._run("reduce", first, x.dtype, (x, y, chunk, 1, shape.packed))
            return
        partial = self.workspace(nbytes)
        self._run("reduce", first, x.dtype, (x, partial, chunk, splits, shape.packed))
        rest = reduce_shape(shape.outer, splits, shape.inner)
        self._run("reduce", second, x.dtype, (partial, y, splits, 1, rest.packed))

    # matrix product, epilogue

    def gemm(self, shape: GemmShape, a: Array, b: Array, c: Array, epilogue: Epilogue) -> None:
        self._run("gemm", plans.gemm(shape), a.dtype, (a, b, c, *_epilogue(epilogue), shape.packed))
        self._activate(c, epilogue)

    def _activate(self, y: Array, epilogue: Epilogue) -> None:
        """An activation that the kernels' epilogue does not have, in a pass of its own."""
        if epilogue.activation not in FUSED_ACTIVATIONS:
            self.activation_forward(epilogue.activation, y, y, epilogue.parameter)

    def apply_epilogue(self, x: Array, y: Array, epilogue: Epilogue) -> None:
        walk, parts = norm_shape(1, x.size // x.shape[-1], x.shape[-1], 1), _epilogue(epilogue)
        vector = _norm_vector(walk, x.dtype, (x, y, *parts[:-1]))
        self._run_columns("apply_epilogue<{T}, NormShape, %d>", walk, vector, x.dtype, (x, y, *parts))
        self._activate(y, epilogue)

    # normalisation

    def _run_columns(
        self,
        kernel: str,
        shape: NormShape,
        vector: int,
        dtype: np.dtype[Any],
        arguments: tuple[Any, ...],
        sums: bool = False,
    ) -> None:
        """Launches a kernel that walks by columns, ``vector`` channels a thread."""
        plan, chunk, splits = plans.norm_columns(kernel % vector, shape, vector, sums)
        self._run("norm", plan, dtype, (*arguments, chunk, splits, shape.packed))

    def _run_rows(
        self, kernel: str, shape: NormShape, moved: tuple[Array | None, ...], arguments: tuple[Any, ...]
    ) -> None:
        """Launches a kernel of layer norm, which moves runs of the arrays ``moved``, the first of which is x."""
        dtype: np.dtype[Any] = moved[0].dtype  # type: ignore[union-attr]
        plan = plans.rows(kernel, shape.N * shape.G, shape.D, dtype.itemsize, _launch.alignment(moved))
        self._run("norm_rows", plan, dtype, (*arguments, shape.packed))

    def norm_forward(
        self, shape: NormShape, x: Array, gain: Array | None, offset: Array | None, residual: Array | None, y: Array,
        mean: Array, variance: Array, epsilon: float, activation: str,
    ) -> None:  # fmt: skip
        ending = float(epsilon), int(_is_relu("norm_forward", activation))
        known = x, gain, offset, residual, y, mean, variance, *ending
        if shape.L == 1:
            self._run_rows("norm_forward_rows<{T}, NormShape", shape, (x, gain, offset, residual, y), known)
            return
        vector = _norm_vector(shape, x.dtype, known[:7])
        kernel = "norm_channel_moments<{T}, NormShape, %d>"
        _, chunk, splits = plans.norm_columns(kernel % vector, shape, vector, True)
        partial = self.workspace(shape.N * splits * 2 * shape.channels * 4)
        self._run_columns(kernel, shape, vector, x.dtype, (x, partial), sums=True)
        plan = plans.norm_groups("norm_group_moments<{T}, NormShape>", shape, splits)
        self._run("norm", plan, x.dtype, (x, partial, mean, variance, chunk, splits, shape.packed))
        self._run_columns("norm_apply<{T}, NormShape, %d>", shape, vector, x.dtype, known)

    def norm_backward(
        self, shape: NormShape, x: Array, gain: Array | None, mean: Array, variance: Array, y: Array | None, dy: Array,
        dx: Array | None, dgain: Array | None, doffset: Array | None, dresidual: Array | None, epsilon: float,
        activation: str,
    ) -> None:  # fmt: skip
        y = y if _is_relu("norm_backward", activation) else None
        dtype, eps = x.dtype, float(epsilon)
        parameters = dgain is not None or doffset is not None
        if shape.L == 1:
            if dx is not None or dresidual is not None:
                arguments = x, gain, mean, variance, y, dy, dx, dresidual, eps
                self._run_rows("norm_backward_rows<{T}, NormShape", shape, (x, gain, y, dy, dx, dresidual), arguments)
            if parameters:
                self._norm_parameters(shape, (x, mean, variance, y, dy), (dgain, doffset), eps)
            return
        vector = _norm_vector(shape, dtype, (x, gain, mean, variance, y, dy, dx, dresidual))
        kernel = "norm_channel_sums<{T}, NormShape, %d>"
        splits = plans.norm_columns(kernel % vector, shape, vector, True).splits
        sums = shape.N * splits * 2 * shape.channels * 4
        room = self.workspace(sums + shape.N * shape.G * 2 * 4)
        partial, averages = room[:sums], None if dx is None else room[sums:]
        self._run_columns(kernel, shape, vector, dtype, (x, mean, variance, y, dy, dresidual, partial, eps), sums=True)
        group_sums = "norm_group_sums<{T}, NormShape>"
        if shape.N == shape.D == 1:
            plan = plans.norm_groups(group_sums, shape, splits)
            self._run("norm", plan, dtype, (partial, gain, averages, dgain, doffset, splits, shape.packed))
        else:
            if parameters:  # sums over N and splits
                by_channel = norm_shape(1, shape.L, shape.channels, 1)
                plan = plans.norm_groups(group_sums, by_channel, shape.N * splits)
                sums_of = partial, None, None, dgain, doffset, shape.N * splits, by_channel.packed
                self._run("norm", plan, dtype, sums_of)
            if averages is not None:
                plan = plans.norm_groups(group_sums, shape, splits)
                self._run("norm", plan, dtype, (partial, gain, averages, None, None, splits, shape.packed))
        if averages is not None:
            if dresidual is not None:
                y, dy = None, dresidual
            known = x, gain, mean, variance, y, dy, averages, dx, eps
            self._run_columns("norm_backward_apply<{T}, NormShape, %d>", shape, vector, dtype, known)

    def _norm_parameters(
        self,
        shape: NormShape,
        arrays: tuple[Array, Array, Array, Array | None, Array],
        gradients: tuple[Array | None, Array | None],
        epsilon: float,
    ) -> None:
        """The gradients of a layer norm's gain and offset, from x, mean, variance, y, dy."""
        x, _, _, y, dy = arrays
        dtype, C = x.dtype, shape.channels
        plan, chunk, splits = plans.norm_parameter_sums(shape, dtype.itemsize, _launch.alignment((x, y, dy)))
        partial = self.workspace(splits * 2 * C * 4)
        self._run("norm_rows", plan, dtype, (*arrays, partial, epsilon, chunk, shape.packed))
        totals = Plan("norm_parameter_totals<{T}>", (-(-C // 32), 1, 1), (32, 8, 1), 2 * 8 * plans.THREADS)
        self._run("norm_rows", totals, dtype, (partial, *gradients, splits, C))

    # loss, dropout, optimizer

    def softmax_cross_entropy_forward(self, x: Array, labels: Array, loss: Array, probability: Array) -> None:
        alignment = _launch.alignment((x, probability))
        plan = plans.rows("softmax_cross_entropy_forward<{T}", *x.shape, x.dtype.itemsize, alignment)
        self._run("softmax_cross_entropy", plan, x.dtype, (x, labels, loss, probability, *x.shape))

    def softmax_cross_entropy_backward(self, probability: Array, labels: Array, dloss: Array, dx: Array) -> None:
        arguments = (probability, labels, dloss, dx, *dx.shape)
        template = "softmax_cross_entropy_backward<{T}>"
        self._elementwise("softmax_cross_entropy", template, dx.dtype, _of_one(dx), dx.size, *arguments)

    def dropout(self, x: Array, y: Array, threshold: int, scale: float, state: Array) -> None:
        arguments = (x, y, np.int64(x.size), np.uint32(threshold), float(scale), state)
        self._elementwise("dropout", "dropout<{T}>", x.dtype, _of_one(x), x.size, *arguments)

    def normalize_images(self, x: Array, factor: Array, offset: Array, y: Array) -> None:
        arguments = (x, factor, offset, y, np.int64(x.size), x.shape[-1])
        self._elementwise("normalize_images", "normalize_images<{T}>", y.dtype, _of_one(x, y), x.size, *arguments)

    def optimizer_step(
        self, kind: str, parameters: Sequence[Array], gradients: Sequence[Array], states: Sequence[Array], hyper: Array
    ) -> None:
        if kind not in library.OPTIMIZERS:
            raise Unsupported(f"optimizer_step: backend {self.name!r} has no {kind!r}, it has sgd, adam")
        none = [None] * len(parameters)
        firsts = list(states[: len(parameters)]) or none
        seconds = list(states[len(parameters) :]) or none
        groups: dict[tuple[Any, Any], list[StepArrays]] = {}
        for arrays in zip(parameters, gradients, firsts, seconds, strict=True):
            p, _, state, _ = arrays
            groups.setdefault((p.dtype, p.dtype if state is None else state.dtype), []).append(arrays)
        for (dtype, state_dtype), members in groups.items():
            state_type = "{T}" if state_dtype == dtype else TYPES[state_dtype.name]
            most = next((n for n in library.STEP_TENSORS if n >= len(members)), library.STEP_TENSORS[-1])
            kernel = self._kernel("optimizer_step", f"{kind}<{{T}}, {state_type}, {most}>", dtype)
            for start in range(0, len(members), most):
                table, blocks = self._step_table(members[start : start + most], most)
                kernel((blocks, 1, 1), (plans.THREADS, 1, 1), 0, (hyper, table))

    def _step_table(self, members: Sequence[StepArrays], most: int) -> tuple[bytes, int]:
        """StepTable<most> of csrc/cuda/optimizer_step.cuh, and the blocks it needs."""
        padding = [None] * (most - len(members))
        arrays = [array for column in zip(*members, strict=True) for array in (*column, *padding)]
        counts = [p.size for p, *_ in members]
        first_block, blocks = [], 0
        for count in counts:
            first_block.append(blocks)
            blocks += -(-count // STEP_ELEMENTS)
        zeros = [0] * len(padding)
        tail = STEP_TAILS[most].pack(*counts, *zeros, *first_block, *zeros, len(members))
        return _launch.pack_pointers(arrays, self.device == "cuda") + tail, blocks


def _of_one(*arrays: Array) -> int:
    """Elements that a thread of ``map`` of one operand takes, in csrc/cuda/elementwise.cuh."""
    return plans.LOADS * plans.at_once(*(a.dtype.itemsize for a in arrays))


def _epilogue(epilogue: Epilogue) -> tuple[Any, ...]:
    """bias, scale, shift, residual, relu, as kernels take them. Raises Unsupported for an unknown activation."""
    if epilogue is IDENTITY:
        return (None, None, None, None, 0)
    _named(library.ACTIVATIONS, "epilogue", epilogue.activation)
    relu = int(epilogue.activation == "relu")
    return (epilogue.bias, epilogue.scale, epilogue.shift, epilogue.residual, relu)


def _norm_vector(shape: NormShape, dtype: np.dtype[Any], arrays: tuple[Array | None, ...]) -> int:
    """Channels that the walk by columns takes at a time."""
    widest, single = library.norm_vectors(dtype.name)
    return widest if shape.channels % widest == 0 and _launch.alignment(arrays) >= 16 else single


def _is_relu(verb: str, activation: str) -> bool:
    """Raises Unsupported for what is neither relu nor identity."""
    if activation not in ("identity", "relu"):
        raise Unsupported(f"{verb}: activation must be 'identity' or 'relu', received {activation!r}")
    return activation == "relu"


def _named(table: Mapping[str, str], verb: str, name: str) -> str:
    """The C++ name of an operation. Raises Unsupported for one that has no kernel."""
    if name not in table:
        raise Unsupported(f"{verb}: there is no CUDA kernel for {name!r}, there are {', '.join(table)}")
    return table[name]
