"""Optimizers and learning-rate schedules."""

from .adam import Adam, AdamW
from .optimizer import Optimizer
from .schedule import cosine
from .sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "cosine"]
