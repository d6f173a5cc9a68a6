"""Layers: modules with PyTorch's names over NHWC arrays."""

from . import init
from .activation import (
    ELU,
    GELU,
    Hardsigmoid,
    Hardswish,
    LeakyReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Tanh,
)
from .attention import Attention
from .container import Sequential
from .conv2d import Conv2d
from .conv2d_norm_activation import Conv2dNormActivation
from .conv_norm import conv_norm
from .conv_transpose2d import ConvTranspose2d
from .dropout import Dropout
from .flatten import Flatten
from .hooks import RemovableHandle
from .identity import Identity
from .linear import Linear
from .local_response_norm import LocalResponseNorm
from .loss import CrossEntropyLoss
from .module import Module
from .norm import BatchNorm1d, BatchNorm2d, GroupNorm, LayerNorm
from .parameter import Parameter
from .pool2d import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, GlobalAvgPool2d, GlobalMaxPool2d, MaxPool2d
from .squeeze_excitation import SqueezeExcitation
from .stochastic_depth import StochasticDepth
from .upsample import Upsample

__all__ = [
    "ELU",
    "GELU",
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool2d",
    "Attention",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv2d",
    "Conv2dNormActivation",
    "ConvTranspose2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "GlobalMaxPool2d",
    "GroupNorm",
    "Hardsigmoid",
    "Hardswish",
    "Identity",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LocalResponseNorm",
    "MaxPool2d",
    "Module",
    "Parameter",
    "ReLU",
    "ReLU6",
    "RemovableHandle",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SqueezeExcitation",
    "StochasticDepth",
    "Tanh",
    "Upsample",
    "conv_norm",
    "init",
]
