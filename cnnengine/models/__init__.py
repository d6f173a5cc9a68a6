"""Networks, built from ``nn``."""

from .lenet5 import lenet5
from .registry import create, names

__all__ = ["create", "lenet5", "names"]
