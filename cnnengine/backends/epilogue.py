"""What a verb is given beside arrays: the epilogue of a pass over memory, and a weight in a kernel's own order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

Array = Any  # numpy.ndarray or cupy.ndarray


class Epilogue(NamedTuple):
    """What follows a convolution or product on its way to memory, or is a pass of its own (``apply_epilogue``):
    y = activation((y + bias) * scale + shift + residual).

    ``bias``, ``scale`` and ``shift`` are (K,), one value an output channel; ``residual`` has y's shape; None is absent.
    """

    bias: Array | None = None
    scale: Array | None = None
    shift: Array | None = None
    residual: Array | None = None
    activation: str = "identity"
    parameter: float = 0.0  # the activation's


IDENTITY = Epilogue()


@dataclass(frozen=True, slots=True, eq=False)
class PackedWeight:
    """A convolution weight in the order a backend's kernel reads it, for one shape but any N. ``w`` must not change."""

    w: Array  # (K, R, S, C/groups), as the user holds it
    packed: Array  # backend-private
    backend: str
    algorithm: str
