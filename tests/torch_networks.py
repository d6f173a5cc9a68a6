"""A network of ours beside the same network in plain PyTorch: logits and gradients, our error at most twice theirs.

``fill(model)`` gives every weight a value that depends on its name alone. ``check_against_torch(ours, reference, x,
labels)`` copies the weights, runs PyTorch in float64 for the truth and both in float32, and compares. Dropout must be
off on both sides: build ours with ``dropout=0``.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import nn


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """float64 in [-1, 1) that look random: splitmix64 of the position and the name, the same everywhere."""
    count = int(np.prod(shape))
    with np.errstate(over="ignore"):
        z = (np.arange(count, dtype=np.uint64) + np.uint64(crc32(name.encode()) << 24)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0).reshape(shape)


def fill(model: nn.Module) -> nn.Module:
    """Weights that keep a signal's size, running statistics that are no defaults; returns the model.

    Norms get gains of 0.1 to 0.3 and offsets of 0.5 to 1, so that few of their results lie close to the kink of a ReLU:
    a unit that rounding switches on or off changes gradients far more than rounding does.
    """
    norms = {f"{name}." for name, module in model.named_modules() if hasattr(module, "eps")}
    state = {}
    for name, tensor in model.state_dict().items():
        u, kind = values(name, tensor.shape), name.rpartition(".")[2]
        if kind == "num_batches_tracked":
            state[name] = np.zeros(())
        elif kind == "running_var":
            state[name] = 1.0 + 0.5 * u
        elif name.removesuffix(kind) in norms and kind in ("weight", "bias"):
            state[name] = 0.2 + 0.1 * u if kind == "weight" else 0.75 + 0.25 * u
        elif kind == "weight":
            state[name] = u * np.sqrt(6 / np.prod(tensor.shape[1:]))
        else:
            state[name] = 0.1 * u
    model.load_state_dict(state)
    return model


def batch(shape: tuple[int, int, int, int], classes: int, draw: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, C) in [-1, 1), others for each ``draw``, and labels that go with nothing."""
    return values(f"images{draw}", shape).astype(np.float32), np.arange(shape[0]) * 7 % classes


@dataclass
class Run:
    """What a network gave: logits in training and, with its first weights, in evaluation; every gradient, as ours are
    laid out."""

    logits: np.ndarray
    evaluated: np.ndarray
    gradients: dict[str, np.ndarray]


def run_ours(model: nn.Module, x: np.ndarray, labels: np.ndarray) -> Run:
    """One forward and one backward pass in training mode behind one in evaluation mode."""
    with cnn.no_grad():
        evaluated = model.eval()(cnn.Tensor(x)).numpy()
    model.train().zero_grad()
    logits = model(cnn.Tensor(x))
    F.cross_entropy(logits, labels).backward()
    return Run(logits.numpy(), evaluated, {name: p.grad.numpy() for name, p in model.named_parameters()})


def run_torch(model: Any, x: np.ndarray, labels: np.ndarray, dtype: Any) -> Run:
    """As ``run_ours``, of a copy of PyTorch's network in that dtype."""
    import torch

    model = copy.deepcopy(model).to(dtype)
    images = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).to(dtype)
    with torch.no_grad():
        evaluated = model.eval()(images).numpy()
    logits = model.train()(images)
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
    gradients = {name: _to_ours(p.grad.numpy()) for name, p in model.named_parameters()}
    return Run(logits.detach().numpy(), evaluated, gradients)


def check_against_torch(
    ours: nn.Module, reference: Any, x: np.ndarray, labels: np.ndarray, names: dict[str, str] | None = None
) -> dict[str, tuple[float, float]]:
    """Raises AssertionError unless ``errors_against_torch`` are at most twice PyTorch's; returns them."""
    return checked_errors(errors_against_torch(ours, reference, x, labels, names))


def errors_against_torch(
    ours: nn.Module, reference: Any, x: np.ndarray, labels: np.ndarray, names: dict[str, str] | None = None
) -> dict[str, tuple[float, float]]:
    """What float32 costs: (our error, PyTorch's) of each part.

    Errors are relative, in the 2-norm, against float64: of the logits in training, of those in evaluation, and of the
    gradients: the root mean square of each tensor's. A tensor whose gradient is less than 1e-3 of the largest, as that
    of a bias in front of a norm, which is 0, is measured by that. ``names`` are those of PyTorch's modules that differ
    from ours, ours first.
    """
    import torch

    state = {
        name: torch.from_numpy(np.array(array.transpose(0, 3, 1, 2) if array.ndim == 4 else array))
        for name, array in ((_renamed(name, names), t.numpy()) for name, t in ours.state_dict().items())
    }
    reference.load_state_dict(state)  # strict: the names are the same
    truth = run_torch(reference, x, labels, torch.float64)
    theirs, mine = run_torch(reference, x, labels, torch.float32), run_ours(ours, x, labels)
    mine.gradients = {_renamed(name, names): g for name, g in mine.gradients.items()}
    assert mine.gradients.keys() == truth.gradients.keys()
    errors = {
        "gradients": (_of_gradients(mine.gradients, truth.gradients), _of_gradients(theirs.gradients, truth.gradients))
    }
    for part in ("logits", "evaluated"):
        known = getattr(truth, part)
        errors[part] = (_error(getattr(mine, part), known), _error(getattr(theirs, part), known))
    return errors


def checked_errors(errors: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """The errors themselves. Raises AssertionError unless ours are at most twice PyTorch's."""
    for part, (our_error, their_error) in errors.items():
        assert their_error < 1e-2, f"{part}: PyTorch's own float32 error is {their_error:.1e}: nothing can be compared"
        assert our_error <= 2 * their_error, f"{part}: our error {our_error:.2e}, PyTorch's {their_error:.2e}"
    return errors


def _to_ours(array: np.ndarray) -> np.ndarray:
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def _renamed(name: str, names: dict[str, str] | None) -> str:
    module, dot, kind = name.rpartition(".")
    return (names or {}).get(module, module) + dot + kind


def _error(found: np.ndarray, known: np.ndarray, scale: float = 0.0) -> float:
    assert found.shape == known.shape
    return float(np.linalg.norm(found.astype(np.float64) - known) / max(np.linalg.norm(known), scale))


def _of_gradients(found: dict[str, np.ndarray], known: dict[str, np.ndarray]) -> float:
    floor = 1e-3 * max(float(np.linalg.norm(gradient)) for gradient in known.values())
    return float(np.sqrt(np.mean([_error(found[name], known[name], floor) ** 2 for name in known])))
