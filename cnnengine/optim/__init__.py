"""Optimizers, learning-rate schedules, clipping of gradients and averages of weights."""

from . import schedule
from .adam import Adam, AdamW
from .clip import clip_grad_norm_, clip_grad_value_
from .ema import EMA
from .groups import decay_groups
from .lamb import LAMB
from .muon import Muon, muon_groups
from .optimizer import Optimizer
from .rmsprop import RMSprop, RMSpropTF
from .schedule import cosine, one_cycle, warmup_cosine
from .sgd import SGD

__all__ = [
    "EMA",
    "LAMB",
    "SGD",
    "Adam",
    "AdamW",
    "Muon",
    "Optimizer",
    "RMSprop",
    "RMSpropTF",
    "clip_grad_norm_",
    "clip_grad_value_",
    "cosine",
    "decay_groups",
    "muon_groups",
    "one_cycle",
    "schedule",
    "warmup_cosine",
]
