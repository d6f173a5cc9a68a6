"""CIFAR-10 to 94 % as fast as a GPU allows: python examples/cifar10_speedrun.py [--device cuda] [--dtype float16]

The recipe of Keller Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (arXiv 2404.00498), in this engine: a
frozen 2x2 convolution that whitens, three blocks of two 3x3 convolutions (64, 256, 256 channels) that start as the
identity, SGD with Nesterov momentum and a rate that rises and falls, biases of the norms 64 times as fast, averaged
weights, every picture mirrored in every other epoch, and six views of each test picture.

A run's seconds count everything from the pictures in the device's memory to the accuracy on the test set: the
augmentation, the whitening, 9.9 epochs, and the six views. Not counted is what the first run compiles. On a GPU a step
is captured once (``cnn.graph``) and replayed. What counts is the mean accuracy of several runs: a single one moves
by 0.2 %. Pictures that went through JPEG are another data set, and the line printed says so.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import cnnengine as cnn
import cnnengine.functional as F

nn = cnn.nn
WHITENED = 5000  # training pictures that the whitening is computed from
WARM_UP = 0.2  # epochs of the run that compiles
BLOCKS = 3


@dataclass(frozen=True)
class Recipe:
    """The numbers of the paper. Learning rate and decay are for sums of the loss over 1024 pictures, as if momentum did
    not lengthen steps."""

    epochs: float = 9.9
    batch: int = 1024
    lr: float = 11.5
    momentum: float = 0.85
    weight_decay: float = 0.0153
    bias_factor: float = 64.0  # how much faster the norms' biases learn
    label_smoothing: float = 0.2
    whitening_bias_epochs: int = 3  # then it stays
    averaging_from: int = 3  # epochs
    widths: tuple[int, ...] = (64, 256, 256)
    dtype: str = "float16"  # of convolutions and products; parameters are float32


class Block(nn.Module):
    """(N, H, W, inputs) -> (N, H/2, W/2, outputs)"""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = identity_conv(inputs, outputs), bias_norm(outputs)
        self.conv2, self.norm2 = identity_conv(outputs, outputs), bias_norm(outputs)

    def forward(self, x: cnn.Tensor) -> cnn.Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class Net(nn.Module):
    """Normalised pictures (N, 32, 32, 3) -> logits (N, 10)"""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        channels = (24, *widths)  # the twelve directions of a 2x2 patch of three colours, and their opposites
        self.whiten = nn.Conv2d(3, 24, 2)
        self.whiten.weight.requires_grad = False
        self.whiten.bias.data[...] = 0
        self.blocks = nn.Sequential(*(Block(channels[i], channels[i + 1]) for i in range(BLOCKS)))
        self.linear = nn.Linear(channels[-1], 10, bias=False)

    def forward(self, x: cnn.Tensor) -> cnn.Tensor:
        x = self.blocks(F.gelu(self.whiten(x)))  # (N, 3, 3, channels)
        return self.linear(F.flatten(F.max_pool2d(x, 3))) * (1 / 9)


def identity_conv(inputs: int, outputs: int) -> Any:
    """3x3; the first filters, one for each input channel, begin as the identity."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    conv.weight.data[:inputs] = 0
    for channel in range(min(inputs, outputs)):
        conv.weight.data[channel, 1, 1, channel] = 1
    return conv


def bias_norm(channels: int) -> Any:
    """A batch norm whose gain stays 1."""
    norm = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    norm.weight.requires_grad = False
    return norm


class Pictures:
    """Pictures (N, side, side, 3) in the device's memory, normalised, and their labels."""

    def __init__(self, images: Any, labels: Any, moments: tuple[Any, Any], dtype: str) -> None:
        self.images = F.normalize_images(images, *moments, dtype=dtype).data
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def view(self, chosen: Any, rows: np.ndarray, columns: np.ndarray) -> cnn.Tensor:
        """Of chosen pictures the rows and columns with these numbers, (M, side) each; beyond the border the picture is
        mirrored."""
        last = self.images.shape[1] - 1
        rows, columns = (device_array(self.images, last - abs(last - abs(a))) for a in (rows, columns))
        return cnn.Tensor(
            self.images[device_array(self.images, chosen)[:, None, None], rows[:, :, None], columns[:, None]]
        )

    def epoch(self, mirrored: np.ndarray, batch: int) -> Iterator[tuple[cnn.Tensor, Any]]:
        """Whole batches of all pictures in a new order, each moved by up to 2 pixels, those marked mirrored."""
        random, pixels = cnn.random.generator(), np.arange(self.images.shape[2])
        order = random.permutation(len(self))
        for start in range(0, len(self) - batch + 1, batch):
            chosen = order[start : start + batch]
            down, right = random.integers(-2, 3, (2, batch, 1))
            columns = right + np.where(mirrored[chosen, None], pixels[::-1], pixels)
            yield self.view(chosen, down + pixels, columns), self.labels[device_array(self.labels, chosen)]


