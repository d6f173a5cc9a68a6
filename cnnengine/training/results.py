"""What a finished run leaves beside its weights: metrics.json, epochs.csv, confusion.csv and the pictures."""

from __future__ import annotations

import platform
from importlib.util import find_spec
from typing import Any

import numpy as np

from .evaluation import confusion_matrix
from .loop import Trainer
from .run import BEST


def metrics(trainer: Trainer) -> dict[str, Any]:
    """What metrics.json holds: accuracies in [0, 1], seconds of training and evaluation, all settings, versions."""
    from .. import __version__

    history = trainer.progress.history
    last = history[-1]
    return {
        "test_accuracy": last["test_accuracy"],
        "test_loss": last["test_loss"],
        "test_top5": last["test_top5"],
        "best_test_accuracy": max(row["test_accuracy"] for row in history),
        "best_epoch": trainer.best_epoch,
        "epochs_done": trainer.progress.epoch,
        "train_accuracy": last["train_accuracy"],
        "train_loss": last["train_loss"],
        "seconds": round(trainer.progress.seconds, 3),
        **trainer.settings.as_dict(),
        "train_images": len(trainer.dataset.train),
        "test_images": len(trainer.dataset.test),
        "parameters": sum(p.size for p in trainer.model.parameters()),
        "versions": {"cnnengine": __version__, "numpy": np.__version__, "python": platform.python_version()},
        "machine": f"{platform.system()} {platform.machine()}",
    }


def write_results(trainer: Trainer) -> list[str]:
    """Writes metrics.json, epochs.csv, confusion.csv and, where matplotlib is, pictures; returns lines for the user."""
    folder = trainer.folder
    folder.write_history(trainer.progress.history)
    folder.write_json("metrics.json", metrics(trainer))
    classes = trainer.dataset.classes
    folder.write_confusion(confusion_matrix(trainer.labels, trainer.predictions, len(classes)), classes)
    written = ["metrics.json", "epochs.csv", "confusion.csv", "model.safetensors", BEST, "checkpoint.safetensors"]
    if find_spec("matplotlib") is None:
        return [
            f"{folder.path}: {', '.join(written)}",
            "no pictures: matplotlib is not installed (pip install 'cnnengine[plot]')",
        ]
    from .pictures import draw

    return [f"{folder.path}: {', '.join([*written, *draw(trainer)])}"]
