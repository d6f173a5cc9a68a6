"""CIFAR-10 to 94 %: runs of examples/cifar10_speedrun.py and of the package ``airbench``, whose recipe it follows, in
turns. Appends a result row for each, with the accuracy of every run beside its time.

python bench/cifar10_speed.py --runs 5 --data data --output gpu.jsonl      # on a GPU, float16
python bench/cifar10_speed.py --smoke --device cpu --output rows.jsonl     # a few random pictures: only whether it runs
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

import cnnengine as cnn
from bench.provenance import provenance, usable_cores
from bench.run import write
from cnnengine import backends
from cnnengine.errors import DataError
from examples.cifar10_speedrun import WARM_UP, Recipe, speedrun

PEER = "airbench"
SMOKE = Recipe(epochs=3, batch=4, widths=(8, 8, 8), whitening_bias_epochs=1, averaging_from=1)
SMALL_SIDE = 25  # pixels: the least that leaves 3 behind three poolings
Run = Callable[[int], tuple[float, float]]  # (seconds, accuracy) of a run with a seed


def main(arguments: list[str] | None = None) -> int:
    """2 where there is no GPU or no data set."""
    options = parser().parse_args(arguments)
    if (reason := backends.available()["cuda" if options.device == "cuda" else "native"]) is not None:
        print(f"bench/cifar10_speed.py: {reason}", file=sys.stderr)
        return 2
    try:
        dataset = random_pictures() if options.smoke else cnn.data.cifar10(options.data)
    except DataError as error:
        print(f"bench/cifar10_speed.py: {error}", file=sys.stderr)
        return 2
    dtype = "float16" if options.device == "cuda" else "float32"
    name = "cuda" if options.device == "cuda" else "native"
    recipe = replace(SMOKE if options.smoke else Recipe(), dtype=dtype)
    contenders: dict[str, Run] = {name: ours(dataset, recipe, options.device)}
    absent = "it needs a GPU" if options.device == "cpu" else missing()
    with tempfile.TemporaryDirectory() as folder:
        if absent is None:
            contenders[PEER] = theirs(dataset, Path(folder))
        found: dict[str, list[tuple[float, float]]] = {contender: [] for contender in contenders}
        for run in range(options.runs):
            for contender, call in contenders.items():
                found[contender].append(call(run))
                seconds, accuracy = found[contender][-1]
                print(f"{contender}: {accuracy:.2%} in {seconds:.2f} s", flush=True)
    head = {
        "suite": "cifar10", "operation": "train and test", "case": f"{dataset.name}, {recipe.epochs:g} epochs",
        "device": options.device, "dtype": dtype, "flops": 0, "bytes": 0, "items": len(dataset.train_images),
    }  # fmt: skip
    origin = provenance(len(usable_cores()))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("a") as file:
        for contender, runs in found.items():
            times = {"milliseconds": [1e3 * seconds for seconds, _ in runs], "disturbed": [], "calls": 1}
            write(file, {**head, "contender": contender, **times, "accuracy": [a for _, a in runs], **origin})
        if absent is not None:
            write(file, {**head, "contender": PEER, "absent": absent, **origin})
    for contender, runs in found.items():
        seconds, accuracy = (np.mean(column) for column in zip(*runs, strict=True))
        print(f"{contender}: mean accuracy {accuracy:.2%} of {len(runs)} runs, {seconds:.2f} s each")
    return 0


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="bench/cifar10_speed.py", description=(__doc__ or "").splitlines()[0])
    p.add_argument("--output", type=Path, required=True, help="JSON lines, added to")
    p.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    p.add_argument("--runs", type=int, default=3, help="of each (default: 3)")
    p.add_argument("--data", help="folder of the data set (default: CNNENGINE_DATA, or data)")
    p.add_argument("--smoke", action="store_true", help="a few random pictures and narrow layers")
    return p


def ours(dataset: Any, recipe: Recipe, device: str) -> Run:
    """What a first short run compiles is not timed, as for the other."""
    if device == "cuda":
        speedrun(dataset, replace(recipe, epochs=min(WARM_UP, recipe.epochs)), device, log=lambda line: None)

    def run(seed: int) -> tuple[float, float]:
        cnn.manual_seed(seed)
        found = speedrun(dataset, recipe, device, log=lambda line: None)
        return found["seconds"], found["accuracy"]

    return run


def missing() -> str | None:
    names = [name for name in (PEER, "torch", "torchvision") if find_spec(name) is None]
    return f"{', '.join(names)} not installed" if names else None


def theirs(dataset: Any, folder: Path) -> Run:
    """The package reads its pictures from files of tensors in the working directory, when it is imported."""
    import torch

    (folder / "cifar10").mkdir()
    parts = {
        "train": (dataset.train_images, dataset.train_labels),
        "test": (dataset.test_images, dataset.test_labels),
    }
    for part, (images, labels) in parts.items():
        held = {"images": torch.from_numpy(images), "labels": torch.from_numpy(labels), "classes": dataset.classes}
        torch.save(held, folder / "cifar10" / f"{part}.pt")
    os.chdir(folder)
    import airbench

    test = airbench.CifarLoader("cifar10", train=False, batch_size=2000)
    airbench.train94(run="warmup", verbose=False, epochs=WARM_UP)
    airbench.evaluate(airbench.train94(verbose=False, epochs=WARM_UP), test, tta_level=2)

    def run(seed: int) -> tuple[float, float]:
        torch.manual_seed(seed)
        torch.cuda.synchronize()
        start = time.perf_counter()
        accuracy = airbench.evaluate(airbench.train94(verbose=False), test, tta_level=2)
        torch.cuda.synchronize()
        return time.perf_counter() - start, float(accuracy)

    return run


def random_pictures() -> Any:
    """Eight to train on, four to test, of ten classes in three colours."""
    generator = np.random.default_rng(0)
    images, labels = (
        generator.integers(0, 256, (12, SMALL_SIDE, SMALL_SIDE, 3), np.uint8),
        generator.integers(0, 10, 12),
    )
    parts = images[:8], labels[:8], images[8:], labels[8:]
    return cnn.data.Dataset("random", *parts, tuple("abcdefghij"), (0.5,) * 3, (0.25,) * 3)


if __name__ == "__main__":
    sys.exit(main())
