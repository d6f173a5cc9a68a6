"""The folder of one run: weights, checkpoint, metrics and pictures, each written beside its place and renamed."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .._arguments import is_int
from ..errors import DataError
from ..serialize import load_with_metadata, save, write_atomically

METADATA = "cnnengine"  # the key of our entry in a safetensors file's header
BEST = "best.safetensors"
RESULTS = (
    "metrics.json",
    "epochs.csv",
    "confusion.csv",
    "curves.png",
    "confusion.png",
    "filters.png",
    "feature_maps.png",
)
COLUMNS = ("epoch", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "test_top5", "seconds")


@dataclass(slots=True)
class Progress:
    """How far a run is: ``epoch`` epochs are done, and ``batch`` batches of the next with their running sums."""

    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0  # over the images of this epoch so far
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0  # of training and evaluation, however often it was resumed
    epoch_seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)  # a row of COLUMNS for each epoch done

    def __post_init__(self) -> None:
        counts = (self.epoch, self.batch, self.correct, self.seen)
        if not all(is_int(count) and count >= 0 for count in counts):
            raise ValueError(f"epoch, batch, correct and seen must be counts, received {counts}")
        sums = (self.loss_sum, self.seconds, self.epoch_seconds)
        if not all(isinstance(value, int | float) for value in sums):
            raise ValueError(f"loss_sum, seconds and epoch_seconds must be numbers, received {sums}")
        if any(list(row) != list(COLUMNS) for row in self.history) or len(self.history) != self.epoch:
            raise ValueError(f"history must hold a row of {', '.join(COLUMNS)} for each of {self.epoch} epochs")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything a run needs to go on bit for bit."""

    settings: dict[str, Any]
    progress: Progress
    random: dict[str, Any]
    model: dict[str, np.ndarray]
    states: dict[str, list[np.ndarray | None]]  # of the optimizer, one of each parameter
    steps: list[int] | None  # of each parameter, where the optimizer counts them
    scaler: dict[str, Any]
    averages: dict[str, np.ndarray]  # of the weights, empty without
    updates: int  # of the averages


def first_fault(error: Exception) -> str:
    """The first line of a list of faults, such as ``load_state_dict`` raises, and how many more there are."""
    first, *others = str(error).splitlines()[1:] or [str(error)]
    return first.strip() + (f", and {len(others)} more like it" if others else "")


def _below(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


class RunFolder:
    """Paths and files of a run. The folder is made by ``prepare`` or on the first write."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoint = self.path / "checkpoint.safetensors"
        self.model = self.path / "model.safetensors"

    @property
    def holds_a_run(self) -> bool:
        """Whether a run was begun here."""
        return self.checkpoint.is_file() or self.model.is_file()

    def prepare(self) -> None:
        """Makes the folder and removes what a former run concluded, so that it is not taken for this run's. Raises
        OSError, before anything is trained, where the folder cannot be written."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / "metrics.json", b"{}\n")
        for name in (*RESULTS, BEST):
            (self.path / name).unlink(missing_ok=True)
        self.remove_unfinished()

    def remove_unfinished(self) -> None:
        """Removes what a killed process had begun to write beside the files of the folder."""
        for name in (*RESULTS, BEST, self.model.name, self.checkpoint.name):
            for path in self.path.glob(f".{name}.*"):
                path.unlink(missing_ok=True)

    def write(self, name: str, content: bytes) -> Path:
        """Writes one file of the folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / name, content)
        return self.path / name

    def write_json(self, name: str, value: Any) -> Path:
        """JSON as every reader takes it: what is not finite is null."""
        return self.write(name, (json.dumps(_finite(value), indent=2, allow_nan=False) + "\n").encode())

    def write_history(self, history: list[dict[str, float]]) -> Path:
        """epochs.csv: a row for each epoch."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        return self.write("epochs.csv", text.getvalue().encode())

    def write_confusion(self, matrix: np.ndarray, classes: Sequence[str]) -> Path:
        """confusion.csv: a row for each true class, how many images of it were taken for each class."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["true", *classes])
        writer.writerows([name, *map(int, row)] for name, row in zip(classes, matrix, strict=True))
        return self.write("confusion.csv", text.getvalue().encode())

    def write_model(self, state: dict[str, Any], description: dict[str, Any], name: str | None = None) -> None:
        """model.safetensors, or the file of that name: the weights, described for ``cnnengine predict``."""
        self.path.mkdir(parents=True, exist_ok=True)
        save(state, self.path / name if name else self.model, metadata={METADATA: json.dumps(description)})

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """checkpoint.safetensors: the weights as "model.NAME", the optimizer's states as "STATE.NUMBER", averages as
        "average.NAME", the rest JSON."""
        self.path.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, Any] = {f"model.{name}": value for name, value in checkpoint.model.items()}
        for state, arrays in checkpoint.states.items():
            tensors |= {f"optimizer.{state}.{i}": array for i, array in enumerate(arrays) if array is not None}
        tensors |= {f"average.{name}": value for name, value in checkpoint.averages.items()}
        progress = {name: getattr(checkpoint.progress, name) for name in Progress.__slots__}
        facts: dict[str, Any] = {"settings": checkpoint.settings, "progress": progress, "random": checkpoint.random}
        facts |= {"states": {state: len(arrays) for state, arrays in checkpoint.states.items()}}
        facts |= {"steps": checkpoint.steps, "scaler": checkpoint.scaler, "updates": checkpoint.updates}
        save(tensors, self.checkpoint, metadata={METADATA: json.dumps(facts)})

    def read_checkpoint(self) -> Checkpoint:
        """Raises DataError where there is none, or none that is whole."""
        if not self.checkpoint.is_file():
            raise DataError(f"{self.path}: there is no checkpoint.safetensors here, so nothing to resume")
        arrays, metadata = load_with_metadata(self.checkpoint)
        try:
            facts = json.loads(metadata[METADATA])
            return Checkpoint(
                facts["settings"],
                Progress(**facts["progress"]),
                facts["random"],
                _below("model.", arrays),
                {s: [arrays.get(f"optimizer.{s}.{i}") for i in range(n)] for s, n in facts["states"].items()},
                facts["steps"],
                facts["scaler"],
                _below("average.", arrays),
                facts["updates"],
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self.checkpoint}: not a checkpoint of this version of cnnengine: {error!r}") from error