def device_array(like: Any, array: np.ndarray) -> Any:
    """On the device of another array."""
    return array if isinstance(like, np.ndarray) else cnn.backends.active_on("cuda").to_device(array)


def whitening(pictures: Pictures, count: int = WHITENED) -> np.ndarray:
    """Filters (24, 2, 2, 3) to which patches of 2x2 pixels are uncorrelated, of variance about 1, and their opposites:
    eigenvectors of the patches' second moments, each over the root of its eigenvalue."""
    chosen = cnn.random.generator().permutation(len(pictures))[:count]  # in the files they may be sorted by class
    sample = pictures.images[device_array(pictures.images, chosen)].astype("float32")
    side = sample.shape[1] - 1
    corners = [sample[:, r : r + side, s : s + side].reshape(-1, 3) for r in (0, 1) for s in (0, 1)]
    host = cnn.backends.active_on("cpu" if isinstance(sample, np.ndarray) else "cuda").to_host
    moments = np.block([[host(a.transpose() @ b) for b in corners] for a in corners]) / len(corners[0])
    values, vectors = np.linalg.eigh(moments.astype(np.float64))
    filters = (vectors / np.sqrt(values + 5e-4)).T.reshape(12, 2, 2, 3)
    return np.concatenate([filters, -filters]).astype(np.float32)


def schedule(step: int, steps: int) -> float:
    """The learning rate as a share of its peak: from 0.2 up to 1 after 23 % of the steps, down to 0.07."""
    return float(np.interp(step, [0, int(0.23 * steps), steps], [0.2, 1, 0.07]))


class Average:
    """A slow copy of all weights and statistics, to which they return (Zhang et al., Lookahead Optimizer, 2019)."""

    def __init__(self, model: nn.Module) -> None:
        state = model.state_dict().values()
        self._fast = [t for t in state if t.dtype == "float32"]
        self._slow = [t * 1.0 for t in self._fast]

    def meet(self, kept: float) -> None:
        """The copy moves to ``kept`` of itself and the rest of the weights, which take its place."""
        self._slow = [slow * kept + fast * (1 - kept) for slow, fast in zip(self._slow, self._fast, strict=True)]
        for slow, fast in zip(self._slow, self._fast, strict=True):
            fast.data[...] = slow.data
            fast.bump_version()


def optimizer_for(model: Net, recipe: Recipe) -> Any:
    """Groups: the norms' biases, the bias of the whitening, everything else."""
    scale = 1024 * (1 + 1 / (1 - recipe.momentum))
    lr, decay = recipe.lr / scale, recipe.weight_decay * recipe.batch / scale
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    kinds = ("norm", recipe.bias_factor * lr), ("whiten", lr), ("", lr)
    groups = [{"params": [], "lr": rate, "weight_decay": decay / rate} for _, rate in kinds]
    for name, parameter in trained:
        groups[next(i for i, (part, _) in enumerate(kinds) if part in name)]["params"].append(parameter)
    return cnn.optim.SGD(groups, lr=lr, momentum=recipe.momentum, nesterov=True)


