"""Three of scikit-image's photographs as EfficientNet-Lite0 sees them, and where in them its answer is.

The boxes were chosen by looking at the photographs, before any map was: the cat's eyes and nose, the opening of the cup
with the espresso, the tripod from its head down.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnengine.models import registry

from .conftest import SHARED

CLASSES = {"chelsea": "tiger cat", "coffee": "espresso", "camera": "tripod"}
BOXES = {  # top, left, bottom, right, of 224 x 224
    "chelsea": (57, 33, 210, 212),
    "coffee": (0, 31, 118, 176),
    "camera": (86, 105, 224, 180),
}


def photograph(name: str) -> np.ndarray:
    """The (224, 224, 3) uint8 crop, from scikit-image or the reference outputs; the test is skipped without both."""
    try:
        import skimage.data
    except ImportError:
        return _from_reference(name)
    preprocessing = registry.entry("efficientnet_lite0").preprocessing
    assert preprocessing is not None
    return preprocessing(Image.fromarray(getattr(skimage.data, name)()).convert("RGB"))


def normalised(picture: np.ndarray) -> np.ndarray:
    preprocessing = registry.entry("efficientnet_lite0").preprocessing
    assert preprocessing is not None
    return preprocessing.normalize(picture[np.newaxis])


def _from_reference(name: str) -> np.ndarray:
    path = SHARED / "golden" / "effnet_lite0_small.npz"
    if not path.is_file():
        pytest.skip("the photographs are scikit-image's, which is not installed (pip install scikit-image)")
    golden = np.load(path)
    rows = {Path(str(file)).stem: i for i, file in enumerate(golden["names"])}
    picture: np.ndarray = golden["input_u8"][rows[name]]
    return picture
