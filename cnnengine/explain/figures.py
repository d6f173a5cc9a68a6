"""The pictures of the command ``cnnengine explain``: a map beside its image, the hierarchy of layers, filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageFilter

from ..data.dataset import Numbers
from ..nn import Module
from .layers import feature_maps, filters, stages
from .maximise import activation_maximisation
from .methods import METHODS
from .pictures import coloured, overlay, scaled, signed
from .sheet import Row, sheet

COLUMNS = 5  # pictures side by side, where several methods are shown
OUTSHINING = 1.0  # percent of the pixels that may outshine the rest in a map of single pixels
SOFT = 0.01  # of the longer side: how far such a map is smoothed before it is laid over its image


def shown(method: str, heat: np.ndarray) -> np.ndarray:
    """A map (H, W) of the method brought to [0, 1] to be looked at; what is below 0 speaks against the class and is
    0."""
    return scaled(np.maximum(heat, 0), OUTSHINING if METHODS[method].of_pixels else 0.0)


def over(method: str, picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The map over the picture (H, W, C); one of single pixels is smoothed, or nobody could see it there."""
    share = shown(method, heat)
    if METHODS[method].of_pixels and min(share.shape) * SOFT >= 1:
        bytes_ = Image.fromarray((255 * share).round().astype(np.uint8))
        share = np.asarray(bytes_.filter(ImageFilter.GaussianBlur(SOFT * max(share.shape))), np.float64) / 255
    return overlay(picture, share)


def explained(picture: np.ndarray, maps: Mapping[str, np.ndarray], heading: str, side: int = 224) -> Image.Image:
    """The picture (H, W, C) of bytes, the map (H, W), and one over the other; of several methods the maps over the
    picture, COLUMNS to a row, and each below the one it is of."""
    if len(maps) == 1:
        ((method, heat),) = maps.items()
        return sheet([Row("", [picture, coloured(shown(method, heat)), over(method, picture, heat)])], heading, side)
    empty = np.full(picture.shape[:2], 255, np.uint8)
    cells = [(picture, empty, "the image")]
    cells += [(over(name, picture, heat), coloured(shown(name, heat)), name) for name, heat in maps.items()]
    rows = []
    for start in range(0, len(cells), COLUMNS):
        upper, lower, names = zip(*cells[start : start + COLUMNS], strict=True)
        rows += [Row("", upper), Row("", lower, names)]
    return sheet(rows, heading, side)


def hierarchy(model: Module, x: np.ndarray, layers: Sequence[str] | None = None, columns: int = 8) -> Image.Image:
    """The feature maps of one image x (1, H, W, C) by layer, the first layer on top: of each those that vary most.

    ``layers`` None: the last of each size of map (``stages``). Each map goes from its least value, dark, to its
    largest. Raises ValueError for layers without feature maps of an image.
    """
    names = stages(model, x) if layers is None else list(layers)
    rows = []
    for name, maps in feature_maps(model, x, names).items():
        if maps.ndim != 3:
            raise ValueError(f"hierarchy: {name} makes no feature maps (P, Q, K) of an image, but {maps.shape}")
        chosen = np.argsort(-maps.std((0, 1)), kind="stable")[:columns]
        P, Q, K = maps.shape
        pictures = [coloured(scaled(maps[:, :, k])) for k in chosen]
        rows.append(Row(_title(name, f"{P} x {Q}, {K} maps"), pictures, [f"map {k}" for k in chosen]))
    return sheet(rows, "Feature maps by layer, each from its least (dark) to its largest value (bright)")


def filter_sheet(model: Module, layer: str | None = None, columns: int = 8) -> Image.Image:
    """The filters of a Conv2d (None: the first): of three channels in colour, of others the mean over the channels,
    blue below 0 and red above. Raises as ``filters``."""
    weight = filters(model, layer)
    K, R, S, C = weight.shape
    limit = float(np.abs(weight).max()) or 1.0
    if C == 3:
        pictures = [filter_ / (2 * limit) + 0.5 for filter_ in weight]
        how = f"grey is 0, in colour from {-limit:.2g} to {limit:.2g}"
    else:
        mean = weight.mean(3)
        pictures = list(signed(mean.reshape(K * R, S)).reshape(K, R, S, 3))
        how = f"blue below 0, red above, up to {np.abs(mean).max():.2g}" + (", mean over channels" if C > 1 else "")
    names = [f"filter {k}" for k in range(K)]
    rows = [Row("", pictures[i : i + columns], names[i : i + columns]) for i in range(0, K, columns)]
    return sheet(rows, f"{layer or 'First convolution'}: {K} filters {R} x {S} x {C}; {how}", 72)


def what_units_look_for(
    model: Module,
    x: np.ndarray,
    layers: Sequence[str] | None = None,
    *,
    units: Sequence[int] | None = None,
    columns: int = 6,
    size: tuple[int, int] | None = None,
    mean: Numbers = 0.5,
    std: Numbers = 0.5,
    steps: int = 128,
) -> Image.Image:
    """Activation maximisation by layer, the first on top: edges, then textures, then parts of things.

    ``layers`` None: of each size of feature maps the last that a module makes; ``units`` None: those that answer most
    to x (1, H, W, C), by their mean; ``size`` None: that of x. Other arguments as in ``activation_maximisation``.
    """
    names = stages(model, x, of_modules=True) if layers is None else list(layers)
    H, W = x.shape[1:3] if size is None else size
    rows = []
    for name, maps in feature_maps(model, x, names).items():
        answer = maps.reshape(-1, maps.shape[-1]).mean(0)
        chosen = np.argsort(-answer, kind="stable")[:columns].tolist() if units is None else list(units)
        pictures = activation_maximisation(model, name, chosen, (H, W, x.shape[3]), mean=mean, std=std, steps=steps)
        title = _title(name, f"{maps.shape[-1]} units")
        rows += [
            Row("" if i else title, list(pictures[i : i + columns]), [f"unit {k}" for k in chosen[i : i + columns]])
            for i in range(0, len(chosen), columns)
        ]
    return sheet(rows, "Activation maximisation: images, made from noise, that units answer to most", 112)


def _title(name: str, facts: str) -> str:
    """A layer's name, which may be broken behind a dot, and what is known of it."""
    return f"{name.replace('.', '. ')}\n{facts}"
