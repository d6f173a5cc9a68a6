"""cnnengine: a convolutional-network engine whose kernels are written by hand and can be read.

>>> import cnnengine as cnn
>>> import cnnengine.functional as F
>>> y = F.conv2d(cnn.Tensor(images), w, b, stride=2, padding=1)  # images (N, H, W, C), w (K, R, S, C)
"""

from ._paths import CHECKOUT, PACKAGE

if not (PACKAGE / "kernels").is_dir() and CHECKOUT:
    __path__.append(str(CHECKOUT))  # in a checkout kernels/ lies beside the package; installed, inside it

from . import backends, functional, random
from .autograd import no_grad
from .backends import allow_winograd, set_backend, use_backend, winograd_allowed
from .backends.native import empty_cache, get_num_threads, memory_stats, set_memory_limit, set_num_threads
from .errors import BackendUnavailable, DataError, KernelError, Unsupported
from .functional import algorithms, from_nchw, to_nchw
from .random import manual_seed
from .serialize import load, load_torch, save
from .tensor import Tensor
from .tuning import autotune

from .graphs import graph  # isort: skip  (built on the names above)
from . import amp, cuda, data, models, nn, optim  # isort: skip
from . import explain, onnx  # isort: skip  (built on the names above)

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailable",
    "DataError",
    "KernelError",
    "Tensor",
    "Unsupported",
    "algorithms",
    "allow_winograd",
    "amp",
    "autotune",
    "backends",
    "cuda",
    "data",
    "empty_cache",
    "explain",
    "from_nchw",
    "functional",
    "get_num_threads",
    "graph",
    "load",
    "load_torch",
    "manual_seed",
    "memory_stats",
    "models",
    "nn",
    "no_grad",
    "onnx",
    "optim",
    "random",
    "save",
    "set_backend",
    "set_memory_limit",
    "set_num_threads",
    "to_nchw",
    "use_backend",
    "winograd_allowed",
]