def train(pictures: Pictures, recipe: Recipe, device: str = "cpu", log: Callable[[str], object] = print) -> Net:
    """A network trained by the recipe. ``log`` gets a line an epoch."""
    model = Net(recipe.widths)
    model.whiten.weight.data[...] = whitening(pictures)
    model.to(device)
    optimizer = optimizer_for(model, recipe)
    peaks = [group["lr"] for group in optimizer.param_groups]

    def step(images: cnn.Tensor, labels: Any) -> cnn.Tensor:
        optimizer.zero_grad()
        with precision(recipe.dtype):
            loss = F.cross_entropy(model(images), labels, "sum", label_smoothing=recipe.label_smoothing)
        loss.backward()
        optimizer.step()
        return loss

    call = cnn.graph(step) if device == "cuda" else step
    batch = min(recipe.batch, len(pictures))
    steps, done, average = math.ceil(len(pictures) // batch * recipe.epochs), 0, None
    mirrored = cnn.random.generator().random(len(pictures)) < 0.5
    for epoch in range(math.ceil(recipe.epochs)):
        for images, labels in pictures.epoch(mirrored ^ (epoch % 2 == 1), batch):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * schedule(done, steps)
            if epoch >= recipe.whitening_bias_epochs:
                optimizer.param_groups[1]["lr"] = 0.0
            loss = call(images, labels)
            done += 1
            if epoch >= recipe.averaging_from and done % 5 == 0:
                if average is None:
                    average = Average(model)
                else:
                    average.meet(0.95**5 * (done / steps) ** 3)
            if done == steps:
                break
        if average is not None:
            average.meet(1.0)
        log(f"epoch {epoch + 1}: loss {loss.item() / batch:.3f}")
    return model


def precision(dtype: str) -> Any:
    return nullcontext() if dtype == "float32" else cnn.amp.autocast(dtype)


def accuracy(model: Net, pictures: Pictures, dtype: str, views: bool = True, batch: int = 2000) -> float:
    """The share of pictures that are told right, by the mean over six views: as they are, one pixel up and left, one
    pixel down and right, each mirrored too; the first counts for half. ``views=False``: as they are."""
    pixels = np.arange(pictures.images.shape[1])
    looks = [(0, False, 0.25), (0, True, 0.25), *((d, m, 0.125) for d in (-1, 1) for m in (False, True))]
    right = 0
    for start in range(0, len(pictures), batch):
        chosen = np.arange(start, min(start + batch, len(pictures)))
        total = np.zeros(())
        for moved, mirrored, weight in looks if views else [(0, False, 1.0)]:
            rows = np.broadcast_to(pixels + moved, (len(chosen), len(pixels)))
            columns = rows[:, ::-1] if mirrored else rows
            with cnn.no_grad(), precision(dtype):
                logits = model.eval()(pictures.view(chosen, rows, columns))
            total = total + weight * logits.astype("float32").numpy()
        right += int((total.argmax(1) == expected(pictures)[chosen]).sum())
    return right / len(pictures)


def expected(pictures: Pictures) -> np.ndarray:
    labels = pictures.labels
    return labels if isinstance(labels, np.ndarray) else cnn.backends.active_on("cuda").to_host(labels)


def speedrun(dataset: Any, recipe: Recipe, device: str, log: Callable[[str], object] = print) -> dict[str, float]:
    """One run: its seconds, the accuracy on the test set by six views, and by one (which is not in the seconds)."""
    backend, moments = cnn.backends.active_on(device), (dataset.mean, dataset.std)
    parts = (dataset.train_images, dataset.train_labels), (dataset.test_images, dataset.test_labels)
    sent = [tuple(backend.to_device(array) for array in part) for part in parts]
    backend.synchronize()
    start = time.perf_counter()
    training, test = (Pictures(*part, moments, recipe.dtype) for part in sent)
    model = train(training, recipe, device, log)
    found = accuracy(model, test, recipe.dtype)
    backend.synchronize()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "accuracy": found, "one_view": accuracy(model, test, recipe.dtype, views=False)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", help="of convolutions and products (default: float16 on a GPU, else float32)")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--epochs", type=float, default=Recipe.epochs)
    parser.add_argument("--batch", type=int, default=Recipe.batch)
    parser.add_argument("--widths", type=int, nargs=3, default=Recipe.widths, help="channels of the three blocks")
    parser.add_argument("--images", type=int, help="train on so many, drawn at random (default: all)")
    parser.add_argument("--data", help="folder of the data set (default: CNNENGINE_DATA, or data)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dtype = options.dtype or ("float16" if options.device == "cuda" else "float32")
    recipe = Recipe(epochs=options.epochs, batch=options.batch, widths=tuple(options.widths), dtype=dtype)
    dataset = cnn.data.cifar10(options.data)
    if options.images:
        chosen = np.random.default_rng(0).permutation(len(dataset.train_images))[: options.images]
        images, labels = dataset.train_images[chosen], dataset.train_labels[chosen]
        dataset = replace(dataset, train_images=images, train_labels=labels)
    if options.device == "cuda":
        speedrun(dataset, replace(recipe, epochs=WARM_UP), options.device, log=lambda line: None)  # compiles
    found = []
    for run in range(options.runs):
        cnn.manual_seed(options.seed + run)
        found.append(speedrun(dataset, recipe, options.device))
        print(
            f"{dataset.name}: {{accuracy:.2%}} in {{seconds:.2f}} s, {{one_view:.2%}} by one view".format(**found[-1])
        )
    mean, seconds = (np.mean([run[key] for run in found]) for key in ("accuracy", "seconds"))
    print(f"{options.runs} runs: mean accuracy {mean:.2%}, {seconds:.2f} s a run, {recipe.dtype} on {options.device}")


if __name__ == "__main__":
    main()
