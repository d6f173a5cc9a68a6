"""The kernels of ``kernels/`` gathered into the contract, whatever they run on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from ...errors import Unsupported
from ...kernels import (
    activation,
    binary,
    conv2d,
    dropout,
    gemm,
    norm,
    normalize_images,
    optimizer_step,
    pool2d,
    reduce,
    softmax_cross_entropy,
)
from ...kernels.common import FUSED_ACTIVATIONS
from ...shapes import BroadcastShape, Conv2dShape, GemmShape, NormShape, Pool2dShape, ReduceShape
from .._conv2d_norm import ComposedConv2dNorm
from ..contract import CONV2D_VERBS, OPTIMIZERS, Array, Epilogue, PackedWeight


class Launcher(Protocol):
    """How the host functions of ``kernels/`` start a kernel, and make its arguments."""

    def __call__(self, kernel: Any, grid: int, block: int | tuple[int, ...], *args: Any) -> None: ...
    def out(self, array: Array) -> Any: ...  # marks an argument that the kernel writes
    def integer(self, value: int) -> Any: ...
    def ints(self, tuple_class: Any, members: Any) -> Any: ...  # a shape, or a tuple, as the kernels' named tuple
    def workspace(self, shape: tuple[int, ...]) -> Array: ...  # float32 scratch


class NumbaBackend(ComposedConv2dNorm):
    """The verbs with kernels; memory is the subclasses' matter."""

    name = "numba"
    dtypes = frozenset({"float32"})
    algorithms: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(CONV2D_VERBS, conv2d.ALGORITHMS)
    launch: Launcher

    def refuse_tensor_cores(self) -> str | None:
        """None, or why the rung that needs tensor cores cannot run."""
        raise NotImplementedError

    def _rung(self, algorithm: str | None) -> str | None:
        if algorithm == conv2d.MMA and (reason := self.refuse_tensor_cores()) is not None:
            raise Unsupported(f"{algorithm}: {reason}")
        return algorithm

    def conv2d_prepare(self, shape: Conv2dShape, w: Array, algorithm: str | None) -> PackedWeight:
        pixels, Kg = shape.N * shape.P * shape.Q, shape.K // shape.groups
        return PackedWeight(w, w, self.name, conv2d.choose(self._rung(algorithm), shape, Kg, pixels, Kg))

    def conv2d_forward(
        self, shape: Conv2dShape, x: Array, w: Array | PackedWeight, y: Array, epilogue: Epilogue, algorithm: str | None
    ) -> None:
        if isinstance(w, PackedWeight):
            w, algorithm = w.packed, algorithm or w.algorithm
        conv2d.forward(self.launch, shape, x, w, y, epilogue, self._rung(algorithm))
        self._activate(y, epilogue)

    def conv2d_backward_input(self, shape: Conv2dShape, dy: Array, w: Array, dx: Array, algorithm: str | None) -> None:
        conv2d.backward_input(self.launch, shape, dy, w, dx, self._rung(algorithm))

    def conv2d_backward_weight(self, shape: Conv2dShape, x: Array, dy: Array, dw: Array, algorithm: str | None) -> None:
        conv2d.backward_weight(self.launch, shape, x, dy, dw, self._rung(algorithm))

    def pool2d_forward(self, kind: str, shape: Pool2dShape, x: Array, y: Array, index: Array | None) -> None:
        pool2d.forward(self.launch, kind, shape, x, y, index)

    def pool2d_backward(self, kind: str, shape: Pool2dShape, dy: Array, index: Array | None, dx: Array) -> None:
        pool2d.backward(self.launch, kind, shape, dy, index, dx)

    def activation_forward(self, kind: str, x: Array, y: Array, parameter: float) -> None:
        activation.forward(self.launch, kind, x, y, parameter)

    def activation_backward(self, kind: str, saved: Array, dy: Array, dx: Array, parameter: float) -> None:
        activation.backward(self.launch, kind, saved, dy, dx, parameter)

    def unary(self, op: str, x: Array, y: Array) -> None:
        binary.unary(self.launch, op, x, y)

    def binary(self, op: str, shape: BroadcastShape, a: Array, b: Array, y: Array) -> None:
        binary.binary(self.launch, op, shape, a, b, y)

    def reduce(self, op: str, shape: ReduceShape, x: Array, y: Array) -> None:
        reduce.reduce(self.launch, op, shape, x, y)

    def gemm(self, shape: GemmShape, a: Array, b: Array, c: Array, epilogue: Epilogue) -> None:
        gemm.gemm(self.launch, shape, a, b, c, epilogue)
        self._activate(c, epilogue)

    def _activate(self, y: Array, epilogue: Epilogue) -> None:
        """An activation that the kernels' epilogue does not have, in a pass of its own."""
        if epilogue.activation not in FUSED_ACTIVATIONS:
            self.activation_forward(epilogue.activation, y, y, epilogue.parameter)

    def apply_epilogue(self, x: Array, y: Array, epilogue: Epilogue) -> None:
        norm.apply_epilogue(self.launch, x, y, epilogue)
        self._activate(y, epilogue)

    def norm_forward(
        self, shape: NormShape, x: Array, gain: Array | None, offset: Array | None, residual: Array | None, y: Array,
        mean: Array, variance: Array, epsilon: float, activation: str,
    ) -> None:  # fmt: skip
        norm.forward(self.launch, shape, x, gain, offset, residual, y, mean, variance, epsilon, activation)

    def norm_backward(
        self, shape: NormShape, x: Array, gain: Array | None, mean: Array, variance: Array, y: Array | None, dy: Array,
        dx: Array | None, dgain: Array | None, doffset: Array | None, dresidual: Array | None, epsilon: float,
        activation: str,
    ) -> None:  # fmt: skip
        known, gradients = (x, gain, mean, variance, y, dy), (dx, dgain, doffset, dresidual)
        norm.backward(self.launch, shape, *known, *gradients, epsilon, activation)

    def softmax_cross_entropy_forward(self, x: Array, labels: Array, loss: Array, probability: Array) -> None:
        softmax_cross_entropy.forward(self.launch, x, labels, loss, probability)

    def softmax_cross_entropy_backward(self, probability: Array, labels: Array, dloss: Array, dx: Array) -> None:
        softmax_cross_entropy.backward(self.launch, probability, labels, dloss, dx)

    def dropout(self, x: Array, y: Array, threshold: int, scale: float, state: Array) -> None:
        dropout.dropout(self.launch, x, y, threshold, scale, state)

    def normalize_images(self, x: Array, factor: Array, offset: Array, y: Array) -> None:
        normalize_images.normalize(self.launch, x, factor, offset, y)

    def optimizer_step(
        self, kind: str, parameters: Sequence[Array], gradients: Sequence[Array], states: Sequence[Array], hyper: Array
    ) -> None:
        if kind not in OPTIMIZERS:
            raise Unsupported(f"optimizer_step: the numba backend has 'sgd' and 'adam', received {kind!r}")
        optimizer_step.step(self.launch, kind, parameters, gradients, states, hyper)
