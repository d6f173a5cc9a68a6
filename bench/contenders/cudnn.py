"""cuDNN without a framework, through nvidia-cudnn-frontend (written against 1.32): the quickest plan of all it offers.

Layout and dtypes are ours (N, H, W, C); sums are float32. float32 means float32: plans with the numerical notes
TENSOR_CORE (operands rounded to TF32) and DOWN_CONVERT_INPUTS are excluded there, and allowed for "tf32".
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from typing import Any

from cnnengine.shapes import Conv2dShape

from ..task import TF32, Prepared, Task
from .device import arrays_on_device, fill_with_nan, single

PLAN_SAMPLES = 5
HOPELESS = 3.0  # a plan whose first sample takes this many times the best is not sampled again
PLAN_SECONDS = 30.0  # for building and timing the plans of a task; the row says how many were left untried
WORKSPACE_LIMIT = 4 << 30  # bytes
DATA_TYPES = {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BFLOAT16"}
MODES = ("A", "B", "FALLBACK")  # of the heuristics: every engine that cuDNN would propose
ROUNDING = ("TENSOR_CORE", "DOWN_CONVERT_INPUTS")  # numerical notes of plans that are not float32


class Cudnn:
    name = "cuDNN best plan"
    device = "cuda"

    def unavailable(self) -> str | None:
        for module, package in (("cudnn", "nvidia-cudnn-frontend"), ("cupy", "CuPy")):
            if find_spec(module) is None:
                return f"{package} is not installed"
        try:
            import cudnn

            cudnn.backend_version()
        except Exception as error:  # the frontend is there, and cuDNN's libraries or what the frontend imports are not
            return f"nvidia-cudnn-frontend does not work: {type(error).__name__}: {error}"
        return None

    def prepare(self, task: Task) -> Prepared | None:
        if not isinstance(task.shape, Conv2dShape) or task.operation not in GRAPHS:
            return None
        plan = best_plan(task)

        def result(y: Any) -> Any:
            fill_with_nan(y)
            return single(plan.run())

        return Prepared(plan.run, result, plan.notes)


class Plans:
    """The plans of one task's graph, its arrays and one workspace for all; ``run`` executes the plan at ``index``."""

    def __init__(self, task: Task) -> None:
        import cudnn

        self._cudnn, self._task = cudnn, task
        single_precision = cudnn.data_type.FLOAT
        self._io = getattr(cudnn.data_type, DATA_TYPES[task.storage])
        self._handle = handle()
        self._graph = cudnn.pygraph(
            handle=self._handle,
            io_data_type=self._io,
            intermediate_data_type=single_precision,
            compute_data_type=single_precision,
        )
        self._addresses: dict[Any, int] = {}  # graph tensor -> device memory
        self._arrays = arrays_on_device(task)
        self.output = self._build()
        self._workspace: Any = None
        self.index = 0
        self.notes: dict[str, Any] = {}

    def _build(self) -> Any:
        """Our array that the graph writes."""
        import cupy

        cudnn, graph, s = self._cudnn, self._graph, self._task.shape
        assert isinstance(s, Conv2dShape)
        geometry = {
            "padding": [s.pad_h, s.pad_w],
            "stride": [s.stride_h, s.stride_w],
            "dilation": [s.dilation_h, s.dilation_w],
        }
        out, size = GRAPHS[self._task.operation](graph, self._operand, s, geometry)
        dimensions, strides = as_nchw(size)
        out.set_dim(dimensions).set_stride(strides).set_output(True).set_data_type(self._io)
        result = cupy.empty(size, next(iter(self._arrays.values())).dtype)
        self._addresses[out] = int(result.data.ptr)
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([getattr(cudnn.heur_mode, mode) for mode in MODES])
        if self._task.dtype == "float32":
            graph.deselect_numeric_notes([getattr(cudnn.numerical_note, note) for note in ROUNDING])
        return result

    def _operand(self, name: str) -> Any:
        array = self._arrays[name]
        dimensions, strides = as_nchw(array.shape if array.ndim == 4 else (1, 1, 1, *array.shape))
        tensor = self._graph.tensor(name=name, dim=dimensions, stride=strides, data_type=self._io)
        self._addresses[tensor] = int(array.data.ptr)
        return tensor

    @property
    def count(self) -> int:
        return int(self._graph.get_execution_plan_count())

    def name(self, index: int) -> str:
        return str(self._graph.get_plan_name_at_index(index))

    def build(self, index: int) -> int:
        """The bytes of workspace that the plan needs. Raises what ``refusals`` lists where cuDNN has no such kernel."""
        self._graph.build_plan_at_index(index)
        return int(self._graph.get_workspace_size_plan_at_index(index))

    def reserve(self, nbytes: int) -> None:
        import cupy

        if self._workspace is None or self._workspace.nbytes < nbytes:
            self._workspace = cupy.empty(max(nbytes, 1), "uint8")

    def run(self) -> Any:
        self._graph.execute_plan_at_index(
            self._addresses, int(self._workspace.data.ptr), self.index, handle=self._handle
        )
        return self.output


