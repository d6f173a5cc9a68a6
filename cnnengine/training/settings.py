"""Everything that decides the outcome of a training run."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, fields
from typing import Any

from .. import data, models
from .._arguments import is_int
from ..backends.registry import NAMES

DATASETS = ("digits", "mnist", "fashion_mnist")
EPOCHS = {"digits": 10, "mnist": 5, "fashion_mnist": 10}  # the default of each data set
LOCATION = "root"  # where the data lies does not change the outcome: a resumed run may find it elsewhere


@dataclass(frozen=True)
class Settings:
    """One run: the same settings give the same weights, bit for bit, on the same machine.

    The learning rate falls from ``lr`` to 0 along half a cosine. The defaults bring LeNet-5 past 99 % on MNIST in five
    epochs. Raises ValueError naming the setting that cannot be.
    """

    model: str = "lenet5"
    data: str = "digits"
    root: str | None = None  # folder of the data sets; None: CNNENGINE_DATA or "data"
    epochs: int = 0  # 0: the data set's default
    batch_size: int = 64
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    seed: int = 0
    backend: str = "native"

    def __post_init__(self) -> None:
        for name, known in (("model", models.names()), ("data", DATASETS), ("backend", NAMES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, received {getattr(self, name)!r}")
        if not self.epochs:
            object.__setattr__(self, "epochs", EPOCHS[self.data])
        for name in ("epochs", "batch_size"):
            if not is_int(getattr(self, name)) or getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, received {getattr(self, name)!r}")
        for name in ("lr", "momentum", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a finite number, 0 or above, received {getattr(self, name)!r}")
        if not is_int(self.seed) or not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must lie in [0, 2**64), received {self.seed!r}")

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON can hold them."""
        return asdict(self)

    def conflicts(self, given: dict[str, Any]) -> list[str]:
        """What differs between these settings and the given ones, one phrase for each."""
        names = {f.name for f in fields(self)} - {LOCATION}
        return [
            f"{name} is {getattr(self, name)!r} there, not {value!r}"
            for name, value in given.items()
            if name in names and getattr(self, name) != value
        ]


def load_dataset(name: str, root: str | os.PathLike[str] | None = None) -> data.Dataset:
    """The data set of that name; what is missing of a downloadable one is downloaded. Raises DataError."""
    if name == "digits":
        return data.digits()
    return (data.mnist if name == "mnist" else data.fashion_mnist)(root, download=True)
