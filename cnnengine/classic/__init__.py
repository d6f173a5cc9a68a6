"""How pictures were classified before networks: edges, HOG, LBP or visual words, and a linear support vector machine.

Needs scikit-image, scikit-learn and SciPy: ``pip install 'cnnengine[classic]'``.
"""

from .bag import BagOfFeatures
from .disturbances import DISTURBANCES, disturbed, warp
from .edges import Edges, canny, sobel
from .hog import HOG
from .lbp import LBP
from .model import ClassicModel, Features, Pixels, create, names

__all__ = [
    "DISTURBANCES",
    "HOG",
    "LBP",
    "BagOfFeatures",
    "ClassicModel",
    "Edges",
    "Features",
    "Pixels",
    "canny",
    "create",
    "disturbed",
    "names",
    "sobel",
    "warp",
]
