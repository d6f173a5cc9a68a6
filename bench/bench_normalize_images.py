"""Images of bytes to normalised numbers, in one pass; PyTorch converts, then scales and shifts."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import numpy as np

from bench.suite import Race, run_alone, task_races
from bench.task import Arrays, Run, Task
from cnnengine.backends.contract import Backend

IMAGES = {"MNIST, batch 64": (64, 28, 28, 1), "ImageNet, batch 32": (32, 224, 224, 3)}
SMOKE = {"2 x 5 x 5 x 3": (2, 5, 5, 3)}


def races(device: str = "cpu", smoke: bool = False) -> list[Race]:
    tasks = [
        Task(
            "normalize_images",
            name,
            partial(_draw, shape),
            {"": _ours},
            {"nhwc": _torch},
            _numpy,
            elements=prod(shape),
            index_bytes=prod(shape),
        )
        for name, shape in (SMOKE if smoke else IMAGES).items()
    ]
    return task_races("normalize_images", tasks, device, smoke)


def _draw(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Bytes with their rows merged, so that no library moves the channels; factor and offset as of ImageNet."""
    x = rng.integers(0, 256, (prod(shape[:-1]), shape[-1]), np.uint8)
    std = np.linspace(0.22, 0.24, shape[-1])
    return {"x": x, "factor": (1 / (255 * std)).astype(np.float32), "offset": (-0.45 / std).astype(np.float32)}


def _ours(backend: Backend, a: Arrays) -> Run:
    x = a["x"]
    factor, offset = (backend.to_device(backend.to_host(a[name]).astype(np.float32)) for name in ("factor", "offset"))

    def run() -> Any:
        y = backend.empty(x.shape, a["factor"].dtype)
        backend.normalize_images(x, factor, offset, y)
        return y

    return run


def _torch(torch: Any, t: Arrays) -> Run:
    return lambda: torch.addcmul(t["offset"], t["x"].to(t["factor"].dtype), t["factor"])


def _numpy(a: Arrays) -> Run:
    return lambda: a["x"] * a["factor"] + a["offset"]


def test_normalize_images(benchmark: Any, race: Race, contender: str) -> None:
    run_alone(benchmark, race, contender)
