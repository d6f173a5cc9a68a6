"""The steps that benchmarks of whole networks time: one of training, one of inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import cnnengine as cnn
import cnnengine.functional as F

LEARNING_RATE, MOMENTUM = 1e-3, 0.9
Step = Callable[[], Any]


def training_step(model: Any, images: cnn.Tensor, labels: Any, graph: bool = False) -> Step:
    """Forward, cross-entropy, backward, SGD with momentum; returns the loss. ``labels``: int64 (N,) on the images'
    device. ``graph``: as one, to which images and labels are given anew each time."""
    model.train()
    optimizer = cnn.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)

    def step(images: cnn.Tensor, labels: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    run = cnn.graph(step) if graph else step
    return lambda: run(images, labels)


def inference_step(model: Any, images: cnn.Tensor) -> Step:
    """The logits of a network prepared by ``for_inference``."""

    def step() -> Any:
        with cnn.no_grad():
            return model(images)

    return step


def for_inference(model: Any) -> Any:
    """In evaluation mode, batch norms folded into their convolutions, weights in the kernels' own order."""
    return model.eval().fuse() if hasattr(model, "fuse") else model.eval().freeze()


def images_and_labels(batch: int, image: tuple[int, int, int], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images (N, H, W, C), standard normal float32, and labels in [0, classes); the same for everyone."""
    generator = np.random.default_rng(0)
    return generator.standard_normal((batch, *image), np.float32), generator.integers(0, classes, batch)
