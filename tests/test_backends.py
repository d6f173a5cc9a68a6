"""The registry, the ledger, and that what must be here is here."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine.backends.contract import CONV2D_VERBS, Backend
from cnnengine.backends.ledger import MEMORY_VERBS, VERBS
from cnnengine.backends.registry import NAMES

REQUIRED = [name for name in os.environ.get("CNNENGINE_REQUIRE_BACKENDS", "").split(",") if name]


@pytest.mark.parametrize("name", REQUIRED)
def test_required_backend_is_present(name: str) -> None:
    assert cnn.backends.available()[name] is None


def test_every_backend_is_present_or_says_why_not() -> None:
    reasons = cnn.backends.available()
    assert list(reasons) == list(NAMES)
    for name, reason in reasons.items():
        if reason is not None:
            assert len(reason) > 10
            with pytest.raises(cnn.BackendUnavailable, match="is not available"):
                cnn.backends.get(name)


def test_contract_has_at_most_thirty_verbs() -> None:
    assert len(VERBS) + len(MEMORY_VERBS) <= 30


def test_a_backend_implements_every_verb(backend: Backend) -> None:
    for verb in VERBS + MEMORY_VERBS:
        assert callable(getattr(backend, verb)), f"{backend.name} has no {verb}"
    assert set(backend.algorithms) == set(CONV2D_VERBS)
    assert "float32" in backend.dtypes


def test_ledger_names_each_verb_on_each_backend() -> None:
    table = cnn.backends.ledger()
    present = [name for name, reason in cnn.backends.available().items() if reason is None]
    assert set(table) == set(VERBS)
    for verb, row in table.items():
        assert list(row) == present
        for name, entry in row.items():
            kind, _, how = entry.partition(": ")
            assert entry == "present" or (kind in ("composed", "absent") and len(how) > 5), f"{verb} on {name}: {entry}"


def test_notes_name_real_verbs(backend: Backend) -> None:
    assert set(backend.notes) <= set(VERBS)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtypes_are_computed_or_refused_with_a_hint(backend: Backend, dtype: str) -> None:
    x = cnn.Tensor(backend.to_device(np.ones((1, 4, 4, 2), np.float32))).astype(dtype)
    w = cnn.Tensor(backend.to_device(np.ones((3, 3, 3, 2), np.float32))).astype(dtype)
    if dtype not in backend.dtypes:
        with pytest.raises(cnn.Unsupported, match=r"computes in .* convert with"):
            F.conv2d(x, w)
        return
    y = F.max_pool2d(F.relu(F.conv2d(x, w)), 2)
    assert y.dtype == np.dtype(x.dtype)
    np.testing.assert_array_equal(y.numpy().astype(np.float32), 18)


def test_use_backend_nests_and_restores() -> None:
    x = cnn.Tensor([1.0])
    with cnn.use_backend("numpy"):
        assert F.relu(cnn.Tensor(x.data, requires_grad=True)).node.backend.name == "numpy"
        if cnn.backends.available()["native"] is None:
            with cnn.use_backend("native") as inner:
                assert inner.name == "native"
                assert cnn.backends.active_on("cpu") is inner
        assert cnn.backends.active_on("cpu").name == "numpy"
    with pytest.raises(ValueError, match="unknown backend 'tpu'; there are native"), cnn.use_backend("tpu"):
        pass


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_backend_by_environment() -> None:
    code = "import cnnengine as cnn; print(cnn.backends.active_on('cpu').name)"
    assert run_python(code, CNNENGINE_BACKEND="numpy").stdout.strip() == "numpy"
    wrong = run_python(code, CNNENGINE_BACKEND="tpu")
    assert wrong.returncode != 0
    assert "CNNENGINE_BACKEND: unknown backend 'tpu'" in wrong.stderr


def test_looking_for_backends_imports_none_of_their_libraries() -> None:
    code = (
        "import sys, cnnengine as cnn; cnn.backends.available();"
        "print([m for m in ('numba', 'cupy', 'torch', 'matplotlib') if m in sys.modules])"
    )
    assert run_python(code).stdout.strip() == "[]"


class _OnGpu:
    """What the checks of arguments read of a CuPy array"""

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self.shape, self.dtype, self.ndim = shape, np.dtype(dtype), len(shape)
        self.flags = np.zeros(1).flags

    def astype(self, dtype: type, order: str) -> _OnGpu:
        return _OnGpu(self.shape, np.dtype(dtype).name)


_OnGpu.__module__ = "cupy"


def test_arrays_on_another_device_are_named() -> None:
    def elsewhere(*shape: int) -> cnn.Tensor:
        return cnn.Tensor(_OnGpu(shape, "float32"))

    x = cnn.Tensor(np.zeros((2, 4, 4, 3), np.float32))
    rows = cnn.Tensor(np.zeros((2, 3), np.float32), requires_grad=True)
    for call, name in (
        (lambda: F.conv2d(x, elsewhere(5, 3, 3, 3)), "w"),
        (lambda: F.conv2d(x, np.zeros((5, 3, 3, 3), np.float32), elsewhere(5)), "b"),
        (lambda: F.linear(rows, elsewhere(4, 3)), "w"),
        (lambda: rows + elsewhere(2, 3), "the second operand"),
        (lambda: F.concatenate([rows, elsewhere(2, 3)]), ".*"),
    ):
        with pytest.raises(ValueError, match=rf"{name} is on cuda, x on cpu: move one with \.to\(device\)"):
            call()
    with pytest.raises(ValueError, match="cross_entropy: labels are on cuda, logits on cpu"):
        F.cross_entropy(rows, _OnGpu((2,), "int64"))
    with pytest.raises(ValueError, match="backward: the gradient is on cuda, the tensor on cpu"):
        (rows * 2).backward(elsewhere(2, 3))


def test_array_of_no_device_is_refused() -> None:
    from cnnengine.backends.registry import device_of

    with pytest.raises(TypeError, match=r"expected a NumPy or CuPy array, received builtins.list"):
        device_of([1.0])


def test_overflow_gives_infinity_and_no_warning(backend: Backend) -> None:
    x = cnn.Tensor(backend.to_device(np.full((1, 2, 2, 1), 3e38, np.float32)), requires_grad=True)
    flat = F.flatten(x)
    for y in (x.sum(), x + x, flat @ flat.T, F.conv2d(x, x), F.avg_pool2d(x, 2) * 2, x.astype(np.float16)):
        assert np.isposinf(y.numpy()).all()
    loss = F.cross_entropy(flat * 2, [0])
    assert np.isnan(loss.item())
    loss.backward()
    assert np.isnan(x.grad.numpy()).all()
