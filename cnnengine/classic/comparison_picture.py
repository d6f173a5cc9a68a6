"""A comparison drawn: a line for each test set, with examples of it, and a mark for each method's accuracy. Needs
matplotlib, the extra "plot"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .comparison_file import Comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe, Ito: Color universal design (2008): told apart by colour-blind readers, and by their marks in print
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#333333")
MARKS = "osD^vP*X"
EXAMPLES = 4  # images of each test set


def draw(comparison: Comparison, test_sets: Mapping[str, np.ndarray], labels: np.ndarray) -> Figure:
    """The figure; examples are the first images of different classes. Raises ImportError."""
    from matplotlib.figure import Figure

    shown = np.sort(np.unique(labels, return_index=True)[1])[:EXAMPLES]
    height = 0.46 * len(test_sets) + 1.5
    figure = Figure((9.5, height), dpi=130)
    left, bottom, top = 0.34, 0.75 / height, 1 - 0.75 / height
    axes: Any = figure.add_axes((left, bottom, 0.97 - left, top - bottom))
    row_height = (top - bottom) / len(test_sets)
    for row, (name, images) in enumerate(test_sets.items()):
        y = len(test_sets) - 1 - row
        axes.axhline(y - 0.5, color="#dddddd", linewidth=0.8, zorder=1)
        base = bottom + y * row_height
        figure.text(0.135, base + row_height / 2, name, ha="right", va="center", size=9)
        strip = np.concatenate([framed(images[i]) for i in shown], axis=1)
        picture: Any = figure.add_axes((0.145, base + 0.04 * row_height, left - 0.16, 0.92 * row_height))
        picture.imshow(strip, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        picture.set_axis_off()
    count = len(comparison.methods)
    for number, method in enumerate(comparison.methods):  # one below the other, so that none hides another
        axes.plot(
            [100 * comparison.accuracy(method, name) for name in test_sets],
            len(test_sets) - 1 - np.arange(len(test_sets)) - (number - (count - 1) / 2) * 0.6 / count,
            MARKS[number % len(MARKS)],
            color=COLOURS[number % len(COLOURS)],
            markersize=7,
            markeredgecolor="white",
            markeredgewidth=0.6,
            label=method,
            zorder=2,
        )
    axes.set_ylim(-0.5, len(test_sets) - 0.5)
    axes.set_xlim(0, 101)
    axes.set_yticks([])
    axes.set_xlabel("accuracy in %", size=9)
    axes.tick_params(labelsize=8)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    facts = comparison.facts
    figure.suptitle(
        f"{facts['data']}: trained on {facts['train_images']:,} clean images, tested on {facts['test_images']:,} of"
        " each kind",
        size=10,
        y=1 - 0.16 / height,
    )
    figure.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 1 - 0.26 / height),
        ncols=4,
        frameon=False,
        fontsize=9,
        handletextpad=0.2,
    )
    return figure


def framed(image: np.ndarray) -> np.ndarray:
    """(H + 2, W + 2[, 3]) with a white frame of a pixel; grey without its last axis."""
    image = image[..., 0] if image.shape[2] == 1 else image
    frame = ((1, 1), (1, 1), (0, 0))[: image.ndim]
    return np.pad(image, frame, constant_values=255)
