"""Training without labels: epochs of batches, a checkpoint behind each epoch that continues bit for bit."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

from .. import models, random
from ..backends.registry import use_backend
from ..data import Dataset
from ..errors import DataError
from ..optim import Adam, schedule
from ..serialize import load_with_metadata, save
from ..training import Interrupted
from ..training.interrupt import StopSignals
from .masked import MaskedAutoencoder
from .tasks import Rotation, SimCLR, Task

METHODS = ("simclr", "rotation", "masked")
METADATA = "cnnengine"
CHECKPOINT, ENCODER = "pretraining.safetensors", "encoder.safetensors"


@dataclass(frozen=True, slots=True)
class Pretraining:
    """What decides the outcome: the same settings give the same weights, bit for bit, on the same machine.

    ``method`` of METHODS; ``model`` a network's name ("masked" has a transformer of its own and takes none). Adam at
    ``lr``, which falls to 0 along a cosine behind ``warmup`` epochs. ``temperature`` is SimCLR's. Raises ValueError.
    """

    method: str = "simclr"
    model: str = "resnet20"
    epochs: int = 20
    batch_size: int = 256
    lr: float = 1e-3
    weight_decay: float = 1e-6
    warmup: float = 1.0
    temperature: float = 0.5
    seed: int = 0
    backend: str = "native"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, received {self.method!r}")
        if self.method != "masked" and self.model not in models.names():
            raise ValueError(f"model must be one of {', '.join(models.names())}, received {self.model!r}")
        for name, least in (("epochs", 1), ("batch_size", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, received {getattr(self, name)}")
        for name in ("lr", "weight_decay", "warmup"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a finite number, 0 or above, received {getattr(self, name)}")
        if self.warmup >= self.epochs:
            raise ValueError(f"warmup must be less than the {self.epochs} epochs, received {self.warmup}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be above 0, received {self.temperature}")


def make_task(settings: Pretraining, dataset: Dataset) -> Task:
    """The task, freshly initialised from the settings' seed. Raises ValueError for images it does not take."""
    random.manual_seed(settings.seed)
    if settings.method == "simclr":
        return SimCLR(settings.model, dataset, settings.temperature)
    if settings.method == "rotation":
        return Rotation(settings.model, dataset)
    return MaskedAutoencoder(dataset)


def pretrain(
    settings: Pretraining,
    dataset: Dataset,
    folder: Path,
    *,
    resume: bool = False,
    workers: int = 0,
    report: Callable[[str], object] = print,
) -> tuple[Task, list[dict[str, float]]]:
    """The trained task, and a row for each epoch: its mean loss, and seconds. ``folder`` gets ``encoder.safetensors``
    and a checkpoint behind each epoch, from which ``resume`` goes on. Labels are never looked at.

    Raises DataError for images that the task does not take and checkpoints of something else, Interrupted after Ctrl-C
    and SIGTERM: what was done of the epoch is done again then.
    """
    with use_backend(settings.backend) as backend, StopSignals() as stop:
        try:
            task = make_task(settings, dataset).to(backend.device)
        except ValueError as error:
            raise DataError(f"{dataset.name}: {error}") from error
        optimizer = Adam(task.parameters(), settings.lr, weight_decay=settings.weight_decay)
        known = asdict(settings) | {"data": dataset.name, "images": len(dataset.train)}
        history = _restore(folder / CHECKPOINT, known, task, optimizer) if resume else []
        batches = len(dataset.train) // settings.batch_size
        if not batches:
            raise DataError(f"{dataset.name}: {len(dataset.train)} images make no batch of {settings.batch_size}")
        task.train()
        for epoch in range(len(history), settings.epochs):
            began, total = time.monotonic(), 0.0
            walk = dataset.train.batches(
                settings.batch_size,
                epoch=epoch,
                seed=settings.seed,
                shuffle=True,
                drop_last=True,
                transform=task.transform,
                workers=workers,
            )
            bar = tqdm(walk, f"epoch {epoch + 1}/{settings.epochs}", batches, unit="batch", leave=False, disable=None)
            try:
                for number, (images, _) in enumerate(bar):
                    total += _step(settings, task, optimizer, dataset, images, epoch, number, batches)
                    if stop.received is not None:
                        raise Interrupted(stop.received)
            finally:
                bar.close()
                if hasattr(walk, "close"):
                    walk.close()  # ends the workers
            row = {"epoch": epoch + 1, "loss": total / batches, "seconds": round(time.monotonic() - began, 1)}
            history.append(row)
            _write(folder, known, task, optimizer, history)
            report(f"epoch {epoch + 1:3}/{settings.epochs}   loss {row['loss']:.4f}   {row['seconds']:.1f} s")
    return task, history


def _step(
    settings: Pretraining,
    task: Task,
    optimizer: Adam,
    dataset: Dataset,
    images: np.ndarray,
    epoch: int,
    number: int,
    batches: int,
) -> float:
    """One batch; its loss. The random numbers belong to the batch."""
    loss = task.loss(images, dataset.normalize, np.random.default_rng((settings.seed, epoch, number)))
    optimizer.zero_grad()
    loss.backward()
    warm = round(settings.warmup * batches)
    optimizer.lr = schedule.warmup_cosine(settings.lr, epoch * batches + number, settings.epochs * batches, warm)
    optimizer.step()
    return loss.item()


def _write(folder: Path, known: dict[str, Any], task: Task, optimizer: Adam, history: list[dict[str, float]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    state = optimizer.state_dict()
    tensors: dict[str, Any] = {f"task.{name}": value for name, value in task.state_dict().items()}
    for name in optimizer.keeps:
        tensors |= {f"{name}.{i}": array for i, array in enumerate(state[name]) if array is not None}
    facts = {"settings": known, "history": history, "steps": state["steps"], "random": random.get_state()}
    save(task.encoder.state_dict(), folder / ENCODER, metadata={METADATA: json.dumps({"settings": known})})
    save(tensors, folder / CHECKPOINT, metadata={METADATA: json.dumps(facts)})


def _restore(path: Path, known: dict[str, Any], task: Task, optimizer: Adam) -> list[dict[str, float]]:
    """The epochs that are done, whose weights and states are set; none where there is no checkpoint yet."""
    if not path.exists():
        return []
    arrays, metadata = load_with_metadata(path)
    try:
        facts = json.loads(metadata[METADATA])
        differ = [
            f"{k} is {facts['settings'].get(k)!r} there, not {v!r}"
            for k, v in known.items()
            if facts["settings"].get(k) != v
        ]
        if differ:
            raise DataError(f"{path}: another run: {'; '.join(differ)}")
        history: list[dict[str, float]] = facts["history"]
        task.load_state_dict({n.removeprefix("task."): a for n, a in arrays.items() if n.startswith("task.")})
        count = len(optimizer.parameters)
        states = {name: [arrays.get(f"{name}.{i}") for i in range(count)] for name in optimizer.keeps}
        optimizer.load_state_dict({**optimizer.state_dict(), **states, "steps": facts["steps"]})
        random.set_state(facts["random"])
    except DataError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a checkpoint of this version of cnnengine: {error!r}") from error
    return history
