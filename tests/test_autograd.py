"""The tape: accumulation, freeing, depth, changes in place, scopes."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine.autograd import grad_enabled
from cnnengine.backends.contract import Backend


def leaf(*values: float) -> cnn.Tensor:
    return cnn.Tensor(list(values), requires_grad=True)


def test_gradients_accumulate_over_paths_and_calls(backend: Backend) -> None:
    x = cnn.Tensor(backend.to_device(np.array([3.0], np.float32)), requires_grad=True)
    y = x * x + x
    (y + y).backward()
    assert x.grad.item() == 14
    (x * 2).backward()
    assert x.grad.item() == 16


def test_gradients_are_their_owners_alone() -> None:
    x, y = leaf(1, 2), leaf(3, 4)
    z = x + y
    z.backward(np.ones(2, np.float32))
    x.grad.data[:] = 100
    np.testing.assert_array_equal(y.grad.numpy(), [1, 1])
    given = np.ones(2, np.float32)
    x.grad = None
    x.backward(given)
    x.grad.data[:] = 5
    np.testing.assert_array_equal(given, [1, 1])


def test_only_what_requires_a_gradient_gets_one() -> None:
    x, y = leaf(1), cnn.Tensor([2.0])
    (x * y).backward()
    assert y.grad is None
    assert x.grad.item() == 2
    with pytest.raises(RuntimeError, match="does not require a gradient"):
        (y * y).backward()


def test_a_graph_is_walked_once() -> None:
    x = leaf(2)
    y = x * x
    z = y * y
    z.backward()
    with pytest.raises(RuntimeError, match="walked before and is freed"):
        z.backward()
    with pytest.raises(RuntimeError, match="walked before and is freed"):
        (y + 1).backward()


def test_deep_graphs_need_no_recursion() -> None:
    x = leaf(1)
    y = x
    for _ in range(5000):
        y = y + x
    y.backward()
    assert x.grad.item() == 5001


def test_nodes_are_freed_on_the_way() -> None:
    """Only what a later backward step needs may live; activations of finished layers are gone"""
    alive: list[int] = []
    sizes: list[weakref.ref] = []

    class Watched(cnn.autograd.Function):
        __slots__ = ()

        def backward(self, dy):
            gc.collect()
            alive.append(sum(ref() is not None for ref in sizes))
            return (dy,)

    x = leaf(1.0)
    y = x
    for _ in range(4):
        array = np.ones(1, np.float32)
        t = cnn.Tensor(array)
        sizes.append(weakref.ref(t))
        y = cnn.tensor.record(array, Watched(cnn.backends.get("numpy"), (y,), t))
        del t, array
    root = y
    del y
    root.backward()
    assert alive == [4, 3, 2, 1]


@pytest.mark.parametrize(
    "operation",
    [F.relu, F.exp, F.sqrt, F.neg, F.dropout, F.sum, lambda h: h + h, lambda h: h - 1, lambda h: h.permute(0)],
)
def test_an_activation_nobody_reads_is_freed_at_once(operation) -> None:
    hidden = leaf(1, 2) * 2
    array = weakref.ref(hidden.data)
    result = operation(hidden)
    del hidden
    assert array() is None
    result.backward(np.ones(result.shape, np.float32))


def test_in_place_changes_raise() -> None:
    x, w = leaf(2), leaf(3)
    y = x * w
    w.data[:] = 5
    w.bump_version()
    with pytest.raises(RuntimeError, match=r"input 1, shape .1,., was changed in place"):
        y.backward()
    z = x + w
    w.bump_version()
    z.backward()  # a sum needs neither operand


@pytest.mark.parametrize("operation", [F.relu, F.exp, F.sqrt, F.max])
def test_changes_of_a_result_raise(operation) -> None:
    y = operation(leaf(1, 2))
    y.data[...] = 9
    y.bump_version()
    with pytest.raises(RuntimeError, match=r"its result, shape .*, was changed in place"):
        y.sum().backward()


@pytest.mark.parametrize(
    "view", [lambda w: w.reshape(2, 1), lambda w: w[:1], lambda w: w.detach(), cnn.Tensor, lambda w: w.flatten()[:1]]
)
def test_changes_through_a_view_raise(view) -> None:
    x, w = leaf(3), leaf(1, 2)
    y = (x * view(w)).sum()
    w.data[:] = 5
    w.bump_version()
    with pytest.raises(RuntimeError, match="was changed in place"):
        y.backward()
    y = (x * w[[0]]).sum()  # a copy
    w.bump_version()
    y.backward()


def test_a_refused_backward_pass_changes_nothing() -> None:
    a, b, c = leaf(1), leaf(2), leaf(3)
    y = (a * b) * c
    b.bump_version()
    with pytest.raises(RuntimeError, match="was changed in place"):
        y.backward()
    assert a.grad is b.grad is c.grad is None


def test_what_the_backward_pass_reads_may_be_reused_by_the_caller() -> None:
    x = cnn.Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    rows, labels = np.array([0, 0]), np.array([0, 1])
    y, loss = x[rows, [1, 1]], F.cross_entropy(x, labels)
    rows[:] = labels[:] = 1
    y.backward(np.ones(2, np.float32))
    np.testing.assert_array_equal(x.grad.numpy(), [[0, 2], [0, 0]])
    x.grad = None
    loss.backward()
    np.testing.assert_array_equal(np.sign(x.grad.numpy()), [[-1, 1], [1, -1]])


def test_results_are_neither_deep_copied_nor_pickled() -> None:
    x = leaf(1, 2)
    for duplicate in (copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))):
        twin = duplicate(x)
        assert twin.requires_grad
        twin.data[:] = 7
        np.testing.assert_array_equal(x.numpy(), [1, 2])
        with pytest.raises(TypeError, match=r"\.detach\(\) it first"):
            duplicate(x * 2)


def test_gradient_argument_is_checked() -> None:
    x = leaf(1, 2)
    with pytest.raises(ValueError, match="needs a gradient of that shape"):
        (x * x).backward()
    with pytest.raises(ValueError, match=r"expected a gradient \(2,\) float32, received \(3,\) float32"):
        (x * x).backward(np.ones(3, np.float32))
    with pytest.raises(ValueError, match="float64"):
        (x * x).backward(np.ones(2))
    with pytest.raises(ValueError, match="needs a gradient of that shape"):
        (x * x).backward(2.0)
    (x * x).backward(cnn.Tensor([1.0, 1.0]))
    np.testing.assert_array_equal(x.grad.numpy(), [2, 4])


def test_a_number_is_a_gradient_in_the_tensors_dtype() -> None:
    with cnn.use_backend("numpy"):
        x = cnn.Tensor(np.array([3.0]), requires_grad=True)
        (x * x).sum().backward(0.1)
        assert x.grad.dtype == np.float64
        assert x.grad.item() == 0.1 * 6


def test_no_grad_and_detach() -> None:
    x = leaf(2)
    with cnn.no_grad():
        assert not (x * x).requires_grad
    assert (x * x).requires_grad
    assert not (x * x).detach().requires_grad

    @cnn.no_grad()
    def f(t: cnn.Tensor) -> cnn.Tensor:
        return t * t

    assert not f(x).requires_grad
    with pytest.raises(RuntimeError, match="inside"), cnn.no_grad():
        raise RuntimeError("inside")
    assert (x * x).requires_grad


def test_one_no_grad_may_be_entered_again() -> None:
    scope = cnn.no_grad()
    with scope:
        with scope:
            assert not grad_enabled()
        assert not grad_enabled()
    assert grad_enabled()


def test_no_grad_is_of_one_thread() -> None:
    x, seen = leaf(2), []
    with cnn.no_grad():
        thread = threading.Thread(target=lambda: seen.append((x * x).requires_grad))
        thread.start()
        thread.join()
    assert seen == [True]


def test_a_node_remembers_its_backend() -> None:
    x = leaf(1, -2)
    with cnn.use_backend("numpy"):
        y = F.relu(x)
    assert y.node.backend.name == "numpy"
    y.backward(np.ones(2, np.float32))
    np.testing.assert_array_equal(x.grad.numpy(), [1, 0])


def test_float64_network_under_numpy() -> None:
    with cnn.use_backend("numpy"):
        x = cnn.Tensor(np.ones((2, 4, 4, 3)), requires_grad=True)
        w = cnn.Tensor(np.ones((5, 3, 3, 3)), requires_grad=True)
        F.relu(F.conv2d(x, w)).mean().backward()
        assert x.grad.dtype == w.grad.dtype == np.float64
