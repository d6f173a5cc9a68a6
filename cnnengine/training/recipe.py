"""From settings to what they name: the optimizer, the learning rate of a step, the transforms of the images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..data import transforms
from ..data.preprocessing import Preprocessing, default_preprocessing
from ..models.registry import entry
from ..nn import Module
from ..optim import LAMB, SGD, Adam, AdamW, Muon, Optimizer, RMSprop, RMSpropTF, decay_groups, muon_groups, schedule
from .settings import Settings

BESIDE_MUON = 0.05  # the rate of AdamW's part beside that of Muon's, whose steps all have the same size
Transform = Callable[[Any, np.random.Generator], Any]


def make_optimizer(settings: Settings, model: Module) -> Optimizer:
    """The optimizer of the settings over the model's parameters."""
    lr, momentum, decay = settings.lr, settings.momentum, settings.weight_decay
    if settings.optimizer == "muon":
        groups = muon_groups(model, lr=lr * BESIDE_MUON)
        if not settings.decay_vectors:
            groups = [part for group in groups for part in _without_vectors(group)]
        return Muon(groups, lr, decay, momentum, nesterov=momentum > 0)
    parameters: Any = list(model.parameters()) if settings.decay_vectors else decay_groups(model, decay)
    if settings.optimizer == "sgd":
        return SGD(parameters, lr, momentum, decay, settings.nesterov)
    if settings.optimizer in ("rmsprop", "rmsprop_tf"):
        make = RMSprop if settings.optimizer == "rmsprop" else RMSpropTF
        eps = 1e-8 if settings.optimizer == "rmsprop" else 1e-3  # of the recipes of MobileNet and EfficientNet
        return make(parameters, lr, alpha=0.9, eps=eps, weight_decay=decay, momentum=momentum)
    kinds: dict[str, type[Adam] | type[LAMB]] = {"adam": Adam, "adamw": AdamW, "lamb": LAMB}
    return kinds[settings.optimizer](parameters, lr, weight_decay=decay)


def _without_vectors(group: dict[str, Any]) -> list[dict[str, Any]]:
    """A group, and its vectors apart without weight decay."""
    weights = [p for p in group["params"] if p.ndim >= 2]
    vectors = [p for p in group["params"] if p.ndim < 2]
    parts = [{**group, "params": weights}, {**group, "params": vectors, "weight_decay": 0.0}]
    return [part for part in parts if part["params"]]


def learning_rate(settings: Settings, step: int, epoch: int) -> float:
    """The rate of optimizer step ``step``, the first being 0, where an epoch has ``epoch`` of them."""
    lr, steps, warm = settings.lr, settings.epochs * epoch, round(settings.warmup * epoch)
    if step < warm:
        return schedule.warmup(lr, step, warm)
    step, steps = step - warm, steps - warm
    match settings.schedule:
        case "cosine":
            return schedule.cosine(lr, step, steps)
        case "one_cycle":
            return schedule.one_cycle(lr, step, steps) if steps > 1 else lr
        case "step":
            return schedule.step_decay(lr, step, max(1, round(settings.milestones[0] * epoch)), settings.factor)
        case "multi_step":  # counted from the first step, whatever the warm-up
            falls = [round(milestone * epoch) - warm for milestone in settings.milestones]
            return schedule.multi_step(lr, step, falls, settings.factor)
        case "exponential":
            return schedule.exponential(lr, step, settings.factor ** (1 / steps))
        case "polynomial":
            return schedule.polynomial(lr, step, steps)
        case _:
            return lr


def training_transform(settings: Settings) -> Transform | None:
    """What happens to each training image; None: nothing."""
    size = image_size(settings)
    made: dict[str, Callable[[], Transform]] = {
        "crop": transforms.RandomCrop,
        "flip": transforms.HorizontalFlip,
        "affine": transforms.RandomAffine,
        "resized_crop": lambda: transforms.RandomResizedCrop(size or entry(settings.model).image[:2]),
        "randaugment": transforms.RandAugment,
        "trivialaugment": transforms.TrivialAugment,
        "color": lambda: transforms.ColorJitter(0.4, 0.4, 0.4),
        "darken": transforms.RandomDarken,
        "erasing": lambda: transforms.RandomErasing(p=0.25),
    }
    chosen = [make() for name, make in made.items() if name in settings.augment]
    if size and "resized_crop" not in settings.augment:  # files are of all sizes
        chosen.insert(0, _to_one_size(settings))
    return transforms.Compose(*chosen) if chosen else None


def test_transform(settings: Settings) -> Transform | None:
    """What happens to each test image: nothing, but that files are cut to one size."""
    return _to_one_size(settings) if image_size(settings) else None


def image_size(settings: Settings) -> int:
    """The side that images from files are cut to; 0: they have one size already."""
    return (settings.size or entry(settings.model).image[0]) if settings.data == "folder" else 0


def _to_one_size(settings: Settings) -> Preprocessing:
    """The network's own way to cut a picture, or for another size the usual one."""
    size, known = image_size(settings), entry(settings.model).preprocessing
    return known if known is not None and known.size == size else default_preprocessing((size, size, 3))
