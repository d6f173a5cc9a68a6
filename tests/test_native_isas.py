"""The cases of every operation on the instruction sets that are not this CPU's default, and how one is chosen."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

import cnnengine as cnn
from cnnengine.backends.contract import Backend

from .test_activation import test_epilogue as test_activation_epilogue  # noqa: F401
from .test_activation import test_forward_and_backward as test_activation  # noqa: F401
from .test_activation import test_in_place, test_larger_than_the_caches, test_units_in_the_last_place  # noqa: F401
from .test_binary import test_binary, test_division_by_zero_and_overflow, test_unary, test_unary_at_its_ends  # noqa: F401
from .test_conv2d import test_epilogue as test_conv2d_epilogue  # noqa: F401
from .test_conv2d import test_prepared_weight_serves_any_batch, test_verbs  # noqa: F401
from .test_dropout import test_same_bits_as_the_oracle  # noqa: F401
from .test_gemm import test_epilogue as test_gemm_epilogue  # noqa: F401
from .test_gemm import test_gemm  # noqa: F401
from .test_norm import test_apply_epilogue, test_data_far_from_zero  # noqa: F401
from .test_norm import test_forward_and_backward as test_norm  # noqa: F401
from .test_optimizer_step import test_adam, test_sgd  # noqa: F401
from .test_pool2d import test_forward_and_backward as test_pool2d  # noqa: F401
from .test_pool2d import test_padding_never_wins, test_ties_go_to_the_first_and_nan_wins  # noqa: F401
from .test_reduce import test_max_lets_nan_win, test_reduce  # noqa: F401
from .test_softmax_cross_entropy import test_forward_and_backward as test_softmax_cross_entropy  # noqa: F401

_native = pytest.importorskip("cnnengine._native", reason="the native extension is not built")
DEFAULT = _native.isa()


@pytest.fixture(params=[name for name in _native.isas() if name != DEFAULT])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Takes the place of the usual fixture: the native backend on each other instruction set."""
    _native.set_isa(request.param)
    assert _native.isa() == request.param
    try:
        with cnn.use_backend("native") as chosen:
            yield chosen
    finally:
        _native.set_isa(DEFAULT)


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )


def test_generic_is_always_there() -> None:
    assert _native.isas()[0] == "generic"
    assert DEFAULT in _native.isas()


@pytest.mark.parametrize("name", _native.isas())
def test_environment_chooses(name: str) -> None:
    done = run_python("from cnnengine import _native; print(_native.isa())", CNNENGINE_ISA=name)
    assert done.stdout.strip() == name, done.stderr


def test_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"set_isa: expected an instruction set .*\(generic.*received 'mmx'"):
        _native.set_isa("mmx")
    assert _native.isa() == DEFAULT


def test_unknown_name_in_the_environment_makes_the_backend_unavailable() -> None:
    done = run_python("import cnnengine as cnn; print(cnn.backends.available()['native'])", CNNENGINE_ISA="mmx")
    assert "CNNENGINE_ISA: expected an instruction set this CPU has" in done.stdout, done.stderr
    assert "received 'mmx'" in done.stdout
