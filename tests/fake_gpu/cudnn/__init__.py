"""As much of nvidia-cudnn-frontend as the benchmarks use, over host memory. It checks what it is given as the real one
does (names of arguments, layouts, the order of calls) and offers plans that refuse, that are slow, that want too much
memory, and that round."""

from __future__ import annotations

import ctypes
import itertools
from enum import Enum
from types import SimpleNamespace
from typing import Any

import cupy
import ml_dtypes
import numpy as np

from cnnengine import backends
from cnnengine.backends.contract import IDENTITY, Epilogue
from cnnengine.shapes import conv2d_shape

data_type = Enum("data_type", ["FLOAT", "HALF", "BFLOAT16"])
heur_mode = Enum("heur_mode", ["A", "B", "FALLBACK", "OPENSOURCE"])
numerical_note = Enum("numerical_note", ["TENSOR_CORE", "DOWN_CONVERT_INPUTS", "FFT", "WINOGRAD"])
STORAGE = {
    data_type.FLOAT: np.dtype(np.float32),
    data_type.HALF: np.dtype(np.float16),
    data_type.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
}
# name, numerical note, seconds, bytes of workspace; the quickest rounds, the next does not run
PLANS = (
    ("eng0_unsupported", None, 0.0, 0),
    ("eng1_slow", None, 0.004, 64),
    ("eng2_large_workspace", None, 0.0, 1 << 40),
    ("eng3_refuses_to_run", None, 0.0, 0),
    ("eng4_quick", None, 0.001, 128),
    ("eng5_tensor_core", numerical_note.TENSOR_CORE, 0.0, 0),
)


class cudnnGraphNotSupportedError(Exception):
    pass


class Tensor:
    def __init__(self, dim: Any = None, stride: Any = None, made_by: Any = None) -> None:
        self.dim, self.stride, self.made_by, self.output = dim, stride, made_by, False

    def set_dim(self, dim: list[int]) -> Tensor:
        self.dim = dim
        return self

    def set_stride(self, stride: list[int]) -> Tensor:
        self.stride = stride
        return self

    def set_output(self, value: bool) -> Tensor:
        self.output = value
        return self

    def set_data_type(self, value: data_type) -> Tensor:
        assert value in STORAGE
        return self

    @property
    def nhwc(self) -> tuple[int, ...]:
        n, c, h, w = self.dim
        if list(self.stride) != [h * w * c, 1, w * c, c]:
            raise ValueError(f"a tensor of {self.dim} has strides {self.stride}, which is not our layout")
        return n, h, w, c


