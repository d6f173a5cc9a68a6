"""Networks, built from ``nn``."""

from .coatnet import coatnet_0, coatnet_0_rw
from .lenet5 import lenet5
from .mobilevit import mobilevit_s
from .registry import create, names
from .vit import vit_base, vit_small, vit_tiny

__all__ = [
    "coatnet_0",
    "coatnet_0_rw",
    "create",
    "lenet5",
    "mobilevit_s",
    "names",
    "vit_base",
    "vit_small",
    "vit_tiny",
]
