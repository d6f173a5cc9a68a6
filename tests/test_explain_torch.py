"""Explanations beside the papers' formulas written in PyTorch, where that is installed, on one small network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
from cnnengine import explain, nn

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed: it is only compared with")
TARGET, LAYER = 2, "relu2"


@pytest.fixture(scope="module")
def networks() -> tuple[nn.Sequential, Any, np.ndarray]:
    """The same convolutional network twice, and an image (1, 12, 10, 3)."""
    cnn.manual_seed(4)
    ours = nn.Sequential(
        {
            "conv1": nn.Conv2d(3, 8, 3, padding=1),
            "norm": nn.BatchNorm2d(8),
            "relu1": nn.ReLU(),
            "pool": nn.MaxPool2d(2),
            "conv2": nn.Conv2d(8, 12, 3),
            "relu2": nn.ReLU6(),
            "mean": nn.GlobalAvgPool2d(),
            "fc": nn.Linear(12, 5),
        }
    )
    rng = np.random.default_rng(8)
    for parameter in ours.parameters():
        parameter.data[...] *= 3
    ours.norm.running_mean.data[...] = rng.normal(0, 0.3, 8)
    ours.norm.running_var.data[...] = rng.uniform(0.5, 2, 8)
    theirs = torch.nn.Sequential()
    for name, module in (
        ("conv1", torch.nn.Conv2d(3, 8, 3, padding=1)),
        ("norm", torch.nn.BatchNorm2d(8)),
        ("relu1", torch.nn.ReLU()),
        ("pool", torch.nn.MaxPool2d(2)),
        ("conv2", torch.nn.Conv2d(8, 12, 3)),
        ("relu2", torch.nn.ReLU6()),
        ("mean", torch.nn.AdaptiveAvgPool2d(1)),
        ("flatten", torch.nn.Flatten()),
        ("fc", torch.nn.Linear(12, 5)),
    ):
        theirs.add_module(name, module)
    state = {}
    for name, value in ours.state_dict().items():
        array = torch.tensor(np.array(value.numpy()))
        state[name] = array.permute(0, 3, 1, 2).contiguous() if array.ndim == 4 else array
    theirs.load_state_dict(state)
    return ours, theirs.eval().double(), rng.standard_normal((1, 12, 10, 3)).astype(np.float32)


def nchw(x: np.ndarray) -> Any:
    return torch.tensor(x.transpose(0, 3, 1, 2).astype(np.float64))


def slope(theirs: Any, x: Any) -> np.ndarray:
    """d logit / d x, summed over images, (H, W, C)"""
    x = x.detach().requires_grad_()
    theirs(x)[:, TARGET].sum().backward()
    return x.grad.sum(0).permute(1, 2, 0).numpy()


def maps(theirs: Any, x: Any) -> tuple[np.ndarray, np.ndarray]:
    """The layer's maps (P, Q, K), and the gradient of the logit by them."""
    front, behind = theirs[: list(dict(theirs.named_children())).index(LAYER) + 1], theirs
    made = front(x).detach().requires_grad_()
    behind[len(front) :](made)[0, TARGET].backward()
    return tuple(t[0].permute(1, 2, 0).detach().numpy() for t in (made, made.grad))


def close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())
    assert np.abs(expected).max() > 0


def test_saliency(networks: Any) -> None:
    ours, theirs, x = networks
    close(explain.saliency(ours, x, TARGET), slope(theirs, nchw(x)))


def test_smooth_grad(networks: Any) -> None:
    ours, theirs, x = networks
    noise = 0.1 * float(x.max() - x.min()) * np.random.default_rng(3).standard_normal((9, *x.shape[1:]))
    close(explain.smooth_grad(ours, x, TARGET, samples=9, noise=0.1, seed=3), slope(theirs, nchw(x + noise)) / 9)


def test_guided_backprop(networks: Any) -> None:
    ours, theirs, x = networks
    hooks = [
        module.register_full_backward_hook(lambda module, dx, dy: (dx[0].clamp(min=0),))
        for module in theirs
        if isinstance(module, torch.nn.ReLU | torch.nn.ReLU6)
    ]
    assert len(hooks) == 2
    expected = slope(theirs, nchw(x))
    for hook in hooks:
        hook.remove()
    close(explain.guided_backprop(ours, x, TARGET), expected)


def test_integrated_gradients(networks: Any) -> None:
    ours, theirs, x = networks
    shares = (np.arange(20) + 0.5) / 20
    expected = x[0] * slope(theirs, nchw(x * shares[:, None, None, None])) / 20
    close(explain.integrated_gradients(ours, x, TARGET, steps=20), expected)


def test_grad_cam(networks: Any) -> None:
    ours, theirs, x = networks
    A, g = (torch.tensor(a) for a in maps(theirs, nchw(x)))
    close(explain.grad_cam(ours, x, TARGET, LAYER), torch.relu((g.mean((0, 1)) * A).sum(-1)).numpy())


def test_grad_cam_plus_plus_of_the_exponential(networks: Any) -> None:
    """The paper's definition, with second and third derivatives of Y = exp(logit) by PyTorch's own differentiation."""
    ours, theirs, x = networks
    A, _ = maps(theirs, nchw(x))
    made = torch.tensor(A)[None].permute(0, 3, 1, 2).requires_grad_()
    behind = theirs[list(dict(theirs.named_children())).index(LAYER) + 1 :]
    score = torch.exp(behind(made)[0, TARGET])
    # what follows the maps is linear, so that Y's derivatives by one element are Y times powers of the logit's
    (first,) = torch.autograd.grad(score, made, create_graph=True)
    second, third = torch.zeros_like(made), torch.zeros_like(made)
    for index in np.ndindex(*made.shape):
        (row,) = torch.autograd.grad(first[index], made, create_graph=True)
        second[index] = row[index].detach()
        third[index] = torch.autograd.grad(row[index], made, retain_graph=True)[0][index]
    below = 2 * second + made.detach().sum((2, 3), keepdim=True) * third
    share = torch.where(below != 0, second / torch.where(below != 0, below, 1), 0)
    weight = (share * torch.relu(first.detach())).sum((2, 3))
    expected = torch.relu((weight[..., None, None] * made.detach()).sum(1))[0].numpy() / float(score.detach())
    close(explain.grad_cam_plus_plus(ours, x, TARGET, LAYER), expected)


def test_resized(networks: Any, rng: np.random.Generator) -> None:
    heat = rng.random((4, 5))
    expected = torch.nn.functional.interpolate(torch.tensor(heat)[None, None], (12, 10), mode="bilinear")[0, 0].numpy()
    np.testing.assert_allclose(explain.resized(heat, (12, 10)), expected, atol=1e-6)