def best_plan(task: Task) -> Plans:
    """Builds and times every plan that cuDNN offers and selects the quickest. Raises RuntimeError where none runs."""
    from ..cuda_timer import cuda_timer

    plans, timer = Plans(task), cuda_timer()
    end = time.perf_counter() + PLAN_SECONDS
    needs: dict[int, int] = {}
    refused: dict[int, str] = {}
    for index in attempts(plans.count, end):
        try:
            needed = plans.build(index)
            if needed > WORKSPACE_LIMIT:
                raise RuntimeError(f"wants {needed} bytes of workspace")
            needs[index] = needed
        except refusals() as refusal:
            refused[index] = first_line(refusal)
    plans.reserve(max(needs.values(), default=0))
    seconds: dict[int, float] = {}
    for index in needs:
        plans.index = index
        try:
            plans.run()
            for _ in range(PLAN_SAMPLES):
                taken = timer.seconds(plans.run, 1)
                seconds[index] = min(taken, seconds.get(index, taken))
                if taken > HOPELESS * min(seconds.values()):
                    break
        except refusals() as refusal:  # a plan may be built and yet refuse to run
            refused[index] = first_line(refusal)
            seconds.pop(index, None)
    if not seconds:
        why = next(iter(refused.values()), "none was tried")
        raise RuntimeError(f"none of cuDNN's {plans.count} plans runs: {why}")
    plans.index = min(seconds, key=lambda i: seconds[i])
    plans.notes = {
        "plan": plans.name(plans.index),
        "plans": plans.count,
        "plans_timed": len(seconds),
        "plans_refused": len(refused),
        "plans_untried": plans.count - len(seconds) - len(refused),
        "workspace": needs[plans.index],
        "cudnn": plans._cudnn.backend_version(),
        "allow_tf32": task.dtype == TF32,
    }
    return plans


def attempts(count: int, end: float) -> Iterator[int]:
    """Plans in cuDNN's order, until the time is up."""
    for index in range(count):
        if time.perf_counter() > end:
            print(f"cuDNN: {count - index} of {count} plans untried after {PLAN_SECONDS:g} s", file=sys.stderr)
            return
        yield index


@cache
def handle() -> Any:
    """One for the process, on CuPy's stream."""
    import cudnn
    import cupy

    made = cudnn.create_handle()
    cudnn.set_stream(made, cupy.cuda.get_current_stream().ptr)
    return made


def refusals() -> tuple[type[Exception], ...]:
    """How cuDNN says that it does not have something."""
    import cudnn

    return RuntimeError, ValueError, cudnn.cudnnGraphNotSupportedError


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def as_nchw(size: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """cuDNN names the axes N, C, H, W; ours lie in memory as N, H, W, C."""
    n, h, w, c = size
    return [n, c, h, w], [h * w * c, 1, w * c, c]


Size = tuple[int, int, int, int]
Operand = Callable[[str], Any]


def _forward(graph: Any, operand: Operand, s: Conv2dShape, geometry: dict[str, Any]) -> tuple[Any, Size]:
    return graph.conv_fprop(image=operand("x"), weight=operand("w"), **geometry), s.y


def _backward_input(graph: Any, operand: Operand, s: Conv2dShape, geometry: dict[str, Any]) -> tuple[Any, Size]:
    return graph.conv_dgrad(loss=operand("dy"), filter=operand("w"), **geometry), s.x


def _backward_weight(graph: Any, operand: Operand, s: Conv2dShape, geometry: dict[str, Any]) -> tuple[Any, Size]:
    return graph.conv_wgrad(image=operand("x"), loss=operand("dy"), **geometry), s.w


def _bias_relu(graph: Any, operand: Operand, s: Conv2dShape, geometry: dict[str, Any]) -> tuple[Any, Size]:
    """One fused kernel: what lies between the three is float32, in our layout and never in memory."""
    dimensions, strides = as_nchw(s.y)
    y = graph.conv_fprop(image=operand("x"), weight=operand("w"), **geometry)
    y.set_dim(dimensions).set_stride(strides)
    z = graph.bias(input=y, bias=operand("bias"))
    z.set_dim(dimensions).set_stride(strides)
    return graph.relu(input=z), s.y


GRAPHS: dict[str, Callable[[Any, Operand, Conv2dShape, dict[str, Any]], tuple[Any, Size]]] = {
    "conv2d_forward": _forward,
    "conv2d_backward_input": _backward_input,
    "conv2d_backward_weight": _backward_weight,
    "conv2d_bias_relu": _bias_relu,
}
