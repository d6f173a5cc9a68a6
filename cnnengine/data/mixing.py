"""Mixup and CutMix: a batch mixed with itself in another order, and its targets with it."""

from __future__ import annotations

import numpy as np


def mixup(
    images: np.ndarray, labels: np.ndarray, classes: int, alpha: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Every image times t plus another of the batch times 1 - t, and the targets likewise; t from Beta(alpha, alpha).

    ``images`` float32 (N, H, W, C), ``labels`` (N,) in [0, classes); gives new images and targets (N, classes) float32.
    Raises ValueError for alpha not above 0 and TypeError for images of bytes, which do not hold what lies between.
    Zhang et al.: mixup: beyond empirical risk minimization (2018).
    """
    share, order = _draw("mixup", images, alpha, rng)
    t = images.dtype.type(share)
    return t * images + (1 - t) * images[order], _targets(labels, order, classes, share)


def cutmix(
    images: np.ndarray, labels: np.ndarray, classes: int, alpha: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A rectangle of every image replaced by the same rectangle of another of the batch; targets by the areas.

    The rectangle has the image's proportions and a share 1 - t of its area, t from Beta(alpha, alpha), before it is cut
    at the image's edges; its centre is anywhere. Arguments, result and errors as for ``mixup``. Yun et al.: CutMix
    (2019), appendix A.
    """
    share, order = _draw("cutmix", images, alpha, rng)
    _, height, width, _ = images.shape
    side = (1 - share) ** 0.5
    rows, columns = (_cut(n, side, rng) for n in (height, width))
    mixed = images.copy()
    mixed[:, rows, columns] = images[order][:, rows, columns]
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return mixed, _targets(labels, order, classes, 1 - area / (height * width))


def _draw(operation: str, images: np.ndarray, alpha: float, rng: np.random.Generator) -> tuple[float, np.ndarray]:
    if not alpha > 0:
        raise ValueError(f"{operation}: alpha must be above 0, received {alpha}")
    if images.dtype.kind != "f" or images.ndim != 4:
        raise TypeError(
            f"{operation}: images must be floating-point (N, H, W, C), received {images.dtype} {images.shape}"
        )
    return float(rng.beta(alpha, alpha)), rng.permutation(len(images))


def _cut(n: int, side: float, rng: np.random.Generator) -> slice:
    """A piece of ``side * n`` pixels around a random centre, cut at 0 and n."""
    length, centre = int(side * n), int(rng.integers(n))
    return slice(max(centre - length // 2, 0), min(centre + length - length // 2, n))


def _targets(labels: np.ndarray, order: np.ndarray, classes: int, share: float) -> np.ndarray:
    targets = np.zeros((len(labels), classes), np.float32)
    rows = np.arange(len(labels))
    targets[rows, labels] = share
    targets[rows, labels[order]] += np.float32(1 - share)
    return targets
