"""cuDNN without a framework, through nvidia-cudnn-frontend: the best plan of all that it offers, found by timing each.

Layout and dtypes are ours (N, H, W, C). float32 means float32: plans that round operands to TF32 are left out.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

import numpy as np

from cnnengine.shapes import Conv2dShape

from ..task import Prepared, Task

PLAN_SAMPLES = 5
WORKSPACE_LIMIT = 2 << 30  # bytes


class Cudnn:
    name = "cuDNN best plan"
    device = "cuda"

    def unavailable(self) -> str | None:
        for module, package in (("cudnn", "nvidia-cudnn-frontend"), ("cupy", "CuPy")):
            if find_spec(module) is None:
                return f"{package} is not installed"
        return None

    def prepare(self, task: Task) -> Prepared | None:
        if not isinstance(task.shape, Conv2dShape):
            return None
        try:
            plan = best_plan(task)
        except refusals() as refusal:
            print(f"{self.name}: no {task.operation} {task.case} {task.dtype}: {refusal}", file=sys.stderr)
            return None
        return Prepared(plan.run, lambda result: _to_host(result, task.dtype))


class Plan:
    """One built graph with its arrays; ``run`` executes the plan at ``index``."""

    def __init__(self, task: Task) -> None:
        import cudnn
        import cupy

        self._cudnn, self._cupy = cudnn, cupy
        self._handle = cudnn.create_handle()
        cudnn.set_stream(self._handle, cupy.cuda.get_current_stream().ptr)
        dtype = {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BFLOAT16"}[task.dtype]
        io, single = getattr(cudnn.data_type, dtype), cudnn.data_type.FLOAT
        self._graph = cudnn.pygraph(
            handle=self._handle, io_data_type=io, intermediate_data_type=single, compute_data_type=single
        )
        self._buffers: dict[Any, Any] = {}
        self.output = self._build(task, io)
        self._workspace = cupy.empty(0, cupy.uint8)
        self.index = 0

    def _build(self, task: Task, io: Any) -> Any:
        cudnn, graph, shape = self._cudnn, self._graph, task.shape
        geometry = {
            "padding": [shape.pad_h, shape.pad_w],
            "stride": [shape.stride_h, shape.stride_w],
            "dilation": [shape.dilation_h, shape.dilation_w],
        }
        if task.operation == "conv2d_forward":
            x, w = self._operand("x", task), self._operand("w", task)
            out, size = graph.conv_fprop(image=x, weight=w, **geometry), shape.y
        elif task.operation == "conv2d_backward_input":
            dy, w = self._operand("dy", task), self._operand("w", task)
            out, size = graph.conv_dgrad(loss=dy, filter=w, **geometry), shape.x
        else:
            x, dy = self._operand("x", task), self._operand("dy", task)
            out, size = graph.conv_wgrad(image=x, loss=dy, **geometry), shape.w
        dimensions, strides = _as_nchw(size)
        out.set_dim(dimensions).set_stride(strides).set_output(True).set_data_type(io)
        result = self._cupy.empty(size, _storage(task.dtype))
        self._buffers[out] = result
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.B, cudnn.heur_mode.FALLBACK])
        if task.dtype == "float32":
            graph.deselect_numeric_notes([cudnn.numerical_note.TENSOR_CORE])
        graph.check_support()
        graph.build_plans(cudnn.build_plan_policy.ALL)
        return result

    def _operand(self, name: str, task: Task) -> Any:
        array = task.arrays[name]
        dimensions, strides = _as_nchw(array.shape)
        tensor = self._graph.tensor(name=name, dim=dimensions, stride=strides)
        self._buffers[tensor] = _to_device(array, task.dtype)
        return tensor

    def select(self, index: int) -> None:
        """Raises RuntimeError or ValueError where the plan was not built or wants too large a workspace."""
        needed = self._graph.get_workspace_size_plan_at_index(index)
        if needed > WORKSPACE_LIMIT:
            raise RuntimeError(f"plan {index} wants {needed} bytes of workspace")
        self._workspace = self._cupy.empty(max(needed, 1), self._cupy.uint8)
        self.index = index

    def run(self) -> Any:
        self._graph.execute_plan_at_index(self._buffers, self._workspace, self.index, handle=self._handle)
        return self.output

    @property
    def count(self) -> int:
        return int(self._graph.get_execution_plan_count())


def best_plan(task: Task) -> Plan:
    """Times every plan cuDNN offers and selects the fastest. Raises RuntimeError where none runs."""
    from ..cuda_timer import CudaTimer

    plan, timer = Plan(task), CudaTimer()
    times: dict[int, float] = {}
    refused: list[str] = []
    for index in range(plan.count):
        try:
            plan.select(index)
            plan.run()
            times[index] = min(timer.seconds(plan.run, 1) for _ in range(PLAN_SAMPLES))
        except refusals() as refusal:  # a plan may be listed and yet refuse this size
            refused.append(str(refusal).splitlines()[0])
    if not times:
        raise RuntimeError(f"{task.operation} {task.case}: none of cuDNN's {plan.count} plans ran: {refused[:1]}")
    plan.select(min(times, key=times.__getitem__))
    return plan


def refusals() -> tuple[type[Exception], ...]:
    """How cuDNN says that it does not have something."""
    import cudnn

    return RuntimeError, ValueError, cudnn.cudnnGraphNotSupportedError


def _as_nchw(size: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """cuDNN names the axes N, C, H, W; ours lie in memory as N, H, W, C."""
    n, h, w, c = size
    return [n, c, h, w], [h * w * c, 1, w * c, c]


def _storage(dtype: str) -> Any:
    """bfloat16 travels as its 16 bits: CuPy has no such type."""
    return np.dtype("uint16") if dtype == "bfloat16" else np.dtype(dtype)


def _to_device(array: np.ndarray, dtype: str) -> Any:
    import cupy
    import ml_dtypes

    if dtype == "bfloat16":
        return cupy.asarray(array.astype(ml_dtypes.bfloat16).view(np.uint16))
    return cupy.asarray(array.astype(dtype))


def _to_host(array: Any, dtype: str) -> np.ndarray:
    import ml_dtypes

    host = array.get()
    return (host.view(ml_dtypes.bfloat16) if dtype == "bfloat16" else host).astype(np.float32)
