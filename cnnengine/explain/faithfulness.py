"""Whether an explanation says what the network goes by: deletion, insertion, and their areas under the curve."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from ..nn import Module
from ._network import in_batches, likeliest, one_image, scores, undisturbed

REGIONS = 7  # of the longer side, by default
PARTS = 10  # of a side, whose means are what insertion begins with


def deletion(
    model: Module, x: Any, heat: np.ndarray, target: int | None = None, *, region: int | None = None, value: float = 0.0
) -> np.ndarray:
    """(regions + 1,): the class's probability after more and more of x (1, H, W, C) became ``value``, the hottest
    regions first. A faithful map makes it fall at once.

    ``heat`` is (H, W); a region is ``region`` pixels square (None: 7 to a side), as hot as its mean. Raises ValueError
    for another shape and for a heat that is not finite. Petsiuk, Das and Saenko, "RISE", arXiv 1806.07421, section 4.3;
    regions in place of pixels as in Samek et al., "Evaluating the visualization of what a deep neural network has
    learned", arXiv 1509.06321: single pixels taken away at random are noise, which alone misleads a network.
    """
    image = one_image("deletion", x)
    return _curve("deletion", model, image, np.full_like(image, value), heat, target, region)


def insertion(
    model: Module, x: Any, heat: np.ndarray, target: int | None = None, *, region: int | None = None
) -> np.ndarray:
    """(regions + 1,): the class's probability while the hottest regions first are put into x when it is blurred. A
    faithful map makes it rise at once. Arguments, errors and source as in ``deletion``."""
    image = one_image("insertion", x)
    return _curve("insertion", model, blurred(image), image, heat, target, region, of=image)


def area(curve: np.ndarray) -> float:
    """The area under a curve over [0, 1], by trapezia: of a deletion the less the better, of an insertion the more."""
    return float((curve[1:] + curve[:-1]).mean() / 2) if len(curve) > 1 else float(curve[0])


def displaced(heat: np.ndarray, seed: int) -> np.ndarray:
    """The map (H, W) shifted by a random distance, round the border: what a faithful one has to be better than.

    It is as coherent as the map itself, and about other places. An order of independent random regions is no such
    measure: it leaves holes all over the image, which disturb a network more than one hole that is as large.
    """
    rng = np.random.default_rng(seed)
    return np.roll(heat, tuple(int(rng.integers(side)) for side in heat.shape), (0, 1))


def blurred(image: np.ndarray) -> np.ndarray:
    """(1, H, W, C) without detail: the means of 10 x 10 equal parts, with smooth passages between them"""
    H, W = image.shape[1:3]
    small, whole = (min(PARTS, W), min(PARTS, H)), (W, H)
    planes = []
    for c in range(image.shape[3]):
        means = Image.fromarray(image[0, :, :, c].astype(np.float32)).resize(small, Image.Resampling.BOX)
        planes.append(np.asarray(means.resize(whole, Image.Resampling.BICUBIC)))
    return np.stack(planes, -1)[None].astype(image.dtype)


def _curve(
    what: str,
    model: Module,
    before: np.ndarray,
    behind: np.ndarray,
    heat: np.ndarray,
    target: int | None,
    region: int | None,
    of: np.ndarray | None = None,
) -> np.ndarray:
    _, H, W, _ = before.shape
    if heat.shape != (H, W) or not np.isfinite(heat).all():
        raise ValueError(f"{what}: heat must be finite and ({H}, {W}) as the image is, received {heat.shape}")
    side = max(1, round(max(H, W) / REGIONS)) if region is None else region
    if side < 1:
        raise ValueError(f"{what}: region must be at least 1, received {region}")
    rank = ranks(heat, side)  # (H, W): how many regions go before that of the pixel
    count = int(rank.max()) + 1

    def changed(first: int, end: int) -> np.ndarray:
        gone = rank[None] < np.arange(first, end)[:, None, None]
        return np.where(gone[..., None], behind, before)

    with undisturbed(model):
        target = likeliest(what, model, before if of is None else of, target)
        return np.concatenate([scores(what, model, x, target) for x in in_batches(changed, count + 1)])


def ranks(heat: np.ndarray, side: int) -> np.ndarray:
    """(H, W): the place of each pixel's region in the order of their mean heat, the hottest 0; of equal ones the upper
    left first. Regions at the right and lower border may be smaller."""
    H, W = heat.shape
    row, column = np.arange(H) // side, np.arange(W) // side
    label = row[:, None] * (column[-1] + 1) + column
    mean = np.bincount(label.ravel(), heat.ravel()) / np.bincount(label.ravel())
    place: np.ndarray = np.empty(len(mean), int)
    place[np.argsort(-mean, kind="stable")] = np.arange(len(mean))
    found: np.ndarray = place[label]
    return found
