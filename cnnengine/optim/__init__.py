"""Optimizers and learning-rate schedules."""

from .optimizer import Optimizer
from .schedule import cosine
from .sgd import SGD

__all__ = ["SGD", "Optimizer", "cosine"]
