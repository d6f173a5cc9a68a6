"""A convolution, a normalisation, a residual and an activation, in as few passes over memory as they allow."""

from __future__ import annotations

from .. import functional as F
from ..functional.activation import DEFAULT_PARAMETERS, activate
from ..tensor import Tensor
from .activation import ELU, GELU, Hardsigmoid, Hardswish, LeakyReLU, ReLU, ReLU6, Sigmoid, SiLU, Tanh
from .conv2d import Conv2d
from .identity import Identity
from .module import Module, is_plain
from .norm import BatchNorm2d

KINDS: dict[type, str] = {
    ReLU: "relu",
    ReLU6: "relu6",
    SiLU: "silu",
    Sigmoid: "sigmoid",
    Tanh: "tanh",
    Hardswish: "hardswish",
    Hardsigmoid: "hardsigmoid",
    Identity: "identity",
}


def activation_kind(module: Module) -> str | None:
    """The contract's name of what an activation module computes; None where the module is no activation, has hooks or
    a ``forward`` of its own, or a slope or scale that is not the default."""
    if not is_plain(module):
        return None
    if type(module) is GELU:
        return "gelu" if module.approximate == "none" else "gelu_tanh"
    if type(module) is LeakyReLU:
        return "leaky_relu" if module.negative_slope == DEFAULT_PARAMETERS["leaky_relu"] else None
    if type(module) is ELU:
        return "elu" if module.alpha == DEFAULT_PARAMETERS["elu"] else None
    return KINDS.get(type(module))


def conv_norm(
    conv: Module, norm: Module, x: Tensor, activation: str = "identity", residual: Tensor | None = None
) -> Tensor:
    """activation(norm(conv(x)) + residual), which a block's ``forward`` calls for a convolution and its norm.

    With a BatchNorm2d the norm does all that follows the convolution, and takes its statistics along in training; with
    an Identity, which ``fuse()`` leaves in a norm's place, the convolution does it on the way to memory. Any other
    modules, and those with hooks, are called one after the other. ``activation`` is one of the contract's ACTIVATIONS.
    """
    if type(norm) is BatchNorm2d and is_plain(norm) and isinstance(conv, Conv2d):
        return norm.forward(x, activation, residual, conv)
    if type(norm) is Identity and is_plain(norm) and type(conv) is Conv2d and is_plain(conv):
        return conv.forward(x, activation, residual)
    y = norm(conv(x))
    if residual is not None:
        y = F.add(y, residual)
    return y if activation == "identity" else activate(activation, y, DEFAULT_PARAMETERS.get(activation, 0.0))
