"""One training step of LeNet-5 at batch 4: every backend gives the oracle's gradients."""

from __future__ import annotations

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine.backends.contract import Backend


def step(dtype: str, images: np.ndarray, labels: np.ndarray, to_device) -> tuple[float, dict[str, np.ndarray]]:
    """The loss and the gradient of every parameter, from the same start."""
    cnn.manual_seed(11)
    model = cnn.models.lenet5()
    for parameter in model.parameters():
        parameter.data = to_device(np.asarray(parameter.data).astype(dtype))
    loss = F.cross_entropy(model(cnn.Tensor(to_device(images.astype(dtype)))), labels)
    loss.backward()
    return loss.item(), {name: p.grad.numpy().astype(np.float64) for name, p in model.named_parameters()}


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((4, 28, 28, 1)).astype(np.float32), np.array([3, 1, 4, 1])


@pytest.fixture(scope="module")
def truth(digits) -> tuple[float, dict[str, np.ndarray]]:
    with cnn.use_backend("numpy"):
        return step("float64", *digits, np.asarray)


def test_gradients_agree(backend: Backend, digits, truth) -> None:
    """Relative error of each gradient, in the 2-norm, against the float64 run: at most 2e-6, some 30 roundings"""
    loss, gradients = step("float32", *digits, backend.to_device)
    assert abs(loss - truth[0]) < 2e-6 * abs(truth[0])
    assert set(gradients) == set(truth[1])
    for name, expected in truth[1].items():
        error = np.linalg.norm(gradients[name] - expected) / np.linalg.norm(expected)
        assert error < 2e-6, f"{backend.name} {name}: relative error {error:.2e}"


def test_error_is_at_most_twice_pytorchs(digits, truth) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    cnn.manual_seed(11)
    model = cnn.models.lenet5()
    state = {n: torch.from_numpy(np.asarray(p.data).copy()) for n, p in model.named_parameters()}
    names = list(state)
    p = [state[n].permute(0, 3, 1, 2).contiguous() if state[n].ndim == 4 else state[n] for n in names]
    for t in p:
        t.requires_grad_()
    nn = torch.nn.functional
    x = torch.from_numpy(digits[0].transpose(0, 3, 1, 2).copy())
    h = nn.max_pool2d(torch.relu(nn.conv2d(x, p[0], p[1], padding=2)), 2)
    h = nn.max_pool2d(torch.relu(nn.conv2d(h, p[2], p[3])), 2).permute(0, 2, 3, 1).reshape(4, -1)
    h = torch.relu(nn.linear(h, p[4], p[5]))
    h = torch.relu(nn.linear(h, p[6], p[7]))
    nn.cross_entropy(nn.linear(h, p[8], p[9]), torch.from_numpy(digits[1])).backward()
    theirs = [t.grad.permute(0, 2, 3, 1).numpy() if t.ndim == 4 else t.grad.numpy() for t in p]
    with cnn.use_backend("native"):
        ours = step("float32", *digits, np.asarray)[1]

    def total(gradients) -> float:
        return float(np.sqrt(sum(np.square(g - truth[1][n]).sum() for n, g in zip(names, gradients, strict=True))))

    assert total([ours[n] for n in names]) <= 2 * total(theirs)
