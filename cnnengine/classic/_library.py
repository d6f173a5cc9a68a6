"""scikit-image, scikit-learn and SciPy, which are an extra: imported where they are needed, named where missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def library(module: str) -> Any:
    """The module of that name, such as ``skimage.feature``. Raises ImportError that says how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            "cnnengine.classic needs scikit-image, scikit-learn and SciPy"
            f" ({error}); install them with: pip install 'cnnengine[classic]'"
        ) from error
