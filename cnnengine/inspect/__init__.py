"""Opens a kernel up without a GPU: source, machine code, registers, occupancy, roofline, counters (docs/inspect.md).

>>> import cnnengine.inspect
>>> found = cnnengine.inspect.inspect("conv2d", x=(8, 56, 56, 64), w=(64, 3, 3, 64), padding=1, arch="sm_90a")
>>> print(found.text())
"""

from .gpus import GPU, GPUS
from .inspection import Inspection, Kernel
from .inspector import inspect, inspect_kernel
from .occupancy import Occupancy, occupancy
from .roofline import Bound, bound

__all__ = [
    "GPU",
    "GPUS",
    "Bound",
    "Inspection",
    "Kernel",
    "Occupancy",
    "bound",
    "inspect",
    "inspect_kernel",
    "occupancy",
]
