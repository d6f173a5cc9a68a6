"""The flags of ``cnnengine train`` that decide how: each is the setting of that name."""

from __future__ import annotations

import argparse
from typing import Any

from ..training.settings import AUGMENTATIONS, MONITORS, OPTIMIZERS, PRECISIONS, SCHEDULES, Settings

USUAL = Settings()


def add(train: argparse.ArgumentParser) -> None:
    """Adds the flags; one that is not given is None."""
    how = train.add_argument_group("optimizer")
    how.add_argument("--optimizer", choices=OPTIMIZERS, help=f"default: {USUAL.optimizer}")
    _switch(how, "--nesterov", "momentum that looks ahead, of sgd")
    _switch(how, "--decay-vectors", "weight decay of biases and norms too (default)")
    how.add_argument("--clip-norm", type=float, metavar="X", help="largest norm of all gradients (default: any)")
    how.add_argument("--accumulate", type=int, metavar="N", help="batches for one step of the optimizer (default: 1)")
    how.add_argument("--precision", choices=PRECISIONS, help="of convolutions and products (default: float32)")
    how.add_argument("--ema", type=float, metavar="X", help="decay of an average of the weights, then evaluated")
    _switch(how, "--ema-warmup", "an average that forgets its first weights sooner")

    rate = train.add_argument_group("learning rate")
    rate.add_argument("--schedule", choices=SCHEDULES, help=f"from --lr on (default: {USUAL.schedule})")
    rate.add_argument("--warmup", type=float, metavar="EPOCHS", help="a linear rise before the schedule (default: 0)")
    rate.add_argument(
        "--milestones", type=_numbers, metavar="EPOCHS", help="of step one number, of multi_step several: 30,60,80"
    )
    rate.add_argument("--factor", type=float, metavar="X", help=f"of the falls (default: {USUAL.factor})")

    images = train.add_argument_group("images and labels")
    images.add_argument("--augment", type=_names, metavar="LIST", help=f"of {', '.join(AUGMENTATIONS)}")
    images.add_argument("--mixup", type=float, metavar="ALPHA", help="mix pairs of images (default: 0, none)")
    images.add_argument("--cutmix", type=float, metavar="ALPHA", help="exchange rectangles (default: 0, none)")
    images.add_argument("--label-smoothing", type=float, metavar="X", help="default: 0")
    images.add_argument("--size", type=int, metavar="PIXELS", help="of images of --data folder (default: the model's)")
    images.add_argument("--workers", type=int, metavar="N", help="processes that read images (default: 0, this one)")

    when = train.add_argument_group("checkpoints and reports")
    when.add_argument("--checkpoint-every", type=int, metavar="BATCHES", help="beside each epoch's (default: none)")
    when.add_argument("--checkpoint-seconds", type=float, metavar="X", help="as often as that too (default: not)")
    when.add_argument("--monitor", choices=tuple(MONITORS), help=f"what is best (default: {USUAL.monitor})")
    when.add_argument("--patience", type=int, metavar="EPOCHS", help="end after so many without a better value")
    _switch(when, "--tensorboard", "write TensorBoard's event files into the run folder")


def _switch(group: Any, name: str, text: str) -> None:
    group.add_argument(name, action=argparse.BooleanOptionalAction, help=text)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _names(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)
