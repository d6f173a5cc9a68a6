"""A run's pictures: curves, confusion matrix, first-layer filters, feature maps. Needs matplotlib, the extra "plot"."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..autograd import no_grad
from ..backends.registry import use_backend
from ..nn import Conv2d, Module, ReLU
from ..tensor import Tensor
from .evaluation import confusion_matrix
from .loop import Trainer
from .recipe import test_transform
from .run import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NAMED = 20  # classes whose names and numbers the confusion matrix has room for
INK, TRAIN, TEST = "#333333", "#c8553d", "#2a6f97"


def draw(trainer: Trainer) -> list[str]:
    """Writes all pictures of a finished run into its folder; returns their file names. Raises ImportError."""
    dataset, folder = trainer.dataset, trainer.folder
    names = []
    with use_backend(trainer.settings.backend):
        title = f"{trainer.settings.model} on {dataset.name}"
        for name, figure in (
            ("curves.png", curves(trainer.progress.history, title)),
            ("confusion.png", confusion(trainer.labels, trainer.predictions, dataset.classes, title)),
        ):
            names.append(_write(folder, name, figure))
        if any(isinstance(module, Conv2d) for module in trainer.model.modules()):
            names.append(_write(folder, "filters.png", filters(trainer.model, title)))
            if any(isinstance(module, ReLU) for module in trainer.model.modules()):
                names.append(_write(folder, "feature_maps.png", feature_maps(trainer, title)))
    return names


def curves(history: Sequence[dict[str, float]], title: str) -> Figure:
    """Loss and accuracy by epoch, training and test."""
    figure = _figure(9, 3.8)
    epochs = [row["epoch"] for row in history]
    for axes, quantity, scale, label in zip(
        _row(figure, 2), ("loss", "accuracy"), (1, 100), ("cross-entropy loss", "accuracy in %"), strict=True
    ):
        for part, colour in (("train", TRAIN), ("test", TEST)):
            values = [scale * row[f"{part}_{quantity}"] for row in history]
            text = f"{values[-1]:.2f} %" if scale == 100 else f"{values[-1]:.3f}"
            axes.plot(epochs, values, "o-", color=colour, markersize=4, label=f"{part}, last {text}")
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.set_xlim(0.5, epochs[-1] + 0.5)
        axes.set_xticks(sorted({epochs[i] for i in np.linspace(0, len(epochs) - 1, 10).round().astype(int)}))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.suptitle(f"{title}: averages over each epoch of training, and the test images behind it", size=10)
    return figure


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """How many test images of each class (row) were taken for each class (column)."""
    count = confusion_matrix(labels, predictions, len(classes))
    figure = _figure(6.4, 6)
    axes = _row(figure, 1)[0]
    share = count / count.sum(1, keepdims=True).clip(1)
    # the square root lets a handful of errors among hundreds be seen
    axes.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1)
    few = len(classes) <= MOST_NAMED
    for (row, column), n in np.ndenumerate(count):
        if n and few:
            colour = "white" if share[row, column] > 0.4 else INK
            axes.text(column, row, str(n), ha="center", va="center", size=8, color=colour)
    slanted = max(map(len, classes)) > 2
    if few:
        axes.set_xticks(
            range(len(classes)), classes, rotation=45 if slanted else 0, ha="right" if slanted else "center"
        )
        axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    wrong = int(count.sum() - np.trace(count))
    axes.set_title(f"{title}: {wrong} of {count.sum():,} test images taken for another class", size=10)
    return figure


def filters(model: Module, title: str) -> Figure:
    """The first convolution's filters, one picture each, the mean of their input channels."""
    name, conv = _first_convolution(model)
    weight = conv.weight.numpy().astype(np.float64).mean(3)  # (K, R, S)
    columns = min(len(weight), 8)
    rows = -(-len(weight) // columns)
    figure = _figure(1.5 * columns + 1, 1.7 * rows + 0.7)
    limit = float(np.abs(weight).max())
    grid = _grid(figure, rows, columns)
    for k, axes in enumerate(grid[: len(weight)]):
        picture = axes.imshow(weight[k], cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_title(f"filter {k}", size=9)
    for axes in grid[len(weight) :]:
        axes.set_visible(False)
    bar = figure.colorbar(picture, ax=grid, shrink=0.8, aspect=15)
    bar.ax.tick_params(labelsize=8)
    k, r, s, c = conv.weight.shape
    figure.suptitle(f"{title}: {name}, {k} filters {r} x {s} x {c}, trained weights", size=10)
    return figure


def feature_maps(trainer: Trainer, title: str, examples: int = 4) -> Figure:
    """A few test images of different classes, and what the first convolution makes of each, behind its ReLU."""
    dataset, model = trainer.dataset, trainer.model
    chosen = _of_different_classes(trainer, examples)
    images, labels = np.stack([image for image, _ in chosen]), [label for _, label in chosen]
    maps = _first_activation(model, dataset.normalize(images))  # (N, P, Q, K)
    columns = 1 + min(maps.shape[3], 8)
    figure = _figure(1.25 * columns, 1.3 * len(chosen) + 0.8)
    grid = np.array(_grid(figure, len(chosen), columns)).reshape(len(chosen), columns)
    limit = float(maps.max())
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        grid[row, 0].imshow(image.squeeze(-1) if image.shape[2] == 1 else image, cmap="gray")
        grid[row, 0].set_ylabel(f"true: {dataset.classes[label]}", size=9)
        for k in range(columns - 1):
            grid[row, k + 1].imshow(maps[row, :, :, k], cmap="magma", vmin=0, vmax=limit)
    for column, axes in enumerate(grid[0]):
        axes.set_title("input" if not column else f"map {column - 1}", size=9)
    name, _ = _first_convolution(model)
    figure.suptitle(f"{title}: feature maps of {name} behind ReLU (black 0, bright {limit:.1f})", size=10)
    return figure


def _of_different_classes(trainer: Trainer, count: int) -> list[tuple[np.ndarray, int]]:
    """The first test image of each of the first ``count`` classes, where there are as many, in their order."""
    found: dict[int, np.ndarray] = {}
    wanted = set(np.unique(trainer.labels)[:count].tolist())
    for images, labels in trainer.dataset.test.batches(1, transform=test_transform(trainer.settings)):
        found.setdefault(int(labels[0]), images[0])
        if wanted <= found.keys():
            break
    return [(found[label], label) for label in sorted(wanted)]


def _first_convolution(model: Module) -> tuple[str, Conv2d]:
    return next((name, module) for name, module in model.named_modules() if isinstance(module, Conv2d))


def _first_activation(model: Module, images: np.ndarray) -> np.ndarray:
    """The output of the first ReLU, caught by a hook."""
    caught: list[Tensor] = []
    relu = next(module for module in model.modules() if isinstance(module, ReLU))
    with relu.register_forward_hook(lambda module, inputs, output: caught.append(output)), no_grad():
        model(Tensor(images).to(next(model.parameters()).device))
    return caught[0].numpy()


def _figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches."""
    from matplotlib.figure import Figure

    return Figure((width, height), dpi=130, layout="constrained")


def _row(figure: Figure, columns: int) -> list[Axes]:
    axes: Any = figure.subplots(1, columns, squeeze=False)
    return list(axes[0])


def _grid(figure: Figure, rows: int, columns: int) -> list[Axes]:
    """Axes for pictures, without ticks, row by row."""
    grid: Any = figure.subplots(rows, columns, squeeze=False)
    for axes in _each(grid):
        axes.set_xticks([])
        axes.set_yticks([])
    return list(_each(grid))


def _each(grid: Any) -> Iterator[Any]:
    yield from grid.flat


def _write(folder: RunFolder, name: str, figure: Figure) -> str:
    content = io.BytesIO()
    figure.savefig(content, format="png")
    folder.write(name, content.getvalue())
    return name
