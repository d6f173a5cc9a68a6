"""Steps that have no kernel of their own: composed of a backend's verbs, one parameter after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backends.contract import IDENTITY, Array, Backend
from ..functional._arrays import binary_array, unary_array
from ..functional.reduce import reduce_array
from ..shapes import broadcast_shape, gemm_shape
from .optimizer import Group, Optimizer


class Arithmetic:
    """Operators on arrays of one dtype: float32 for parameters of 2 bytes, else their own. A scalar is an array ()."""

    def __init__(self, backend: Backend, dtype: np.dtype[Any]) -> None:
        self.backend = backend
        self.dtype = np.dtype(np.float32) if dtype.itemsize == 2 else dtype

    def wide(self, a: Array) -> Array:
        """The array in the dtype of the arithmetic."""
        if a.dtype == self.dtype:
            return a
        y = self.backend.empty(a.shape, self.dtype)
        self.backend.cast(a, y)
        return y

    def add(self, a: Array, b: Array) -> Array:
        return binary_array(self.backend, "add", a, b)

    def sub(self, a: Array, b: Array) -> Array:
        return binary_array(self.backend, "sub", a, b)

    def mul(self, a: Array, b: Array) -> Array:
        return binary_array(self.backend, "mul", a, b)

    def div(self, a: Array, b: Array) -> Array:
        return binary_array(self.backend, "div", a, b)

    def equal(self, a: Array, b: Array) -> Array:
        return binary_array(self.backend, "equal", a, b)

    def sqrt(self, a: Array) -> Array:
        return unary_array(self.backend, "sqrt", a)

    def norm(self, a: Array) -> Array:
        """The root of the sum of squares, ()."""
        return self.sqrt(reduce_array(self.backend, "sum", self.mul(a, a), None))

    def largest(self, a: Array, b: Array) -> Array:
        """The larger of two scalars, NaN where one is."""
        both = self.backend.empty((2,), self.dtype)
        self.store(a.reshape(1), both[:1])
        self.store(b.reshape(1), both[1:])
        return reduce_array(self.backend, "max", both, None)

    def matmul(self, a: Array, b: Array, *, turn_a: bool = False, turn_b: bool = False) -> Array:
        """a @ b of matrices, one of them transposed where told."""
        M, K = a.shape[::-1] if turn_a else a.shape
        N = b.shape[0] if turn_b else b.shape[1]
        c = self.backend.empty((M, N), self.dtype)
        self.backend.gemm(gemm_shape(1, M, N, K, turn_a, turn_b, False, False), a, b, c, IDENTITY)
        return c

    def mix(self, into: Array, weight: Array, other: Array) -> None:
        """into = into + weight * (other - into), in place."""
        part = self.mul(weight, self.sub(other, into))
        self.backend.binary("add", broadcast_shape("add", into.shape, part.shape)[1], into, part, into)

    def store(self, a: Array, into: Array) -> None:
        """Copies, rounding where ``into`` is narrower."""
        self.backend.cast(a, into)


class Composed(Optimizer):
    """An optimizer that says how one parameter changes."""

    def update(
        self, do: Arithmetic, group: Group, p: Array, g: Array, states: dict[str, Array], numbers: Sequence[Array]
    ) -> Array:
        """The new p, and the states changed in place; ``numbers`` are ``hyper``'s, arrays ()."""
        raise NotImplementedError

    def apply(
        self,
        backend: Backend,
        group: Group,
        parameters: Sequence[Array],
        gradients: Sequence[Array],
        states: Sequence[Array],
        hyper: Array,
    ) -> None:
        do = Arithmetic(backend, parameters[0].dtype)
        wide = do.wide(hyper)
        *numbers, scale = (wide[i : i + 1].reshape(()) for i in range(len(wide)))
        for i, p in enumerate(parameters):
            kept = {name: states[k * len(parameters) + i] for k, name in enumerate(self.used(group))}
            g = do.mul(do.wide(gradients[i]), scale)
            do.store(self.update(do, group, do.wide(p), g, kept, numbers), p)
