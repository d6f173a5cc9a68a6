"""Runs in a process of its own, with the fake driver and the fake CuPy: steps captured through the driver's calls, bit
for bit as without a graph. Prints "done"."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import cupy
import numpy as np
import pretend

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import nn

LAUNCHES = 12
CAPTURE = ["begin", "end", "instantiate", "destroy", "launch"]


def train(captured: bool, optimizer: Any, steps: int = 4) -> list[np.ndarray]:
    cnn.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.25),
        nn.Linear(36, 10),
    ).to("cuda")  # fmt: skip
    optimizer = optimizer(model.parameters())

    def step(x: cnn.Tensor, labels: Any) -> cnn.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x * 0.5), labels)
        loss.backward()
        optimizer.step()
        return loss

    call = cnn.graph(step) if captured else step
    pretend.calls()
    rng, results = np.random.default_rng(1), []
    for i in range(steps):
        optimizer.lr = 0.1 / (i + 1)
        x = cnn.Tensor(rng.standard_normal((4, 8, 8, 1)).astype("float32")).to("cuda")
        before = pretend.last(LAUNCHES)[0]
        loss = call(x, rng.integers(0, 10, 4))
        if captured:
            expected = [[], CAPTURE, ["launch"], ["launch"]][i]
            assert (told := pretend.calls()) == expected, (i, told)
            assert i < 2 or pretend.last(LAUNCHES)[0] == before, "a replay launches no kernel by itself"
        results.append(loss.numpy())
        if captured and i:
            (found,) = call._found.values()
            arena = found.capture.arena
            assert all(arena.holds(t.data.data.ptr) for t in (loss, *(p.grad for p in model.parameters())))
            assert not any(arena.holds(t.data.data.ptr) for t in (*model.parameters(), *model.buffers()))
            if i < steps - 1:
                for address, nbytes in arena.pieces:  # a replay reads nothing that was there
                    ctypes.memset(address, 0xFF, nbytes)
    if captured:
        assert (call.captures, call.arena_bytes % 256) == (1, 0)
        assert call.nodes > 20
        assert pretend.last(0) == (cupy.STREAM,), "a graph is launched on the current stream"
    results += [p.numpy() for p in model.parameters()] + [p.grad.numpy() for p in model.parameters()]
    return results + [b.numpy() for b in model.buffers()]


def refused() -> None:
    """What cannot be captured raises, and leaves no capture behind."""
    pretend.calls()
    x = cnn.Tensor(np.ones((2, 3), np.float32)).to("cuda")
    host = np.ones(3, np.float32)
    for step, message in (
        (lambda x: float(F.sum(x)), "a result is read on the host"),
        (lambda x: x + cnn.Tensor(host).to("cuda"), "a host array (3,) float32 is moved to the device"),
    ):
        try:
            cnn.graph(step)(x)
        except cnn.Unsupported as error:
            if message not in str(error):
                raise
        else:
            raise AssertionError(message)
    assert pretend.calls() == []
    reads = [False]
    graph = cnn.graph(lambda x: float(F.sum(x)) if reads[0] else F.sum(x))
    assert graph(x).item() == 6
    reads[0] = True
    try:
        graph(x)
    except cnn.Unsupported:
        assert pretend.calls() == ["begin", "end", "destroy"]
    else:
        raise AssertionError("read on the host at the capture")
    reads[0] = False
    assert graph(x).item() == 6
    assert pretend.calls() == CAPTURE
    assert graph(x + x).item() == 12
    graph.reset()
    assert pretend.calls()[-1] == "destroy_executable"


for name, optimizer in (
    ("momentum", lambda p: cnn.optim.SGD(p, lr=0.1, momentum=0.9)),
    ("adam", lambda p: cnn.optim.Adam(p, lr=0.1)),
):
    for plain, replayed in zip(train(False, optimizer), train(True, optimizer), strict=True):
        np.testing.assert_array_equal(plain, replayed, err_msg=name)
refused()
assert sys.modules["cupy"] is cupy
print("done")
