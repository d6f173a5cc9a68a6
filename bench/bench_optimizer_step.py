"""An optimizer's step over all parameters of a network in one pass: SGD with momentum, Adam, both with weight decay."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from bench.suite import Race, run_alone, task_races
from bench.task import Arrays, Run, Task, Theirs
from cnnengine.backends.contract import Array, Backend

LEARNING_RATE, MOMENTUM, DECAY = 1e-3, 0.9, 1e-4
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
LENET5 = (6 * 25, 6, 16 * 150, 16, 120 * 400, 120, 84 * 120, 84, 10 * 84, 10)


def races(device: str = "cpu", smoke: bool = False) -> list[Race]:
    networks = {"smoke": (5, 300)} if smoke else {"LeNet-5": LENET5, "ResNet-50": tuple(resnet50())}
    tasks = [task for name, sizes in networks.items() for task in (_sgd(name, sizes), _adam(name, sizes))]
    return task_races("optimizer_step", tasks, device, smoke)


def resnet50() -> Iterator[int]:
    """The size of every parameter: 25.6 million numbers in 161 arrays."""

    def convolution_and_norm(c: int, k: int, kernel: int) -> Iterator[int]:
        yield from (c * k * kernel**2, k, k)

    yield from convolution_and_norm(3, 64, 7)
    channels = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            yield from convolution_and_norm(channels, width, 1)
            yield from convolution_and_norm(width, width, 3)
            yield from convolution_and_norm(width, 4 * width, 1)
            if block == 0:
                yield from convolution_and_norm(channels, 4 * width, 1)
            channels = 4 * width
    yield from (1000 * channels, 1000)


def _sgd(network: str, sizes: tuple[int, ...]) -> Task:
    """Reads parameters, gradients and velocities, writes parameters and velocities."""
    options = {"lr": LEARNING_RATE, "momentum": MOMENTUM, "weight_decay": DECAY}
    ours = {"": partial(_ours, "sgd", 1, (LEARNING_RATE, MOMENTUM, DECAY, 0, 1))}
    return Task(
        "sgd", network, partial(_draw, sizes), ours, _theirs("SGD", options), elements=5 * sum(sizes), streams=(3, 2)
    )


def _adam(network: str, sizes: tuple[int, ...]) -> Task:
    """Reads parameters, gradients and both moments, writes all but the gradients. Every step is the first: what differs
    between steps is ten numbers."""
    options = {"lr": LEARNING_RATE, "betas": (BETA1, BETA2), "eps": EPSILON, "weight_decay": DECAY}
    correction = (1 - BETA2) ** -0.5
    step = (LEARNING_RATE / (1 - BETA1), BETA1, 1 - BETA1, BETA2, 1 - BETA2, correction, EPSILON, DECAY, 1, 1)
    ours = {"": partial(_ours, "adam", 2, step)}
    return Task(
        "adam", network, partial(_draw, sizes), ours, _theirs("Adam", options), elements=7 * sum(sizes), streams=(4, 3)
    )


def _theirs(name: str, options: dict[str, Any]) -> dict[str, Theirs]:
    return {way: partial(_torch, name, options, way) for way in ("fused", "foreach")}


def _draw(sizes: tuple[int, ...], rng: np.random.Generator) -> dict[str, np.ndarray]:
    names = [(f"{what}{i}", n) for what in ("parameter", "gradient") for i, n in enumerate(sizes)]
    return {name: rng.standard_normal(n, np.float32) for name, n in names}


def _named(arrays: Arrays, what: str) -> list[Any]:
    return [a for name, a in arrays.items() if name.startswith(what)]


def _ours(kind: str, states_each: int, numbers: tuple[float, ...], backend: Backend, a: Arrays) -> Run:
    gradients = _named(a, "gradient")
    parameters = [backend.to_device(np.array(backend.to_host(p))) for p in _named(a, "parameter")]
    states = [backend.to_device(np.zeros(p.shape, np.float32)) for p in parameters * states_each]
    hyper = backend.to_device(np.array(numbers, np.float32))

    def run() -> Array:
        backend.optimizer_step(kind, parameters, gradients, states, hyper)
        return parameters[-1]

    return run


def _torch(name: str, options: dict[str, Any], way: str, torch: Any, t: Arrays) -> Run:
    parameters = [torch.nn.Parameter(p.clone()) for p in _named(t, "parameter")]
    for parameter, gradient in zip(parameters, _named(t, "gradient"), strict=True):
        parameter.grad = gradient.clone()
    optimizer = getattr(torch.optim, name)(parameters, **options, fused=way == "fused", foreach=way == "foreach")

    def run() -> Any:
        optimizer.step()
        return parameters[-1]

    return run


def test_optimizer_step(benchmark: Any, race: Race, contender: str) -> None:
    run_alone(benchmark, race, contender)
