"""PyTorch: oneDNN on the CPU, cuDNN on the GPU (``cudnn.benchmark``, TF32 off for float32), in both memory layouts."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from cnnengine.shapes import Conv2dShape, Pool2dShape

from ..provenance import usable_cores
from ..task import Prepared, Task


class PyTorch:
    """``layout`` is "nhwc" (torch's channels_last) or "nchw". Operators are called below autograd."""

    def __init__(self, layout: str, device: str = "cpu") -> None:
        self.name = f"PyTorch {layout}"
        self.device = device
        self._layout = layout

    def unavailable(self) -> str | None:
        if find_spec("torch") is None:
            return "PyTorch is not installed"
        if self.device == "cuda":
            import torch

            if not torch.cuda.is_available():
                return "PyTorch sees no CUDA device"
        return None

    def prepare(self, task: Task) -> Prepared | None:
        torch = configured_torch()
        aten = torch.ops.aten
        t = {name: self.tensor(a, task.dtype) for name, a in task.arrays.items()}
        shape = task.shape
        if isinstance(shape, Conv2dShape):
            stride, dilation = [shape.stride_h, shape.stride_w], [shape.dilation_h, shape.dilation_w]
            padding = [shape.pad_h, shape.pad_w]

            def backward(mask: list[bool], which: int) -> Any:
                sizes = (None, stride, padding, dilation, False, [0, 0], shape.groups, mask)
                return aten.convolution_backward(t["dy"], t["x"], t["w"], *sizes)[which]

            run = {
                "conv2d_forward": lambda: torch.conv2d(t["x"], t["w"], None, stride, padding, dilation, shape.groups),
                "conv2d_backward_input": lambda: backward([True, False, False], 0),
                "conv2d_backward_weight": lambda: backward([False, True, False], 1),
            }[task.operation]
            return Prepared(run, to_nhwc)
        if isinstance(shape, Pool2dShape):
            sizes = ([shape.R, shape.S], [shape.stride_h, shape.stride_w], [shape.pad_h, shape.pad_w])
            if task.operation == "max_pool2d_forward":
                return Prepared(lambda: aten.max_pool2d_with_indices(t["x"], *sizes)[0], to_nhwc)
            index = aten.max_pool2d_with_indices(t["x"], *sizes)[1]
            rest = (*sizes, [1, 1], False, index)
            return Prepared(lambda: aten.max_pool2d_with_indices_backward(t["dy"], t["x"], *rest), to_nhwc)
        if task.operation == "relu_forward":
            return Prepared(lambda: torch.relu(t["x"]), to_nhwc)
        if task.operation == "relu_backward":
            y = torch.relu(t["x"])
            return Prepared(lambda: aten.threshold_backward(t["dy"], y, 0), to_nhwc)
        return None

    def tensor(self, array: np.ndarray, dtype: str) -> Any:
        """An (N, H, W, C) array as PyTorch wants it, (N, C, H, W), in this contender's layout."""
        torch = configured_torch()
        nchw = torch.from_numpy(array).permute(0, 3, 1, 2).to(self.device, getattr(torch, dtype))
        return nchw.contiguous(memory_format=torch.channels_last if self._layout == "nhwc" else torch.contiguous_format)


@cache
def configured_torch() -> Any:
    """torch with as many threads as cores, and exact float32 on the GPU."""
    import torch

    torch.set_num_threads(len(usable_cores()))
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return torch


def to_nhwc(result: Any) -> np.ndarray:
    """A PyTorch result (N, C, H, W) as a float32 (N, H, W, C) array."""
    return result.detach().float().cpu().permute(0, 2, 3, 1).numpy()
