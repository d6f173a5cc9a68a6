"""A running average of a model's weights, which is often better than the last of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from .. import replay
from ..backends.contract import Array
from ..backends.registry import active_on
from ..functional._arrays import constant
from ..nn.module import Module
from ..tensor import Tensor
from ._composed import Arithmetic


class EMA:
    """The exponential moving average e = d * e + (1 - d) * p of all parameters and buffers of ``model``, which starts
    from their values now; counts, which are buffers of shape (), are copied. ``update()`` comes after each step; ``with
    ema.applied():`` the model has the averages.

    d is ``decay``; with ``warmup`` it is 1 - (1 + n)^(-2/3) at update n = 0, 1, ... where that is less, so that the
    first weights are forgotten soon, as in timm. Raises ValueError for a decay outside [0, 1), TypeError for
    parameters of 2 bytes, which do not hold so slow an average. Polyak and Juditsky 1992; Tan and Le 2019, section 5.2.
    """

    def __init__(self, model: Module, decay: float = 0.9999, *, warmup: bool = False) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"EMA: decay must lie in [0, 1), received {decay}")
        self.decay = float(decay)
        self.warmup = bool(warmup)
        self.updates = 0
        self._tensors: dict[str, Tensor] = dict(model.named_parameters()) | dict(model.named_buffers())
        self._counts = {name for name, buffer in model.named_buffers() if not buffer.ndim}
        narrow = [name for name, t in self._tensors.items() if t.dtype.itemsize == 2]
        if narrow:
            raise TypeError(f"EMA: {narrow[0]} is {self._tensors[narrow[0]].dtype}; keep the parameters in float32")
        self._averages: dict[str, Array] = {name: t.data.copy() for name, t in self._tensors.items()}
        self._applied = False

    def decay_at(self, n: int) -> float:
        """d of update ``n``, the first being 0."""
        return min(self.decay, 1 - (1 + n) ** (-2 / 3)) if self.warmup else self.decay

    def update(self) -> None:
        """Take the model's weights into the average. Raises RuntimeError while the averages are in the model."""
        self._refuse("update")
        rest = 1 - self.decay_at(self.updates)
        for name, tensor in self._tensors.items():
            backend = active_on(tensor.device)
            do = Arithmetic(backend, tensor.dtype)
            if rest == 1 or name in self._counts:  # exactly the model's
                do.store(tensor.data, self._averages[name])
            else:
                do.mix(self._averages[name], constant(backend, do.dtype, rest), tensor.data)
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the model has the averages, for evaluation and saving; its own weights come back behind."""
        self._refuse("applied")
        self._exchange()
        self._applied = True
        try:
            yield
        finally:
            self._applied = False
            self._exchange()

    def state_dict(self) -> dict[str, Any]:
        """The "updates" made, and copies of the "averages" by name."""
        averages = {name: np.array(active_on(self._tensors[name].device).to_host(a)) for name, a in self._pairs()}
        return {"updates": self.updates, "averages": averages}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the averages. Raises ValueError, changing nothing, where they do not fit the model."""
        self._refuse("load_state_dict")
        missing = {"updates", "averages"} - state.keys()
        if missing:
            raise ValueError(f"EMA.load_state_dict: the state lacks {', '.join(sorted(missing))}")
        expected = {name: t.shape for name, t in self._tensors.items()}
        received = {name: np.shape(a) for name, a in state["averages"].items()}
        if expected != received:
            wrong = next(name for name in expected | received if expected.get(name) != received.get(name))
            raise ValueError(
                f"EMA.load_state_dict: {wrong} is {expected.get(wrong)} here, {received.get(wrong)} in the state"
            )
        for name, average in self._averages.items():
            tensor = self._tensors[name]
            host = np.array(state["averages"][name], tensor.dtype, order="C")
            average[...] = active_on(tensor.device).to_device(host)
        self.updates = int(state["updates"])

    def _pairs(self) -> Iterator[tuple[str, Array]]:
        """Each name with its average, wherever that is."""
        for name, average in self._averages.items():
            yield name, self._tensors[name].data if self._applied else average

    def _exchange(self) -> None:
        for name, tensor in self._tensors.items():
            tensor.data, self._averages[name] = self._averages[name], tensor.data
            tensor.bump_version()

    def _refuse(self, method: str) -> None:
        if self._applied:
            raise RuntimeError(f"EMA.{method}: the averages are in the model; it goes behind the block of applied()")
        replay.refuse(f"EMA.{method}", "its decay depends on how many updates were made; call it behind the graph")
