"""``Module.fuse()``: batch norms are folded into the convolutions in front of them, for inference.

With running mean m and variance v, gain g and offset o, a norm of a convolution's result is a convolution:
(conv(x, w) + b - m) g / sqrt(v + eps) + o = conv(x, w s) + (b - m) s + o, s = g / sqrt(v + eps). It has a bias, so the
activation and the residual that followed the norm now follow the convolution, on its way to memory.

Which norm stands behind which convolution a module says by ``conv_norm_pairs()``: pairs of its children's names, the
second of which is only ever given the first's result. Sequential knows its own. A block that calls
``conv_norm(self.conv1, self.bn1, x, ...)`` in ``forward`` returns ``(("conv1", "bn1"), ...)`` and needs nothing more.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from ..backends.registry import active_on
from ..tensor import Tensor
from .conv2d import Conv2d
from .identity import Identity
from .module import Module, is_plain
from .norm import BatchNorm2d
from .parameter import Parameter


def fuse(model: Module) -> None:
    """Folds every pair that can be folded, in place, leaving an Identity where the norm was; then freezes the model.

    Left as it is, and right as before: a norm without running statistics, a convolution or a norm with hooks or a
    ``forward`` of its own, a convolution that several modules hold. Raises RuntimeError in training mode.
    """
    training = [name or type(module).__name__ for name, module in model.named_modules() if module.training]
    if training:
        raise RuntimeError(
            f"fuse: {type(model).__name__} is in training mode, where a batch norm goes by its batch: call eval() first"
            f" ({len(training)} modules, the first {training[0]})"
        )
    model.unfreeze()
    holders = Counter(id(child) for module in model.modules() for child in module.children())
    for module in model.modules():
        for conv_name, norm_name in module.conv_norm_pairs():
            conv, norm = module._modules[conv_name], module._modules[norm_name]
            if holders[id(conv)] == 1 and _foldable(conv, norm):
                _fold(conv, norm)
                setattr(module, norm_name, Identity().eval())
    model.freeze()


def _foldable(conv: Module, norm: Module) -> bool:
    if type(conv) is not Conv2d or type(norm) is not BatchNorm2d or not (is_plain(conv) and is_plain(norm)):
        return False
    return norm.track_running_stats and norm.num_features == conv.out_channels


def _fold(conv: Module, norm: Module) -> None:
    """Weight and bias of the convolution replaced, computed in float64."""
    mean, variance = _wide(norm.running_mean), _wide(norm.running_var)
    scale = 1 / np.sqrt(variance + norm.eps)
    if norm.weight is not None:
        scale *= _wide(norm.weight)
    bias = -mean * scale
    if conv.bias is not None:
        bias += _wide(conv.bias) * scale
    if norm.bias is not None:
        bias += _wide(norm.bias)
    weight = _wide(conv.weight) * scale[:, None, None, None]
    conv.weight, conv.bias = _parameter(weight, conv.weight), _parameter(bias, conv.weight)


def _wide(tensor: Tensor) -> np.ndarray:
    return tensor.numpy().astype(np.float64)


def _parameter(array: np.ndarray, like: Tensor) -> Parameter:
    return Parameter(active_on(like.device).to_device(array.astype(like.dtype)))
