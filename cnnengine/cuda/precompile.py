"""Compilation of all kernels of a model before its first step, in several processes, also where there is no GPU."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import backends, random
from .. import functional as F
from ..amp import GradScaler, autocast
from ..autograd import no_grad
from ..backends.registry import unavailable, using
from ..errors import BackendUnavailable
from ..jit import nvrtc
from ..jit.cache import default_cache
from ..jit.source import KernelSource
from ..nn import Module
from ..optim import SGD
from ..optim.optimizer import Optimizer
from ..tensor import Tensor

if TYPE_CHECKING:
    from ..backends.planning import PlanningBackend

DTYPES = ("float32", "float16", "bfloat16")
MakeOptimizer = Callable[[Iterable[Tensor]], Optimizer]


@dataclass(frozen=True, slots=True)
class Precompiled:
    """How many kernels a step needs, how many of them the cache did not have, and how long these took."""

    arch: str
    kernels: int
    compiled: int
    workers: int
    seconds: float  # by the clock
    cpu_seconds: float  # of all processes


def precompile(
    model: Module | Callable[..., Any],
    *shapes: tuple[int, ...],
    training: bool = True,
    dtype: str = "float32",
    optimizer: MakeOptimizer | None = None,
    arch: str | None = None,
    workers: int | None = None,
) -> Precompiled:
    """Compiles every kernel that a step of ``model`` on float32 inputs of these shapes launches, into the cache.

    A Module makes a training step, with softmax cross-entropy over its last axis and ``optimizer(parameters)`` (SGD
    with momentum), or with ``training=False`` an inference; under ``autocast`` where ``dtype`` is "float16" or
    "bfloat16". It is not changed. Another callable is given the inputs as Tensors on the CPU and does everything
    itself. Nothing is computed: all values are zeros.

    ``arch`` is what to compile for, such as "sm_90a" (None: the GPU that is here, BackendUnavailable where there is
    none); ``workers`` processes compile at once (None: one a core). Raises ValueError for arguments, KernelError with
    the compiler's log.
    """
    if dtype not in DTYPES:
        raise ValueError(f"precompile: dtype must be one of {', '.join(DTYPES)}, received {dtype!r}")
    if workers is not None and workers < 1:
        raise ValueError(f"precompile: workers must be at least 1, received {workers}")
    kernels, arch = plan(model, shapes, training, dtype, optimizer, arch or _own_architecture())
    workers = workers or len(os.sched_getaffinity(0))
    started, cpu = time.perf_counter(), _cpu_seconds()
    cache = default_cache()
    missing = [kernel for kernel in kernels if not nvrtc.is_built(kernel, arch, cache)]
    if missing:
        nvrtc.build_many([(kernel, arch) for kernel in missing], cache, workers)
    elapsed = time.perf_counter() - started
    return Precompiled(arch, len(kernels), len(missing), workers, elapsed, _cpu_seconds() - cpu)


def plan(
    model: Module | Callable[..., Any],
    shapes: Iterable[tuple[int, ...]],
    training: bool,
    dtype: str,
    optimizer: MakeOptimizer | None,
    arch: str,
) -> tuple[list[KernelSource], str]:
    """The kernels that ``precompile`` compiles, and the architecture's full name."""
    from ..backends.planning import PlanningBackend  # needs an extension that may not be built

    backend = PlanningBackend(arch, constant_shapes=os.environ.get("CNNENGINE_CONSTANT_SHAPES") == "1")
    before = random.get_state()  # dropout counts its calls
    try:
        with using(backend):
            inputs = [Tensor(backend.empty(tuple(shape), np.float32)) for shape in shapes]
            if isinstance(model, Module):
                _step(_without_values(model, backend), inputs, training, dtype, optimizer or _sgd)
            else:
                model(*inputs)
    finally:
        random.set_state(before)
    return list(backend.runtime.kernels), backend.runtime.arch


def _step(model: Module, inputs: list[Tensor], training: bool, dtype: str, optimizer: MakeOptimizer) -> None:
    with autocast(dtype if dtype != "float32" else "float16", enabled=dtype != "float32"):
        if not training:
            with no_grad():
                model.eval()(*inputs)
            return
        logits = model.train()(*inputs)
        loss = F.cross_entropy(logits, np.zeros(logits.shape[:-1], np.int64))
    made, scaler = optimizer(model.parameters()), GradScaler(enabled=dtype == "float16")
    scaler.scale(loss).backward()
    scaler.step(made)
    scaler.update()


def _sgd(parameters: Iterable[Tensor]) -> Optimizer:
    return SGD(parameters, 0.1, momentum=0.9)


def _without_values(model: Module, backend: PlanningBackend) -> Module:
    """A copy whose parameters and buffers are the backend's."""
    known: dict[int, Any] = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        empty = copy.copy(tensor)
        empty.data, empty.grad = backend.empty(tensor.shape, tensor.dtype), None
        known[id(tensor)] = empty
    return copy.deepcopy(model, known)


def _own_architecture() -> str:
    reason = unavailable("cuda")
    if reason is not None:
        raise BackendUnavailable(
            f"precompile: there is no GPU to compile for ({reason}); name an architecture, such as arch='sm_90a'"
        )
    capability: int = backends.get("cuda").runtime.capability()  # type: ignore[attr-defined]
    return nvrtc.architecture(divmod(capability, 10))


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
