"""The textbook example of a convolution: a vertical-edge filter slides over a 5 x 5 picture, step by step.

    python examples/feature_map.py [--out feature_map.png]

The filter has 1 in its left column, 0 in the middle, -1 on the right. It answers to brightness that changes from left
to right: below 0 where it grows, above 0 where it falls. Prints every step and checks the whole map with F.conv2d.
"""

import argparse

import numpy as np

import cnnengine as cnn
import cnnengine.functional as F

PICTURE = np.array(  # grows to the right by 0, 10 and 10 a pixel, then falls by 20
    [
        [10, 10, 20, 30, 10],
        [20, 20, 30, 40, 20],
        [30, 30, 40, 50, 30],
        [40, 40, 50, 60, 40],
        [50, 50, 60, 70, 50],
    ],
    np.float32,
)
FILTER = np.array([[1, 0, -1]] * 3, np.float32)


def feature_map_by_hand(picture: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Multiplies the filter with each patch, adds up, and prints how."""
    R, S = kernel.shape
    P, Q = picture.shape[0] - R + 1, picture.shape[1] - S + 1  # 5 - 3 + 1 = 3
    y = np.zeros((P, Q), np.float32)
    for p in range(P):
        for q in range(Q):
            patch = picture[p : p + R, q : q + S]
            y[p, q] = (patch * kernel).sum()
            print(f"row {p}, column {q}: the patch times the filter")
            for pixels, weights in zip(patch, kernel, strict=True):
                terms = " + ".join(f"{x:.0f}*{w:.0f}" for x, w in zip(pixels, weights, strict=True))
                print(f"    {terms} = {(pixels * weights).sum():.0f}")
            print(f"    together {y[p, q]:.0f}")
    return y


def draw(picture: np.ndarray, kernel: np.ndarray, y: np.ndarray, path: str) -> None:
    """Picture, filter and feature map side by side, with their numbers; the first patch and its answer are framed."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure((9.5, 4.6), dpi=130)
    margins = {"left": 0.02, "right": 0.98, "bottom": 0.03, "top": 0.83, "wspace": 0.08}
    panels = figure.subplots(1, 3, width_ratios=[5, 3, 3], gridspec_kw=margins)
    for axes, values, title, colours, limit, frame in zip(
        panels,
        (picture, kernel, y),
        ("picture 5 x 5", "filter 3 x 3", "feature map 3 x 3"),
        ("gray", "RdBu_r", "RdBu_r"),
        (100, 1.6, 90),
        (3, 0, 1),
        strict=True,
    ):
        axes.imshow(values, cmap=colours, vmin=0 if colours == "gray" else -limit, vmax=limit)
        for (row, column), value in np.ndenumerate(values):
            dark = value < 50 if colours == "gray" else abs(value) > 0.6 * limit
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color="white" if dark else "black")
        for edge in range(1, len(values)):
            axes.axhline(edge - 0.5, color="white", linewidth=1.5)
            axes.axvline(edge - 0.5, color="white", linewidth=1.5)
        if frame:
            axes.add_patch(
                Rectangle((-0.5, -0.5), frame, frame, fill=False, ec="#f2a541", lw=4, clip_on=False, zorder=9)
            )
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(title)
    figure.suptitle(
        "Each number of the map is one patch times the filter, added up: the framed patch gives -30", y=0.98
    )
    figure.savefig(path)
    print(f"drawn: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="feature_map.png", help="where to draw (needs matplotlib)")
    arguments = parser.parse_args()

    by_hand = feature_map_by_hand(PICTURE, FILTER)
    x = cnn.Tensor(PICTURE[np.newaxis, :, :, np.newaxis])  # (N, H, W, C) = (1, 5, 5, 1)
    w = cnn.Tensor(FILTER[np.newaxis, :, :, np.newaxis])  # (K, R, S, C) = (1, 3, 3, 1)
    y = F.conv2d(x, w).numpy()[0, :, :, 0]  # y is (N, P, Q, K) = (1, 3, 3, 1)
    print("\nthe whole map by F.conv2d:", *y, sep="\n    ")
    if not np.array_equal(y, by_hand):
        raise SystemExit("F.conv2d differs from the map by hand")
    print("equal to the map by hand")
    try:
        draw(PICTURE, FILTER, y, arguments.out)
    except ImportError:
        print("not drawn: matplotlib is not installed")


if __name__ == "__main__":
    main()
