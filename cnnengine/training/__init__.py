"""What the ``cnnengine`` command does: train a model into a run folder, draw its pictures, use it on images."""

from .loop import Interrupted, Trainer, evaluate
from .predict import classify, from_network, from_run
from .run import RunFolder
from .settings import Settings, load_dataset

__all__ = [
    "Interrupted",
    "RunFolder",
    "Settings",
    "Trainer",
    "classify",
    "evaluate",
    "from_network",
    "from_run",
    "load_dataset",
]
