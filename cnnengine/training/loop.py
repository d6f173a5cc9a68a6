"""The training loop: epochs of batches, evaluation behind each, a checkpoint that continues bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

from .. import functional as F
from .. import random
from ..autograd import no_grad
from ..backends.registry import use_backend
from ..data import Dataset, batch_count, batches
from ..errors import DataError
from ..models import create
from ..nn import Module
from ..optim import SGD, cosine
from ..tensor import Tensor
from .interrupt import CtrlC
from .run import Checkpoint, Progress, RunFolder, first_fault
from .settings import Settings

EVALUATION_BATCH = 500  # images


class Interrupted(Exception):
    """Ctrl-C ended the training; the run folder holds a checkpoint."""


class Trainer:
    """One run of ``settings`` on ``dataset`` into ``folder``; with ``resume`` it goes on from the folder's checkpoint.

    ``run()`` trains to the end; ``model`` then holds the weights, ``progress.history`` the epochs, ``predictions`` the
    classes predicted for the test images.
    """

    def __init__(self, settings: Settings, dataset: Dataset, folder: RunFolder, *, resume: bool = False) -> None:
        self.settings = settings
        self.dataset = dataset
        self.folder = folder
        self.progress = Progress()
        self.predictions = np.empty(0, np.int64)
        self.batches = batch_count(len(dataset.train_labels), settings.batch_size)  # of one epoch
        with use_backend(settings.backend) as backend:
            self.device = backend.device
            random.manual_seed(settings.seed)
            self.model: Module = create(settings.model, num_classes=len(dataset.classes)).to(self.device)
            self.optimizer = SGD(self.model.parameters(), settings.lr, settings.momentum, settings.weight_decay)
            if resume:
                self._restore(folder.read_checkpoint())

    def run(self, report: Callable[[str], object] = print) -> None:
        """Trains all epochs that are left; ``report`` gets a line for each. Raises Interrupted after Ctrl-C."""
        with use_backend(self.settings.backend), CtrlC() as ctrl_c:
            while self.progress.epoch < self.settings.epochs:
                try:
                    self._epoch(ctrl_c)
                except Interrupted:
                    self.save()
                    raise
                self.save()
                self.folder.write_history(self.progress.history)
                report(self._line())
            if not len(self.predictions):  # resumed when all was done
                self.predictions = self._evaluate(None)[2]

    def save(self) -> None:
        """Writes the checkpoint and the model."""
        state = self.model.state_dict()
        self.folder.write_checkpoint(
            Checkpoint(
                self.settings.as_dict(),
                self.progress,
                random.get_state(),
                {name: tensor.numpy() for name, tensor in state.items()},
                self.optimizer.state_dict()["velocity"],
            )
        )
        self.folder.write_model(
            state,
            {
                "model": self.settings.model,
                "data": self.dataset.name,
                "classes": self.dataset.classes,
                "mean": self.dataset.mean,
                "std": self.dataset.std,
            },
        )

    def _restore(self, checkpoint: Checkpoint) -> None:
        try:
            self.model.load_state_dict(checkpoint.model)
            self.optimizer.load_state_dict({**self.optimizer.state_dict(), "velocity": checkpoint.velocity})
            random.set_state(checkpoint.random)
        except (TypeError, ValueError) as error:
            raise DataError(f"{self.folder.checkpoint}: does not fit the model: {first_fault(error)}") from error
        self.progress = checkpoint.progress

    def _epoch(self, ctrl_c: CtrlC) -> None:
        progress, settings, dataset = self.progress, self.settings, self.dataset
        # the order depends on nothing but (seed, epoch), so that an interrupted epoch finds it again
        order = np.random.default_rng((settings.seed, progress.epoch))
        walk = batches(
            dataset.train_images,
            dataset.train_labels,
            settings.batch_size,
            shuffle=True,
            rng=order,
            start=progress.batch,
        )
        self.model.train()
        bar = tqdm(
            walk,
            f"epoch {progress.epoch + 1}/{settings.epochs}",
            self.batches,
            initial=progress.batch,
            unit="batch",
            leave=False,
            disable=None,
        )
        with bar:
            for images, labels in bar:
                started = time.perf_counter()
                loss, correct = self._step(images, labels)
                progress.loss_sum += loss * len(labels)
                progress.correct += correct
                progress.seen += len(labels)
                progress.batch += 1
                self._count(time.perf_counter() - started)
                if progress.batch % 20 == 0:
                    loss, accuracy = progress.loss_sum / progress.seen, progress.correct / progress.seen
                    bar.set_postfix_str(f"loss {loss:.3f}, {100 * accuracy:.1f} %", refresh=False)
                if ctrl_c.pressed:
                    raise Interrupted
        started = time.perf_counter()
        test_loss, test_accuracy, self.predictions = self._evaluate(ctrl_c)
        self._count(time.perf_counter() - started)
        row = {
            "epoch": progress.epoch + 1,
            "lr": self._lr(progress.batch - 1),  # of its last batch
            "train_loss": progress.loss_sum / progress.seen,
            "train_accuracy": progress.correct / progress.seen,
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
            "seconds": round(progress.epoch_seconds, 3),
        }
        self.progress = Progress(progress.epoch + 1, seconds=progress.seconds, history=[*progress.history, row])

    def _step(self, images: np.ndarray, labels: np.ndarray) -> tuple[float, int]:
        """One batch; its mean loss and how many were right."""
        self.optimizer.lr = self._lr(self.progress.batch)
        x = Tensor(self.dataset.normalize(images)).to(self.device)
        logits = self.model(x)
        loss = F.cross_entropy(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item(), int((logits.numpy().argmax(1) == labels).sum())

    def _lr(self, batch: int) -> float:
        """The learning rate of a batch of this epoch."""
        step = self.progress.epoch * self.batches + batch
        return cosine(self.settings.lr, step, self.settings.epochs * self.batches)

    def _evaluate(self, ctrl_c: CtrlC | None) -> tuple[float, float, np.ndarray]:
        self.model.eval()
        dataset = self.dataset

        def stop() -> bool:
            return ctrl_c is not None and ctrl_c.pressed

        return evaluate(self.model, dataset, dataset.test_images, dataset.test_labels, stop)

    def _count(self, seconds: float) -> None:
        self.progress.seconds += seconds
        self.progress.epoch_seconds += seconds

    def _line(self) -> str:
        row = self.progress.history[-1]
        return (
            f"epoch {row['epoch']:2}/{self.settings.epochs}   loss {row['train_loss']:.4f}   train"
            f" {100 * row['train_accuracy']:6.2f} %   test {100 * row['test_accuracy']:6.2f} %   {row['seconds']:.1f} s"
        )


def evaluate(
    model: Module, dataset: Dataset, images: np.ndarray, labels: np.ndarray, stop: Callable[[], bool] = lambda: False
) -> tuple[float, float, np.ndarray]:
    """Mean loss, accuracy in [0, 1], and the predicted classes (N,) of uint8 images (N, H, W, C).

    Runs on the active backend of the model's device, in the model's mode. Raises Interrupted where ``stop()`` is true
    between two batches.
    """
    device = next(model.parameters()).device
    losses, predicted = 0.0, []
    with no_grad():
        for x, y in batches(images, labels, EVALUATION_BATCH):
            logits = model(Tensor(dataset.normalize(x)).to(device))
            losses += F.cross_entropy(logits, y, reduction="sum").item()
            predicted.append(logits.numpy().argmax(1))
            if stop():
                raise Interrupted
    classes = np.concatenate(predicted)
    return losses / len(labels), float((classes == labels).mean()), classes
