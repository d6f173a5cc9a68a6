"""One batch of training: forward, loss, backward, and at the end of a group of batches the optimizer's step."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np

from .. import functional as F
from ..amp import GradScaler, autocast
from ..backends.contract import Backend
from ..data import cutmix, mixup
from ..errors import Unsupported
from ..nn import Module
from ..optim import EMA, Optimizer, clip_grad_norm_
from ..tensor import Tensor
from .settings import Settings

MIXING = 1  # beside (seed, epoch, batch): the stream of random numbers that mix images


class TrainingStep:
    """The model's state and how it changes. Raises Unsupported where the backend lacks the precision."""

    def __init__(self, settings: Settings, model: Module, optimizer: Optimizer, classes: int, backend: Backend) -> None:
        if settings.precision not in backend.dtypes:
            raise Unsupported(
                f"precision {settings.precision}: backend {backend.name!r} computes in"
                f" {', '.join(sorted(backend.dtypes))}"
            )
        self.settings = settings
        self.model = model
        self.optimizer = optimizer
        self.classes = classes
        self.device = backend.device
        self._ratios = [group["lr"] / settings.lr if settings.lr else 1.0 for group in optimizer.param_groups]
        self.scaler = GradScaler(enabled=settings.precision == "float16")
        self.ema = EMA(model, settings.ema, warmup=settings.ema_warmup) if settings.ema else None

    def batch(self, images: np.ndarray, labels: np.ndarray, epoch: int, number: int, share: float) -> tuple[float, int]:
        """Adds the gradients of one normalised batch, ``number`` of its epoch; ``share`` is its part of the images of
        the optimizer's step. Its mean loss, and how many were right."""
        targets: np.ndarray = labels
        if self.settings.mixup or self.settings.cutmix:
            images, targets = self._mixed(images, labels, (self.settings.seed, epoch, number, MIXING))
            labels = targets.argmax(1)
        x = Tensor(images).to(self.device)
        with autocast(self.settings.precision) if self.settings.precision != "float32" else nullcontext():
            logits = self.model(x)
            loss = F.cross_entropy(logits, targets, label_smoothing=self.settings.label_smoothing)
        part = loss if share == 1 else loss * share
        self.scaler.scale(part).backward()
        return loss.item(), int((logits.numpy().argmax(1) == labels).sum())

    def update(self, lr: float) -> None:
        """The optimizer's step with the gradients there are, which are forgotten then."""
        for group, ratio in zip(self.optimizer.param_groups, self._ratios, strict=True):
            group["lr"] = lr * ratio
        if self.settings.clip_norm:
            self.scaler.unscale_(self.optimizer)
            clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        made = self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None and made:
            self.ema.update()
        self.optimizer.zero_grad()

    def _mixed(self, images: np.ndarray, labels: np.ndarray, stream: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(stream)
        both = ((mixup, self.settings.mixup), (cutmix, self.settings.cutmix))
        chosen = [(mix, alpha) for mix, alpha in both if alpha]
        mix, alpha = chosen[int(rng.integers(len(chosen)))]
        return mix(images, labels, self.classes, alpha, rng)
