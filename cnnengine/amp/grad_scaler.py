"""GradScaler: float16 gradients kept above zero by a large loss, and steps left out where that was too large."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import replay
from .._arguments import is_int
from ..backends.contract import Array
from ..backends.registry import active_on
from ..functional import cast, mul
from ..functional._arrays import binary_array, constant
from ..optim.optimizer import Optimizer
from ..shapes import reduce_shape
from ..tensor import Tensor, wrap

SMALLEST, LARGEST = 2.0**-126, float(np.finfo(np.float32).max)  # a scale and its inverse are normal float32 numbers
STATE = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")  # PyTorch's names


class GradScaler:
    """Loss scaling (Micikevicius et al., arXiv 1710.03740), with PyTorch's names and rules:

        scaler.scale(loss).backward(); scaler.step(optimizer); scaler.update()

    The scale starts at ``init_scale``. ``step`` divides the gradients by it, and is left out where one of them is
    infinite or NaN: then ``update`` multiplies the scale by ``backoff_factor``, after ``growth_interval`` updates
    without it by ``growth_factor``. With ``enabled=False`` losses and steps are as without it. float16 needs it, whose
    smallest number is 2**-24; bfloat16 has float32's range. Raises ValueError for numbers out of range.
    """

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        _check("init_scale", init_scale, SMALLEST <= init_scale <= LARGEST, f"in [{SMALLEST}, {LARGEST}]")
        _check("growth_factor", growth_factor, 1 < growth_factor < math.inf, "above 1 and finite")
        _check("backoff_factor", backoff_factor, 0 < backoff_factor < 1, "between 0 and 1")
        _check("growth_interval", growth_interval, is_int(growth_interval) and growth_interval >= 1, "an int above 0")
        self._enabled = bool(enabled)
        self._scale = float(init_scale)
        self._growth_factor = float(growth_factor)
        self._backoff_factor = float(backoff_factor)
        self._growth_interval = int(growth_interval)
        self._growth_tracker = 0  # updates since the scale was last changed
        self._on: dict[str, Tensor] = {}  # device -> the scale there, float32 (), rewritten in place
        self._finite: dict[Optimizer, bool] = {}  # of those checked since the last update
        self._stepped: set[Optimizer] = set()

    def scale(self, loss: Tensor) -> Tensor:
        """The loss times the scale, in float32 where it is narrower."""
        if not self._enabled:
            return loss
        if loss.dtype.itemsize == 2:
            loss = cast(loss, np.float32)
        if loss.device not in self._on:
            self._on[loss.device] = wrap(active_on(loss.device).to_device(np.full((), self._scale, np.float32)))
        return mul(loss, cast(self._on[loss.device], loss.dtype))

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients of the optimizer's parameters by the scale, before they are clipped or looked at; else
        ``step`` does it. Raises RuntimeError for a second time since the last update; ValueError for float16 gradients,
        which would become zeros."""
        if not self._enabled:
            return
        _refuse_captured("unscale_")
        self._check_order("unscale_", optimizer)
        if optimizer in self._finite:
            raise RuntimeError("GradScaler.unscale_: called twice for this optimizer since the last update()")
        gradients = [p.grad for p in optimizer.parameters if p.grad is not None]
        if any(g.dtype == np.float16 for g in gradients):
            raise ValueError(
                "GradScaler.unscale_: gradients are float16, which does not hold them unscaled; keep the parameters in"
                " float32 (autocast does), or leave it to step(), which divides in float32"
            )
        for gradient in gradients:
            gradient.data = cast(_times(gradient, 1.0 / self._scale), gradient.dtype).data
            gradient.bump_version()
        self._finite[optimizer] = _all_finite(gradients)

    def step(self, optimizer: Optimizer) -> bool:
        """``optimizer.step()`` with the gradients divided by the scale; nothing at all where one of them is infinite or
        NaN. Whether the step was made. Raises RuntimeError for a second time since the last update."""
        if not self._enabled:
            optimizer.step()
            return True
        _refuse_captured("step")
        self._check_order("step", optimizer)
        factor = 1.0
        if optimizer not in self._finite:
            factor = 1.0 / self._scale
            gradients = [p.grad for p in optimizer.parameters if p.grad is not None]
            self._finite[optimizer] = _all_finite(gradients if factor <= 1 else [_times(g, factor) for g in gradients])
        if self._finite[optimizer]:
            optimizer.step(gradient_scale=factor)
        self._stepped.add(optimizer)
        return self._finite[optimizer]

    def update(self) -> None:
        """The scale of the next iteration. Once an iteration, after the steps of all optimizers. Raises RuntimeError
        where none was made or left out since the last time."""
        if not self._enabled:
            return
        if not self._finite:
            raise RuntimeError(
                "GradScaler.update: no gradients were checked since the last update(): call step() first"
            )
        if not all(self._finite.values()):
            self._set(max(self._scale * self._backoff_factor, SMALLEST), 0)
        elif self._growth_tracker + 1 < self._growth_interval:
            self._growth_tracker += 1
        else:
            grown = self._scale * self._growth_factor
            self._set(grown if grown <= LARGEST else self._scale, 0)
        self._finite.clear()
        self._stepped.clear()

    def get_scale(self) -> float:
        """The scale; 1 where not enabled."""
        return self._scale if self._enabled else 1.0

    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` needs to go on; empty where not enabled."""
        return {name: getattr(self, f"_{name.lstrip('_')}") for name in STATE} if self._enabled else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over scale and settings; nothing where not enabled. Raises ValueError, changing nothing, where something
        is missing or out of range."""
        if not self._enabled:
            return
        missing = [name for name in STATE if name not in state]
        if missing:
            raise ValueError(
                f"GradScaler.load_state_dict: the state lacks {', '.join(missing)}; that of a scaler that is"
                " not enabled is empty"
            )
        new, tracker = GradScaler(*(state[name] for name in STATE[:4])), state["_growth_tracker"]
        _check("_growth_tracker", tracker, is_int(tracker) and tracker >= 0, "an int, 0 or above")
        self._growth_factor, self._backoff_factor = new._growth_factor, new._backoff_factor
        self._growth_interval = new._growth_interval
        self._set(new._scale, int(tracker))

    def _set(self, scale: float, tracker: int) -> None:
        self._scale, self._growth_tracker = scale, tracker
        for tensor in self._on.values():
            tensor.data[...] = scale
            tensor.bump_version()

    def _check_order(self, method: str, optimizer: Optimizer) -> None:
        """Raise RuntimeError after a step, and where there is nothing to step with."""
        if optimizer in self._stepped:
            raise RuntimeError(f"GradScaler.{method}: step() was called for this optimizer since the last update()")
        if all(p.grad is None for p in optimizer.parameters):
            raise RuntimeError(f"GradScaler.{method}: no parameter has a gradient; scale(loss).backward() comes first")


def _refuse_captured(method: str) -> None:
    why = (
        "it looks for infinities and decides on the host; train in bfloat16, which needs no scaling, or without a graph"
    )
    replay.refuse(f"GradScaler.{method}", why)


def _times(gradient: Tensor, factor: float) -> Tensor:
    """In float32 where the gradient is narrower, as an optimizer's step computes it"""
    return mul(cast(gradient, np.float32) if gradient.dtype.itemsize == 2 else gradient, factor)


def _all_finite(gradients: Sequence[Tensor]) -> bool:
    """Whether no element is infinite or NaN: 0 times those is NaN, 0 times all others 0, and a sum keeps a NaN. One
    look at the device for all gradients of a dtype."""
    kinds: dict[tuple[str, Any], list[Array]] = {}
    for gradient in gradients:
        if gradient.size:
            kinds.setdefault((gradient.device, gradient.dtype), []).append(gradient.data)
    for (device, dtype), arrays in kinds.items():
        backend = active_on(device)
        zero, sums = constant(backend, dtype, 0.0), backend.empty((len(arrays),), dtype)
        for i, array in enumerate(arrays):
            zeros = binary_array(backend, "mul", array, zero)
            backend.reduce("sum", reduce_shape(1, array.size, 1), zeros, sums[i : i + 1])
        if np.isnan(backend.to_host(sums).astype(np.float32)).any():
            return False
    return True


def _check(name: str, value: Any, fits: bool, expected: str) -> None:
    if not fits:
        raise ValueError(f"GradScaler: {name} must be {expected}, received {value!r}")
