"""Everything that decides the outcome of a training run."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, fields
from typing import Any

from .. import data, models
from .._arguments import is_int
from ..backends.registry import NAMES

DATASETS = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "folder")
EPOCHS = {"digits": 10, "mnist": 5}  # the default of each data set
OTHER_EPOCHS = 10
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "rmsprop_tf", "lamb", "muon")
SCHEDULES = ("cosine", "one_cycle", "step", "multi_step", "exponential", "polynomial", "constant")
PRECISIONS = ("float32", "float16", "bfloat16")
AUGMENTATIONS = (
    "crop", "flip", "affine", "resized_crop", "randaugment", "trivialaugment", "color", "darken", "erasing"
)  # fmt: skip
MONITORS = {"test_accuracy": max, "test_top5": max, "test_loss": min}  # and which of two values is the better one
# what may differ where a run goes on, since it does not change the outcome
FREE = ("root", "workers", "checkpoint_every", "checkpoint_seconds", "tensorboard")


@dataclass(frozen=True)
class Settings:
    """One run: the same settings give the same weights, bit for bit, on the same machine.

    The defaults bring LeNet-5 past 99 % on MNIST in five epochs. docs/training.md says what each setting does. Raises
    ValueError naming the setting that cannot be.
    """

    model: str = "lenet5"
    data: str = "digits"
    root: str | None = None  # folder of the data sets; None: CNNENGINE_DATA or "data"
    epochs: int = 0  # 0: the data set's default
    batch_size: int = 64
    lr: float = 0.05
    momentum: float = 0.9  # of sgd, rmsprop and muon
    weight_decay: float = 5e-4
    seed: int = 0
    backend: str = "native"
    optimizer: str = "sgd"
    nesterov: bool = False  # of sgd
    decay_vectors: bool = True  # whether weight decay holds for biases and norms too
    schedule: str = "cosine"
    warmup: float = 0.0  # epochs of a linear rise before the schedule
    milestones: tuple[float, ...] = ()  # epochs: of step the distance of two falls, of multi_step where they are
    factor: float = 0.1  # of a fall of step and multi_step; of exponential over the whole run
    label_smoothing: float = 0.0
    mixup: float = 0.0  # alpha; 0: none. With both, every batch takes one of them at random
    cutmix: float = 0.0
    augment: tuple[str, ...] = ()  # of AUGMENTATIONS, in that order
    size: int = 0  # the side of the images of "folder"; 0: the network's own
    clip_norm: float = 0.0  # of all gradients together; 0: none
    accumulate: int = 1  # batches for one step of the optimizer
    precision: str = "float32"
    ema: float = 0.0  # decay of an average of the weights, which is evaluated and saved then; 0: none
    ema_warmup: bool = False
    monitor: str = "test_accuracy"  # what the best model and early stopping go by
    patience: int = 0  # epochs without a better value after which training ends; 0: never
    workers: int = 0  # processes that read and augment images; 0: this one
    checkpoint_every: int = 0  # batches; 0: each epoch alone
    checkpoint_seconds: float = 0.0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in ("milestones", "augment"):  # JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, known in (
            ("model", models.names()),
            ("data", DATASETS),
            ("backend", NAMES),
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
            ("monitor", tuple(MONITORS)),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, received {getattr(self, name)!r}")
        if not self.epochs:
            object.__setattr__(self, "epochs", EPOCHS.get(self.data, OTHER_EPOCHS))
        for name in ("epochs", "batch_size", "accumulate"):
            if not is_int(getattr(self, name)) or getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, received {getattr(self, name)!r}")
        for name in ("size", "patience", "workers", "checkpoint_every"):
            if not is_int(getattr(self, name)) or getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, received {getattr(self, name)!r}")
        for name in (
            "lr", "momentum", "weight_decay", "warmup", "mixup", "cutmix", "clip_norm", "checkpoint_seconds"
        ):  # fmt: skip
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a finite number, 0 or above, received {getattr(self, name)!r}")
        for name in ("ema", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), received {getattr(self, name)!r}")
        if not 0 < self.factor <= 1:
            raise ValueError(f"factor must lie in (0, 1], received {self.factor!r}")
        if not is_int(self.seed) or not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must lie in [0, 2**64), received {self.seed!r}")
        self._check_together()

    def _check_together(self) -> None:
        unknown = [name for name in self.augment if name not in AUGMENTATIONS]
        if unknown:
            raise ValueError(f"augment must be of {', '.join(AUGMENTATIONS)}, received {unknown[0]!r}")
        if self.nesterov and self.optimizer != "sgd":
            raise ValueError(f"nesterov is for sgd, the optimizer is {self.optimizer}")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        if self.schedule == "one_cycle" and self.warmup:
            raise ValueError("warmup must be 0 with one_cycle, which begins with a rise of its own")
        if self.warmup >= self.epochs:
            raise ValueError(f"warmup must be less than the {self.epochs} epochs, received {self.warmup!r}")
        if not all(0 < epoch < math.inf for epoch in self.milestones):
            raise ValueError(f"milestones must be epochs above 0, received {self.milestones!r}")
        if self.schedule == "step" and len(self.milestones) != 1:
            raise ValueError(f"milestones must be one number for the schedule step, received {self.milestones!r}")
        if self.schedule == "multi_step" and not self.milestones:
            raise ValueError("milestones must be given for the schedule multi_step")
        if self.milestones and self.schedule not in ("step", "multi_step"):
            raise ValueError(f"milestones are for the schedules step and multi_step, not for {self.schedule}")

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON can hold them."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    def conflicts(self, given: dict[str, Any]) -> list[str]:
        """What differs between these settings and the given ones, one phrase for each."""
        names = {f.name for f in fields(self)} - set(FREE)
        return [
            f"{name} is {getattr(self, name)!r} there, not {value!r}"
            for name, value in given.items()
            if name in names and getattr(self, name) != value
        ]


def load_dataset(name: str, root: str | os.PathLike[str] | None = None) -> data.ImageDataset:
    """The data set of that name; what is missing of a downloadable one is downloaded. "folder" is ``root`` itself, with
    ``train/CLASS/*.jpg`` and ``val/CLASS/*.jpg`` in it. Raises DataError."""
    if name == "digits":
        return data.digits()
    if name in ("mnist", "fashion_mnist"):
        return (data.mnist if name == "mnist" else data.fashion_mnist)(root, download=True)
    if name == "folder":
        return data.image_folders(data.sets.root_folder(root))
    return (data.cifar10 if name == "cifar10" else data.cifar100)(root)
