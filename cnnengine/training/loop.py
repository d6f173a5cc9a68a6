"""The training loop: epochs of batches, evaluation behind each, a checkpoint that continues bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing, nullcontext
from math import prod

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

from .. import random
from ..autograd import no_grad
from ..backends.registry import use_backend
from ..data import ImageDataset, batch_count
from ..errors import DataError
from ..models import create
from ..models.registry import entry
from ..nn import Module
from ..tensor import Tensor
from .evaluation import EVALUATION_BATCH, LARGE, Evaluation, evaluate_batches
from .interrupt import Interrupted, StopSignals
from .recipe import learning_rate, make_optimizer, test_transform, training_transform
from .run import BEST, Checkpoint, Progress, RunFolder, first_fault
from .scalars import Scalars
from .settings import MONITORS, Settings
from .step import TrainingStep

REPORTED = 20  # batches between two numbers of the progress bar and of TensorBoard


class Trainer:
    """One run of ``settings`` on ``dataset`` into ``folder``; with ``resume`` it goes on from the folder's checkpoint.

    ``run()`` trains to the end; ``model`` then holds the weights, ``progress.history`` the epochs, ``labels`` and
    ``predictions`` the classes of the test images and those predicted. Raises DataError where the model does not take
    the images, Unsupported where the backend lacks the precision.
    """

    def __init__(self, settings: Settings, dataset: ImageDataset, folder: RunFolder, *, resume: bool = False) -> None:
        self.settings = settings
        self.dataset = dataset
        self.folder = folder
        self.progress = Progress()
        self.labels = self.predictions = np.empty(0, np.int64)
        self.batches = batch_count(len(dataset.train), settings.batch_size)  # of one epoch
        self.steps = batch_count(self.batches, settings.accumulate)  # of the optimizer, of one epoch
        with use_backend(settings.backend) as backend:
            self.device = backend.device
            random.manual_seed(settings.seed)
            classes = len(dataset.classes)
            self.model: Module = create(settings.model, num_classes=classes).to(self.device)
            self._large = prod(self._check_images()) > LARGE
            self.optimizer = make_optimizer(settings, self.model)
            self.step = TrainingStep(settings, self.model, self.optimizer, classes, backend)
            if resume:
                self._restore(folder.read_checkpoint())
                folder.remove_unfinished()
        self._saved = time.monotonic(), 0  # when the last checkpoint was written, and batches since

    def run(self, report: Callable[[str], object] = print) -> None:
        """Trains all epochs that are left; ``report`` gets a line for each. Raises Interrupted after Ctrl-C and after
        SIGTERM."""
        with (
            use_backend(self.settings.backend),
            StopSignals() as stop,
            Scalars(self.folder.path / "tensorboard", self._step_number, self.settings.tensorboard) as scalars,
        ):
            while self.progress.epoch < self.settings.epochs and not self.stopped_early:
                try:
                    self._epoch(stop, scalars)
                except Interrupted:
                    self.save()
                    raise
                if self.best_epoch == self.progress.epoch:
                    self._write_model(BEST)
                self.save()
                self.folder.write_history(self.progress.history)
                report(self._line())
            if not len(self.predictions):  # resumed when all was done
                result = self._evaluate(None)
                self.labels, self.predictions = result.labels, result.predictions

    @property
    def best_epoch(self) -> int:
        """The epoch with the best value of ``settings.monitor``, the first of equals; 0 before any."""
        values = [row[self.settings.monitor] for row in self.progress.history]
        known = [value for value in values if value == value]
        return values.index(MONITORS[self.settings.monitor](known)) + 1 if known else 0

    @property
    def stopped_early(self) -> bool:
        """Whether ``settings.patience`` epochs have gone by without a better value."""
        patience = self.settings.patience
        return 0 < patience <= self.progress.epoch - self.best_epoch

    def save(self) -> None:
        """Writes the checkpoint and the model."""
        self._write_checkpoint()
        self._write_model()

    def _write_checkpoint(self) -> None:
        state = self.optimizer.state_dict()
        ema = {} if self.step.ema is None else self.step.ema.state_dict()
        self.folder.write_checkpoint(
            Checkpoint(
                self.settings.as_dict(),
                self.progress,
                random.get_state(),
                {name: tensor.numpy() for name, tensor in self.model.state_dict().items()},
                {name: state[name] for name in self.optimizer.keeps},
                state.get("steps"),
                self.step.scaler.state_dict(),
                ema.get("averages", {}),
                ema.get("updates", 0),
            )
        )
        self._saved = time.monotonic(), 0

    def _write_model(self, name: str | None = None) -> None:
        description = {
            "model": self.settings.model,
            "data": self.dataset.name,
            "classes": self.dataset.classes,
            "mean": self.dataset.mean,
            "std": self.dataset.std,
        }
        with self._averaged():
            self.folder.write_model(self.model.state_dict(), description, name)

    def _restore(self, checkpoint: Checkpoint) -> None:
        try:
            self.model.load_state_dict(checkpoint.model)
            counted = {} if checkpoint.steps is None else {"steps": checkpoint.steps}
            self.optimizer.load_state_dict({**self.optimizer.state_dict(), **checkpoint.states, **counted})
            self.step.scaler.load_state_dict(checkpoint.scaler)
            if self.step.ema is not None:
                self.step.ema.load_state_dict({"averages": checkpoint.averages, "updates": checkpoint.updates})
            random.set_state(checkpoint.random)
        except (TypeError, ValueError) as error:
            raise DataError(f"{self.folder.checkpoint}: does not fit the model: {first_fault(error)}") from error
        self.progress = checkpoint.progress

    def _check_images(self) -> tuple[int, ...]:
        """The shape (1, H, W, C) of an image of the data set. Raises DataError where the model does not take it."""
        walk = self.dataset.test.batches(1, transform=test_transform(self.settings))
        shape = next(iter(walk))[0].shape
        if shape[1:] == entry(self.settings.model).image:
            return shape
        with no_grad():
            try:
                self.model.eval()(Tensor(np.zeros(shape, np.float32)).to(self.device))
            except ValueError as error:
                raise DataError(
                    f"{self.settings.model} is for images of {entry(self.settings.model).image}, those of"
                    f" {self.dataset.name} are {shape[1:]}: {first_fault(error)}"
                ) from error
        return shape

    def _epoch(self, stop: StopSignals, scalars: Scalars) -> None:
        progress, settings = self.progress, self.settings
        # the order and the random numbers depend on nothing but (seed, epoch, image): an interrupted epoch finds them
        walk = self.dataset.train.batches(
            settings.batch_size,
            epoch=progress.epoch,
            seed=settings.seed,
            start=progress.batch,
            shuffle=True,
            transform=training_transform(settings),
            workers=settings.workers,
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
        with bar, closing(walk) if isinstance(walk, Generator) else nullcontext():  # ends the workers
            for images, labels in bar:
                started = time.perf_counter()
                loss, correct = self._step(images, labels)
                progress.loss_sum += loss * len(labels)
                progress.correct += correct
                progress.seen += len(labels)
                progress.batch += 1
                self._count(time.perf_counter() - started)
                if progress.batch % REPORTED == 0:
                    loss, accuracy = progress.loss_sum / progress.seen, progress.correct / progress.seen
                    bar.set_postfix_str(f"loss {loss:.3f}, {100 * accuracy:.1f} %", refresh=False)
                    scalars.write(self._step_number, batch_loss=loss, lr=self._lr(progress.batch - 1))
                if self._at_a_step:
                    if stop.received is not None:
                        raise Interrupted(stop.received)
                    self._checkpoint_where_due()
        started = time.perf_counter()
        result = self._evaluate(stop)
        self.labels, self.predictions = result.labels, result.predictions
        self._count(time.perf_counter() - started)
        row = {
            "epoch": progress.epoch + 1,
            "lr": self._lr(progress.batch - 1),  # of its last batch
            "train_loss": progress.loss_sum / progress.seen,
            "train_accuracy": progress.correct / progress.seen,
            "test_loss": result.loss,
            "test_accuracy": result.accuracy,
            "test_top5": result.top5,
            "seconds": round(progress.epoch_seconds, 3),
        }
        self.progress = Progress(progress.epoch + 1, seconds=progress.seconds, history=[*progress.history, row])
        scalars.write(self._step_number, **{name: value for name, value in row.items() if name != "epoch"})

    @property
    def _at_a_step(self) -> bool:
        """Whether the optimizer's step is behind the last batch: only then is the state whole."""
        return self.progress.batch % self.settings.accumulate == 0 or self.progress.batch == self.batches

    @property
    def _step_number(self) -> int:
        """Steps of the optimizer so far."""
        return self.progress.epoch * self.steps + batch_count(self.progress.batch, self.settings.accumulate)

    def _checkpoint_where_due(self) -> None:
        settings, (when, before) = self.settings, self._saved
        batches = before + settings.accumulate
        self._saved = when, batches
        due = 0 < settings.checkpoint_every <= batches
        if due or 0 < settings.checkpoint_seconds <= time.monotonic() - when:
            self._write_checkpoint()

    def _step(self, images: np.ndarray, labels: np.ndarray) -> tuple[float, int]:
        """One batch, and behind the last of a group the optimizer's step; its mean loss and how many were right."""
        number, group = self.progress.batch, self.settings.accumulate
        share = 1.0
        if group > 1:
            first = number - number % group
            together = min((first + group) * self.settings.batch_size, len(self.dataset.train))
            share = len(labels) / (together - first * self.settings.batch_size)
        x = self.dataset.normalize(images)
        result = self.step.batch(x, labels, self.progress.epoch, number, share)
        if (number + 1) % group == 0 or number + 1 == self.batches:
            self.step.update(self._lr(number))
        return result

    def _lr(self, batch: int) -> float:
        """The learning rate of a batch of this epoch."""
        step = self.progress.epoch * self.steps + batch // self.settings.accumulate
        return learning_rate(self.settings, step, self.steps)

    def _evaluate(self, stop: StopSignals | None) -> Evaluation:
        walk = self.dataset.test.batches(
            self.settings.batch_size if self._large else EVALUATION_BATCH,
            transform=test_transform(self.settings),
            workers=self.settings.workers,
        )
        self.model.eval()
        with self._averaged():
            return evaluate_batches(
                self.model, walk, self.dataset.normalize, lambda: None if stop is None else stop.received
            )

    def _averaged(self) -> AbstractContextManager[None]:
        """Within the block the model has the averages of its weights, where they are kept."""
        return nullcontext() if self.step.ema is None else self.step.ema.applied()

    def _count(self, seconds: float) -> None:
        self.progress.seconds += seconds
        self.progress.epoch_seconds += seconds

    def _line(self) -> str:
        row = self.progress.history[-1]
        return (
            f"epoch {row['epoch']:2}/{self.settings.epochs}   loss {row['train_loss']:.4f}   train"
            f" {100 * row['train_accuracy']:6.2f} %   test {100 * row['test_accuracy']:6.2f} %   {row['seconds']:.1f} s"
        )
