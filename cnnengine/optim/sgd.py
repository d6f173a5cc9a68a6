"""Stochastic gradient descent with momentum."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..backends.contract import Array
from ..backends.registry import active_on
from ..tensor import Tensor
from .optimizer import Optimizer


class SGD(Optimizer):
    """For each parameter p with gradient g, as PyTorch does:

        g = g + weight_decay * p;  v = momentum * v + g;  p = p - lr * (g + momentum * v if nesterov else v)

    with v = 0 at first. ``lr`` may be set between steps. Raises ValueError for a value that is negative or not finite,
    and for ``nesterov`` without momentum. Sutskever et al. 2013.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(parameters)
        self.lr = lr
        self.momentum = _checked("momentum", momentum)
        self.weight_decay = _checked("weight_decay", weight_decay)
        self.nesterov = bool(nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("SGD: nesterov needs a momentum above 0")
        self._velocity: list[Array | None] = [None] * len(self.parameters)
        self._hyper: dict[str, tuple[tuple[float, ...], Array]] = {}

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = _checked("lr", value)

    def step(self) -> None:
        """Change every parameter that has a gradient. Raises ValueError where a gradient does not fit its parameter."""
        by_kind: dict[tuple[str, str], list[int]] = {}
        for i, parameter in enumerate(self.parameters):
            if parameter.grad is not None:
                if parameter.grad.shape != parameter.shape or parameter.grad.dtype != parameter.dtype:
                    raise ValueError(
                        f"SGD: parameter {i} is {parameter.shape} {parameter.dtype}, its gradient"
                        f" {parameter.grad.shape} {parameter.grad.dtype}"
                    )
                by_kind.setdefault((parameter.device, parameter.dtype.name), []).append(i)
        for (device, _), indices in by_kind.items():
            self._step_on(device, indices)

    def _step_on(self, device: str, indices: list[int]) -> None:
        backend = active_on(device)
        if self.momentum:
            for i in indices:
                if self._velocity[i] is None:
                    parameter = self.parameters[i]
                    velocity = self._velocity[i] = backend.empty(parameter.shape, parameter.dtype)
                    backend.fill(velocity, 0.0)
        backend.optimizer_step(
            "sgd",
            [self.parameters[i].data for i in indices],
            [self.parameters[i].grad.data for i in indices],  # type: ignore[union-attr]
            [self._velocity[i] for i in indices] if self.momentum else [],
            self._hyper_on(device),
        )
        for i in indices:
            self.parameters[i].bump_version()

    def _hyper_on(self, device: str) -> Array:
        """The contract's five numbers in an array of the device that stays in place, rewritten where they change."""
        values = (self.lr, self.momentum, self.weight_decay, float(self.nesterov), 1.0)
        if device not in self._hyper or self._hyper[device][0] != values:
            array = active_on(device).to_device(np.array(values, np.float32))
            if device in self._hyper:
                self._hyper[device][1][...] = array
                array = self._hyper[device][1]
            self._hyper[device] = (values, array)
        return self._hyper[device][1]

    def state_dict(self) -> dict[str, Any]:
        """lr, momentum, weight_decay, nesterov, and "velocity": a copy for each parameter, None before any step."""
        velocity = [
            None if v is None else np.array(active_on(p.device).to_host(v))
            for p, v in zip(self.parameters, self._velocity, strict=True)
        ]
        return {
            "lr": self.lr,
            "momentum": self.momentum,
            "weight_decay": self.weight_decay,
            "nesterov": self.nesterov,
            "velocity": velocity,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over hyperparameters and velocities. Raises ValueError, changing nothing, where they do not fit."""
        missing = {"lr", "momentum", "weight_decay", "nesterov", "velocity"} - state.keys()
        if missing:
            raise ValueError(f"SGD.load_state_dict: the state lacks {', '.join(sorted(missing))}")
        velocity = list(state["velocity"])
        expected = [p.shape for p in self.parameters]
        if len(velocity) != len(expected) or any(
            v is not None and np.shape(v) != shape for v, shape in zip(velocity, expected, strict=True)
        ):
            received = [None if v is None else np.shape(v) for v in velocity]
            raise ValueError(f"SGD.load_state_dict: velocities of shapes {expected} expected, {received} received")
        new = SGD(self.parameters, state["lr"], state["momentum"], state["weight_decay"], state["nesterov"])
        new._velocity = [
            None if v is None else active_on(p.device).to_device(np.array(v, p.dtype, order="C"))
            for p, v in zip(self.parameters, velocity, strict=True)
        ]
        self.__dict__.update(new.__dict__)


def _checked(name: str, value: float) -> float:
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"SGD: {name} must be a finite number, 0 or above, received {value}")
    return float(value)
