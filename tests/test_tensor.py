"""What a Tensor takes, what it gives away, and how it is indexed and shaped."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine.backends.contract import Backend

from .gradients import check_gradients


def test_python_numbers_become_float32() -> None:
    for value in (1, 1.5, True, [1, 2], [[1.0], [2.0]], (1, 2)):
        assert cnn.Tensor(value).dtype == np.float32
    assert cnn.Tensor(np.float64(1)).dtype == np.float64


def test_arrays_are_shared_and_keep_their_dtype() -> None:
    for dtype in (np.float16, np.float32, np.float64, ml_dtypes.bfloat16):
        a = np.ones((2, 3), dtype)
        t = cnn.Tensor(a)
        assert t.data is a
        assert t.dtype == dtype


def test_what_is_not_contiguous_is_copied_once() -> None:
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    for view in (a.T, a[:, ::2], a[::-1], np.broadcast_to(a[0], (4, 3))):
        t = cnn.Tensor(view)
        assert t.data.flags.c_contiguous
        np.testing.assert_array_equal(t.numpy(), view)
    read_only = a.copy()
    read_only.flags.writeable = False
    assert cnn.Tensor(read_only).data is read_only


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "complex64", "<U1", "object"])
def test_other_dtypes_are_refused(dtype: str) -> None:
    with pytest.raises(TypeError, match=r"expected float16, bfloat16, float32 or float64, received"):
        cnn.Tensor(np.zeros((2, 3), dtype))
    with pytest.raises(TypeError, match=r"expected an array, a list or a number, received dict"):
        cnn.Tensor({})


def test_what_is_no_array_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected an array, a list of equal rows or a number: .* inhomogeneous"):
        cnn.Tensor([[1.0], [1.0, 2.0]])
    for nothing in (None, "text", {1.0}):
        with pytest.raises(TypeError, match=r"expected an array, a list or a number, received (NoneType|str|set)"):
            cnn.Tensor(nothing)


def test_other_libraries_without_a_copy() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    theirs = torch.arange(6.0).reshape(2, 3)
    ours = cnn.Tensor(theirs)
    theirs[0, 0] = 42
    assert ours.numpy()[0, 0] == 42
    back = torch.from_dlpack(ours)
    assert back.data_ptr() == theirs.data_ptr()


def test_giving_the_data_away() -> None:
    a = np.ones((2, 3), np.float32)
    t = cnn.Tensor(a)
    assert t.numpy() is a
    assert np.asarray(t) is a
    assert np.array(t, dtype=np.float64).dtype == np.float64
    assert np.from_dlpack(t).base is not None
    assert not hasattr(t, "__cuda_array_interface__")
    assert float(cnn.Tensor([3.0])) == cnn.Tensor([3.0]).item() == 3
    with pytest.raises(ValueError, match=r"expected one element, this tensor has shape \(2, 3\)"):
        t.item()
    assert "dtype=float32" in repr(t)
    assert len(t) == 2


INDICES = [
    0,
    -1,
    slice(1, 3),
    (slice(None), 2),
    (..., None, 1),
    [0, 0, 2],
    np.array([1, 1]),
    (slice(None, None, -1),),
    np.array([True, False, True]),
]


@pytest.mark.parametrize("key", INDICES, ids=str)
def test_indexing_is_numpys(key, rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 4))
    np.testing.assert_array_equal(cnn.Tensor(x)[key].numpy(), x[key])
    check_gradients(lambda t: t[key], [x], rng)


@pytest.mark.parametrize("key", [[0, 0, 2], (slice(None), [1, 1]), slice(1, 3), (..., 0)], ids=str)
def test_gradients_of_indexing(backend: Backend, key) -> None:
    x = cnn.Tensor(backend.to_device(np.zeros((3, 4), np.float32)), requires_grad=True)
    expected = np.zeros((3, 4))
    np.add.at(expected, key, 1)
    x[key].sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), expected)


def test_shaping_shares_memory_and_permuting_does_not(backend: Backend) -> None:
    a = backend.to_device(np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    t = cnn.Tensor(a)
    for view in (t.reshape(6, 4), t.reshape((2, -1)), t.flatten(), F.flatten(t), t[1]):
        host = backend.to_host(view.data)
        assert host.size in (24, 12)
        if backend.device == "cpu":
            assert np.shares_memory(host, a)
    np.testing.assert_array_equal(t.permute(2, 0, 1).numpy(), backend.to_host(a).transpose(2, 0, 1))
    np.testing.assert_array_equal(t.T.numpy(), backend.to_host(a).T)
    assert t.permute(2, 0, 1).data.flags.c_contiguous


def test_derivatives_of_shaping(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 4))
    check_gradients(lambda t: t.reshape(4, 6), [x], rng)
    check_gradients(lambda t: t.permute(1, 2, 0), [x], rng)
    check_gradients(lambda t: t.T, [x], rng)
    check_gradients(lambda a, b: F.concatenate([a, b, a], axis=1), [x, rng.standard_normal((2, 1, 4))], rng)


def test_border_of_nchw(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)
    t = cnn.from_nchw(x)
    assert t.shape == (2, 4, 5, 3)
    np.testing.assert_array_equal(t.numpy(), x.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(cnn.to_nchw(t).numpy(), x)
    with pytest.raises(ValueError, match="from_nchw: expected 4 axes"):
        cnn.from_nchw(x[0])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_cast(dtype, rng: np.random.Generator) -> None:
    x = cnn.Tensor(rng.standard_normal((3, 4)).astype(np.float32), requires_grad=True)
    y = x.astype(dtype)
    np.testing.assert_array_equal(y.numpy(), x.numpy().astype(dtype))
    assert x.astype(np.float32) is x
    y.backward(np.ones((3, 4), dtype))
    assert x.grad.dtype == np.float32
    for other in (np.int32, "float31"):
        with pytest.raises(TypeError, match=r"cast: expected float16, .* received .*(int32|float31)"):
            x.astype(other)


def test_bad_shapes_are_named() -> None:
    t = cnn.Tensor(np.zeros((2, 3), np.float32))
    for shape in ((4, 2), (-1, -1), (-1, 4), (0, -1), (-2, -3)):
        with pytest.raises(ValueError, match=r"reshape: \(2, 3\) has 6 elements"):
            t.reshape(shape)
    with pytest.raises(ValueError, match="permute: axes must be the 2 axes"):
        t.permute(0, 0)
    with pytest.raises(ValueError, match=r"permute: axes must be .* received \(0, 5\)"):
        t.permute(0, 5)
    with pytest.raises(ValueError, match="flatten: start 3 is out of range"):
        F.flatten(t, 3)
    with pytest.raises(ValueError, match="shapes differ beside axis 0"):
        F.concatenate([t, cnn.Tensor(np.zeros((2, 4), np.float32))])
    with pytest.raises(ValueError, match="at least one tensor"):
        F.concatenate([])
    with pytest.raises(IndexError):
        t[5]


def test_device_names() -> None:
    t = cnn.Tensor([1.0])
    assert t.device == "cpu"
    assert t.to("cpu") is t
    with pytest.raises(ValueError, match="device must be 'cpu' or 'cuda', received 'tpu'"):
        t.to("tpu")
    if cnn.backends.available()["cuda"] is not None:
        with pytest.raises(cnn.BackendUnavailable, match="no backend for device 'cuda'"):
            t.to("cuda")


def test_moving_back_adds_gradients_where_the_leaf_is(monkeypatch) -> None:
    """The other device is played by a backend that must never see the leaf's gradients"""
    from cnnengine.functional import layout

    class Elsewhere:
        device = "cuda"

    here = cnn.backends.get("numpy")
    monkeypatch.setattr(layout, "active_on", lambda device: here if device == "cpu" else Elsewhere())
    monkeypatch.setattr(layout, "_moved", lambda array, source, target: array.copy())
    x = cnn.Tensor([1.0, 2.0], requires_grad=True)
    for _ in range(2):
        F.to(x, "cuda").backward(np.ones(2, np.float32))
    np.testing.assert_array_equal(x.grad.numpy(), [2, 2])


def test_moving_to_a_backends_device_and_back(backend: Backend) -> None:
    x = cnn.Tensor([1.0, 2.0], requires_grad=True)
    for _ in range(2):
        y = x.to(backend.device)
        assert y.device == backend.device
        (y * y).to("cpu").sum().backward()
    assert x.grad.device == "cpu"
    np.testing.assert_array_equal(x.grad.numpy(), [4, 8])


def test_python_protocols() -> None:
    t = cnn.Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    rows = list(t)
    assert [row.shape for row in rows] == [(2,), (2,)]
    assert all(row.requires_grad for row in rows)
    one = t.sum()
    assert f"{one:.2f}" == "10.00"
    assert f"{t}" == str(t)
    assert int(one) == 10
    assert bool(one)
    assert not cnn.Tensor([0.0])
    for several in (bool, int, "{:.2f}".format):
        with pytest.raises(ValueError, match="expected one element"):
            several(t)
    with pytest.raises(TypeError, match="unsized"):
        list(one)


def test_unaligned_arrays_are_copied() -> None:
    unaligned = np.frombuffer(b"\0" * 18, np.float32, 4, offset=2)
    t = cnn.Tensor(unaligned)
    assert not unaligned.flags.aligned
    assert t.data.flags.aligned