class pygraph:
    def __init__(self, *, handle: Any, io_data_type: Any, intermediate_data_type: Any, compute_data_type: Any) -> None:
        assert handle.alive
        assert intermediate_data_type is compute_data_type is data_type.FLOAT
        self._dtype = STORAGE[io_data_type]
        self._tensors: list[Tensor] = []
        self._state = "made"
        self._built: set[int] = set()
        self._barred: set[Any] = set()

    def tensor(self, *, name: str, dim: list[int], stride: list[int], data_type: data_type) -> Tensor:
        assert name
        assert STORAGE[data_type] == self._dtype
        return self._made(Tensor(dim, stride))

    def _made(self, tensor: Tensor) -> Tensor:
        self._tensors.append(tensor)
        return tensor

    def conv_fprop(self, *, image: Tensor, weight: Tensor, padding: Any, stride: Any, dilation: Any) -> Tensor:
        return self._made(Tensor(made_by=("forward", image, weight, padding, stride, dilation)))

    def conv_dgrad(self, *, loss: Tensor, filter: Tensor, padding: Any, stride: Any, dilation: Any) -> Tensor:
        return self._made(Tensor(made_by=("backward_input", loss, filter, padding, stride, dilation)))

    def conv_wgrad(self, *, image: Tensor, loss: Tensor, padding: Any, stride: Any, dilation: Any) -> Tensor:
        return self._made(Tensor(made_by=("backward_weight", image, loss, padding, stride, dilation)))

    def bias(self, *, input: Tensor, bias: Tensor) -> Tensor:
        return self._made(Tensor(made_by=("bias", input, bias)))

    def relu(self, *, input: Tensor) -> Tensor:
        return self._made(Tensor(made_by=("relu", input)))

    def validate(self) -> None:
        outputs = [t for t in self._tensors if t.output]
        assert len(outputs) == 1
        self._out = outputs[0]
        for tensor in self._tensors:
            assert tensor.nhwc
        self._state = "validated"

    def build_operation_graph(self) -> None:
        assert self._state == "validated"
        self._state = "built"

    def create_execution_plans(self, modes: list[heur_mode]) -> None:
        assert self._state == "built"
        assert modes
        self._state = "planned"

    def deselect_numeric_notes(self, notes: list[numerical_note]) -> None:
        assert self._state == "planned", "a note that is named before there are plans marks nothing"
        self._barred |= set(notes)

    def get_execution_plan_count(self) -> int:
        return len(PLANS)

    def get_plan_name_at_index(self, index: int) -> str:
        return PLANS[index][0]

    def build_plan_at_index(self, index: int) -> None:
        if PLANS[index][0].endswith("unsupported") or PLANS[index][1] in self._barred:
            raise cudnnGraphNotSupportedError("no such engine\nand more lines")
        self._built.add(index)

    def get_workspace_size_plan_at_index(self, index: int) -> int:
        return PLANS[index][3]

    def execute_plan_at_index(self, pack: dict[Tensor, int], workspace: int, index: int, *, handle: Any) -> None:
        assert index in self._built
        assert handle.alive
        assert isinstance(workspace, int)
        name, note, seconds, _ = PLANS[index]
        if name == "eng3_refuses_to_run":
            raise RuntimeError("CUDNN_STATUS_EXECUTION_FAILED")
        cupy.clock.busy += seconds
        result = self._value(self._out, pack)
        if note is not None:  # a relative error of 2e-3, as with ten bits of mantissa
            result = result * (1 + 2e-3 * np.sign(np.random.default_rng(0).standard_normal(result.shape)))
        self._memory(self._out, pack)[...] = result.astype(self._dtype)

    def _memory(self, tensor: Tensor, pack: dict[Tensor, int]) -> np.ndarray:
        size = int(np.prod(tensor.nhwc)) * self._dtype.itemsize
        raw = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pack[tensor]))
        return raw.view(self._dtype).reshape(tensor.nhwc)

    def _value(self, tensor: Tensor, pack: dict[Tensor, int]) -> np.ndarray:
        """In float32."""
        if tensor.made_by is None:
            return self._memory(tensor, pack).astype(np.float32)
        kind, *operands = tensor.made_by
        if kind == "relu":
            return np.maximum(self._value(operands[0], pack), 0)
        if kind == "bias":
            return self._value(operands[0], pack) + self._value(operands[1], pack)
        a, b, padding, stride, dilation = operands
        sizes = {"forward": (a, b), "backward_input": (tensor, b), "backward_weight": (a, tensor)}[kind]
        x, w = (t.nhwc for t in sizes)
        shape = conv2d_shape(x, w, tuple(stride), tuple(padding), tuple(dilation), x[3] // w[3])
        verb = getattr(backends.get("numpy"), f"conv2d_{kind}")
        out = np.empty(tensor.nhwc, np.float32)
        epilogue: tuple[Epilogue, ...] = (IDENTITY,) if kind == "forward" else ()
        verb(shape, self._value(a, pack), self._value(b, pack), out, *epilogue, None)
        return out


_numbers = itertools.count()


def create_handle() -> SimpleNamespace:
    return SimpleNamespace(alive=True, number=next(_numbers), stream=0)


def set_stream(handle: SimpleNamespace, stream: int) -> None:
    handle.stream = stream


def backend_version() -> int:
    return 91500
