"""A run drawn: the loss of each epoch, and accuracy by the number of labels. Needs matplotlib, the extra "plot"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .label_curves import Curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLES = {  # colours that colour-blind readers tell apart (Okabe, Ito 2008)
    "pretrained, probe": ("#0072b2", "o-"),
    "pretrained, k-NN": ("#0072b2", "o:"),
    "untrained, probe": ("#999999", "s-"),
    "untrained, k-NN": ("#999999", "s:"),
    "from scratch": ("#d55e00", "D-"),
}


def draw(history: Sequence[dict[str, float]], curves: Curves, title: str) -> Figure:
    """The figure. Raises ImportError."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure((10.5, 3.8), dpi=130, layout="constrained")
    both: Any = figure.subplots(1, 2)
    left, right = both
    left.plot([row["epoch"] for row in history], [row["loss"] for row in history], "o-", color="#0072b2", markersize=3)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set_xlabel("epoch without labels")
    left.set_ylabel("loss")
    for how in dict.fromkeys(row.how for row in curves.rows):
        rows = sorted((row.labels, 100 * row.accuracy) for row in curves.rows if row.how == how)
        colour, style = STYLES[how]
        right.plot(*zip(*rows, strict=True), style, color=colour, markersize=5, label=how)
    right.set_xscale("log")
    right.set_xlabel("labels")
    right.set_ylabel("test accuracy in %")
    labels = sorted({row.labels for row in curves.rows})
    right.set_xticks(labels, [f"{count:,}" for count in labels])
    right.minorticks_off()
    right.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    for axes in both:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, size=10)
    return figure
