"""The operations on tensors: one file each, check -> forward -> backward, in terms of the backend's verbs."""

from ._common import algorithms
from ._guided import guided_relu
from .activation import (
    elu,
    gelu,
    hardsigmoid,
    hardswish,
    leaky_relu,
    relu,
    relu6,
    sigmoid,
    silu,
    tanh,
)
from .attention import attention_weights, multi_head_attention, scaled_dot_product_attention
from .binary import add, div, exp, log, mul, neg, pow, sqrt, sub
from .conv2d import conv2d, conv2d_norm_act, conv2d_prepare
from .conv2d_batch_norm import conv2d_batch_norm
from .conv_transpose2d import conv_transpose2d
from .drop_path import drop_path
from .dropout import dropout
from .gemm import linear, matmul
from .interpolate import interpolate
from .layout import cast, concatenate, flatten, from_nchw, index, permute, reshape, to, to_nchw
from .local_response_norm import local_response_norm
from .norm import batch_norm, group_norm, instance_norm, layer_norm
from .normalize_images import normalize_images
from .pool2d import (
    adaptive_avg_pool2d,
    adaptive_max_pool2d,
    avg_pool2d,
    global_avg_pool2d,
    global_max_pool2d,
    max_pool2d,
)
from .reduce import max, mean, sum
from .softmax_cross_entropy import cross_entropy, log_softmax, softmax
from .split import pad, split, stack

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "add",
    "algorithms",
    "attention_weights",
    "avg_pool2d",
    "batch_norm",
    "cast",
    "concatenate",
    "conv2d",
    "conv2d_batch_norm",
    "conv2d_norm_act",
    "conv2d_prepare",
    "conv_transpose2d",
    "cross_entropy",
    "div",
    "drop_path",
    "dropout",
    "elu",
    "exp",
    "flatten",
    "from_nchw",
    "gelu",
    "global_avg_pool2d",
    "global_max_pool2d",
    "group_norm",
    "guided_relu",
    "hardsigmoid",
    "hardswish",
    "index",
    "instance_norm",
    "interpolate",
    "layer_norm",
    "leaky_relu",
    "linear",
    "local_response_norm",
    "log",
    "log_softmax",
    "matmul",
    "max",
    "max_pool2d",
    "mean",
    "mul",
    "multi_head_attention",
    "neg",
    "normalize_images",
    "pad",
    "permute",
    "pow",
    "relu",
    "relu6",
    "reshape",
    "scaled_dot_product_attention",
    "sigmoid",
    "silu",
    "softmax",
    "split",
    "sqrt",
    "stack",
    "sub",
    "sum",
    "tanh",
    "to",
    "to_nchw",
]
