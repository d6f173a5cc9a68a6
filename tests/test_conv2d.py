"""Convolution: every verb, every algorithm, every backend, against the float64 oracle; the oracle against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine.backends import _conv2d_plans as conv2d_plans
from cnnengine.backends.contract import IDENTITY, Backend, Epilogue
from cnnengine.errors import Unsupported

from .cases.conv2d import CASES, Conv2dCase
from .compare import assert_close
from .harness import oracle, random_array, root_of_squares, run_verb, runs, used_algorithm

BY_NAME = {case.name: case for case in CASES}
EPILOGUES = {
    "bias": ("bias",),
    "bias_relu": ("bias", "relu"),
    "scale_shift": ("scale", "shift"),
    "residual": ("residual",),
    "everything": ("bias", "scale", "shift", "residual", "relu"),
}


def inputs(case: Conv2dCase, rng: np.random.Generator) -> dict[str, np.ndarray]:
    shape = case.shape
    return {name: random_array(rng, getattr(shape, name)) for name in ("x", "w", "y")}


def verb_call(backend: Backend, verb: str, case: Conv2dCase, algorithm: str | None):
    """(call, names of its inputs, shape of its output, products summed into one output element)"""
    s = case.shape
    if verb == "conv2d_forward":
        return (
            lambda x, w, y: backend.conv2d_forward(s, x, w, y, IDENTITY, algorithm),
            ("x", "w"),
            s.y,
            s.reduction,
        )
    if verb == "conv2d_backward_input":
        return (
            lambda dy, w, dx: backend.conv2d_backward_input(s, dy, w, dx, algorithm),
            ("y", "w"),
            s.x,
            s.R * s.S * (s.K // s.groups),
        )
    return (
        lambda x, dy, dw: backend.conv2d_backward_weight(s, x, dy, dw, algorithm),
        ("x", "y"),
        s.w,
        s.N * s.P * s.Q,
    )


@pytest.mark.parametrize("verb", ["conv2d_forward", "conv2d_backward_input", "conv2d_backward_weight"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_verbs(backend: Backend, case: Conv2dCase, verb: str, rng: np.random.Generator) -> None:
    if not runs(backend, case.tier):
        pytest.skip(f"{case.tier} cases are too large for {backend.name}")
    arrays = inputs(case, rng)
    _, names, out, reduction = verb_call(oracle(), verb, case, None)
    given = [arrays[n] for n in names]
    (expected,) = run_verb(oracle(), verb_call(oracle(), verb, case, None)[0], given, [(out, "float32")], "oracle")
    terms = root_of_squares(verb_call(oracle(), verb, case, None)[0], given, out) if case.tier != "layer" else None
    for algorithm in (None, *backend.algorithms[verb]):
        what = f"{backend.name} {verb} {algorithm} {case}"
        try:
            (actual,) = run_verb(backend, verb_call(backend, verb, case, algorithm)[0], given, [(out, "float32")], what)
        except Unsupported:
            assert algorithm is not None, f"{what}: the backend's own choice refused"
            continue
        assert_close(actual, expected, reduction, what, terms, used_algorithm(backend, verb, case.shape, algorithm))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("verb", ["conv2d_forward", "conv2d_backward_input", "conv2d_backward_weight"])
@pytest.mark.parametrize("case", [c for c in CASES if c.tier != "layer"], ids=str)
def test_verbs_in_16_bits(backend: Backend, case: Conv2dCase, verb: str, dtype: str, rng: np.random.Generator) -> None:
    """Every rung against the oracle on the same rounded inputs."""
    if dtype not in backend.dtypes or backend.name == "numpy":
        pytest.skip(f"{backend.name} does not compute in {dtype}, or is the oracle")
    arrays = {name: a.astype(dtype) for name, a in inputs(case, rng).items()}
    call, names, out, reduction = verb_call(oracle(), verb, case, None)
    wide = [arrays[n].astype("float32") for n in names]
    (expected,) = run_verb(oracle(), call, wide, [(out, "float32")], "oracle")
    terms = root_of_squares(call, wide, out)
    for algorithm in (None, *backend.algorithms[verb]):
        what = f"{backend.name} {verb} {algorithm} {case} {dtype}"
        given = [arrays[n] for n in names]
        try:
            (actual,) = run_verb(backend, verb_call(backend, verb, case, algorithm)[0], given, [(out, dtype)], what)
        except Unsupported:
            assert algorithm is not None, f"{what}: the backend's own choice refused"
            continue
        assert_close(actual, expected, reduction, what, terms)


@pytest.mark.parametrize(
    ("algorithm", "dtype", "least"),
    [
        ("implicit_gemm_mma", "float16", 54),
        ("implicit_gemm_tf32", "float32", 54),
        ("implicit_gemm_3xtf32", "float32", 54),
        ("implicit_gemm_wgmma", "bfloat16", 12),
    ],
)
def test_a_rung_takes_the_cases_it_is_made_for(algorithm: str, dtype: str, least: int) -> None:
    """Refusals are skipped above: here is how many are not."""
    given = conv2d_plans.Given(dtype, 16, 90)
    taken = 0
    for case in CASES:
        try:
            conv2d_plans.conv2d_forward(case.shape, algorithm, given)
            taken += 1
        except Unsupported:
            continue
    assert taken >= least


@pytest.mark.parametrize("parts", EPILOGUES.values(), ids=EPILOGUES)
@pytest.mark.parametrize(
    "case", ["uneven", "groups", "1x1_stride_2", "primes", "lenet_conv1", "one_off_tiles", "depthwise_3x3"]
)
def test_epilogue(backend: Backend, case: str, parts: tuple[str, ...], rng: np.random.Generator) -> None:
    chosen = BY_NAME[case]
    if not runs(backend, chosen.tier):
        pytest.skip(f"{chosen.tier} cases are too large for {backend.name}")
    s = chosen.shape
    arrays = inputs(chosen, rng)
    extra = {
        "bias": random_array(rng, (s.K,)),
        "scale": random_array(rng, (s.K,)),
        "shift": random_array(rng, (s.K,)),
        "residual": random_array(rng, s.y),
    }
    used = [name for name in parts if name != "relu"]
    activation = "relu" if "relu" in parts else "identity"

    def call(which: Backend, algorithm: str | None):
        def run(x, w, *rest):
            epilogue = Epilogue(activation=activation, **dict(zip(used, rest[:-1], strict=True)))
            which.conv2d_forward(s, x, w, rest[-1], epilogue, algorithm)

        return run

    given = [arrays["x"], arrays["w"], *(extra[name] for name in used)]
    (expected,) = run_verb(oracle(), call(oracle(), None), given, [(s.y, "float32")], "oracle")
    for algorithm in (None, *backend.algorithms["conv2d_forward"]):
        what = f"{backend.name} {algorithm} {case} {parts}"
        try:
            (actual,) = run_verb(backend, call(backend, algorithm), given, [(s.y, "float32")], what)
        except Unsupported:
            assert algorithm is not None, f"{what}: the backend's own choice refused"
            continue
        chosen_one = used_algorithm(backend, "conv2d_forward", s, algorithm)
        assert_close(actual, expected, s.reduction + 4, what, algorithm=chosen_one)


@pytest.mark.parametrize("case", ["uneven", "groups", "lenet_conv2", "depthwise_3x3", "one_off_tiles"])
def test_prepared_weight_serves_any_batch(backend: Backend, case: str, rng: np.random.Generator) -> None:
    chosen = BY_NAME[case]
    if not runs(backend, chosen.tier):
        pytest.skip(f"{chosen.tier} cases are too large for {backend.name}")
    w = cnn.Tensor(backend.to_device(random_array(rng, chosen.w)))
    packed = F.conv2d_prepare(chosen.x, w, **chosen.geometry)
    for n in (1, 3):
        x = cnn.Tensor(backend.to_device(random_array(rng, (n, *chosen.x[1:]))))
        plain = F.conv2d(x, w, **chosen.geometry).numpy()
        assert_close(F.conv2d(x, packed, **chosen.geometry).numpy(), plain, chosen.shape.reduction, f"batch {n}")


def test_prepared_weight_of_another_backend_is_refused() -> None:
    w = cnn.Tensor(np.ones((2, 3, 3, 4), np.float32))
    with cnn.use_backend("numpy"):
        packed = F.conv2d_prepare((1, 8, 8, 4), w)
    with cnn.use_backend("native"), pytest.raises(ValueError, match="prepared for backend 'numpy'"):
        F.conv2d(cnn.Tensor(np.ones((1, 8, 8, 4), np.float32)), packed)


def test_prepared_weight_of_another_dtype_is_refused() -> None:
    with cnn.use_backend("numpy"):
        packed = F.conv2d_prepare([1, 8, 8, 4], np.ones((2, 3, 3, 4), np.float32))
        with pytest.raises(TypeError, match="w is float32, x is float64"):
            F.conv2d(cnn.Tensor(np.ones((1, 8, 8, 4))), packed)


def test_lists_are_sizes() -> None:
    x, w = np.ones((1, 8, 8, 4), np.float32), np.ones((2, 3, 3, 4), np.float32)
    geometry = {"stride": [2, 1], "padding": [[0, 1], [1, 1]], "dilation": np.int64(2)}
    assert F.conv2d(x, w, **geometry).shape == (1, 3, 6, 2)
    assert F.conv2d_norm_act(x, w, **geometry).shape == (1, 3, 6, 2)


@pytest.mark.parametrize("case", [c for c in CASES if c.tier != "layer"], ids=str)
def test_adjoint_identity(backend: Backend, case: Conv2dCase, rng: np.random.Generator) -> None:
    """<dy, conv(x)> = <dx, x> = <dw, w>, through autograd, on every backend"""
    if not runs(backend, case.tier):
        pytest.skip(f"{case.tier} cases are too large for {backend.name}")
    arrays = inputs(case, rng)
    x, w = (cnn.Tensor(backend.to_device(arrays[n]), requires_grad=True) for n in ("x", "w"))
    b = cnn.Tensor(backend.to_device(np.zeros(case.shape.K, np.float32)), requires_grad=True)
    y = F.conv2d(x, w, b, **case.geometry)
    y.backward(backend.to_device(arrays["y"]))
    left = np.vdot(arrays["y"].astype(np.float64), y.numpy())
    scale = np.linalg.norm(arrays["y"]) * np.linalg.norm(y.numpy()) * 1e-5
    assert abs(left - np.vdot(x.grad.numpy().astype(np.float64), arrays["x"])) < scale
    assert abs(left - np.vdot(w.grad.numpy().astype(np.float64), arrays["w"])) < scale
    assert_close(b.grad.numpy(), arrays["y"].astype(np.float64).sum((0, 1, 2)), arrays["y"].size // case.shape.K, "db")


def test_hand_computed() -> None:
    """A vertical-edge filter over two patches: 10 - 20 + 20 - 30 + 30 - 40 = -30, then -60"""
    x = np.array([[10, 10, 20, 30], [20, 20, 30, 50], [30, 30, 40, 60]], np.float32).reshape(1, 3, 4, 1)
    w = np.array([[1, 0, -1]] * 3, np.float32).reshape(1, 3, 3, 1)
    for name, reason in cnn.backends.available().items():
        if reason is None and cnn.backends.get(name).device == "cpu":
            with cnn.use_backend(name):
                y = F.conv2d(cnn.Tensor(x), cnn.Tensor(w)).numpy()
            np.testing.assert_array_equal(y.reshape(-1), [-30.0, -80.0], err_msg=name)


@pytest.mark.parametrize("case", [c for c in CASES if c.padding != "same"], ids=str)
def test_oracle_against_pytorch(case: Conv2dCase, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if isinstance(case.padding, tuple) and isinstance(case.padding[0], tuple):
        pytest.skip("PyTorch's conv2d has no uneven sides")
    arrays = {name: a.astype(np.float64) for name, a in inputs(case, rng).items()}
    x, w = (torch.from_numpy(arrays[n].transpose(0, 3, 1, 2)).requires_grad_() for n in ("x", "w"))
    y = torch.nn.functional.conv2d(x, w, **case.geometry)
    y.backward(torch.from_numpy(arrays["y"].transpose(0, 3, 1, 2)))
    with cnn.use_backend("numpy"):
        ours = {n: cnn.Tensor(arrays[n], requires_grad=True) for n in ("x", "w")}
        out = F.conv2d(ours["x"], ours["w"], **case.geometry)
        out.backward(arrays["y"])
    for what, mine, theirs in (("y", out, y), ("dx", ours["x"].grad, x.grad), ("dw", ours["w"].grad, w.grad)):
        expected = theirs.detach().numpy().transpose(0, 2, 3, 1)
        assert_close(mine.numpy(), expected, case.shape.reduction * case.shape.N * case.shape.P * case.shape.Q, what)


@pytest.mark.parametrize("fused", [True, False])
def test_conv2d_norm_act_is_its_composition(backend: Backend, fused: bool, rng: np.random.Generator) -> None:
    case = BY_NAME["uneven"]
    s = case.shape
    arrays = inputs(case, rng)
    parts = {n: random_array(rng, s.y if n == "residual" else (s.K,)) for n in ("b", "scale", "shift", "residual")}
    x, w = (cnn.Tensor(backend.to_device(arrays[n]), requires_grad=not fused) for n in ("x", "w"))
    extra = {n: cnn.Tensor(backend.to_device(a), requires_grad=not fused) for n, a in parts.items()}
    y = F.conv2d_norm_act(x, w, **extra, activation="relu", **case.geometry)
    composed = F.relu(F.conv2d(x, w, extra["b"], **case.geometry) * extra["scale"] + extra["shift"] + extra["residual"])
    assert y.requires_grad is not fused
    assert_close(y.numpy(), composed.numpy(), s.reduction + 4)
    if not fused:
        y.sum().backward()
        first = {n: t.grad.numpy().copy() for n, t in {"x": x, "w": w, **extra}.items()}
        for t in (x, w, *extra.values()):
            t.grad = None
        composed.sum().backward()
        for n, t in {"x": x, "w": w, **extra}.items():
            assert_close(first[n], t.grad.numpy(), s.N * s.P * s.Q * s.K, n)


X, W = np.zeros((8, 28, 28, 30), np.float32), np.zeros((64, 3, 3, 16), np.float32)


@pytest.mark.parametrize(
    ("x", "w", "arguments", "error", "words"),
    [
        (X, W, {"groups": 2}, ValueError, "weight expects 16 input channels per group .2 groups, 32 in all., x has 30"),
        (X[0], W, {}, ValueError, "x must have 4 axes .N, H, W, C., received 3"),
        (X, W[0], {}, ValueError, "w must have 4 axes"),
        (
            np.zeros((1, 3, 8, 8), np.float32),
            np.zeros((4, 3, 3, 3), np.float32),
            {},
            ValueError,
            "looks like .N, C, H, W.",
        ),
        (
            np.zeros((1, 8, 8, 3), np.float32),
            np.zeros((4, 3, 5, 5), np.float32),
            {},
            ValueError,
            "looks like .K, C, R, S.",
        ),
        (X[:0], np.zeros((4, 3, 3, 30), np.float32), {}, ValueError, "empty batch"),
        (X[..., :0], np.zeros((4, 3, 3, 30), np.float32), {}, ValueError, "empty axis"),
        (X, np.zeros((4, 31, 3, 30), np.float32), {}, ValueError, "the output would be 0 x 26"),
        (X, np.zeros((4, 3, 3, 30), np.float32), {"stride": 0}, ValueError, "stride must be at least 1, received 0"),
        (X, np.zeros((4, 3, 3, 30), np.float32), {"stride": -1}, ValueError, "stride must be at least 1"),
        (X, np.zeros((4, 3, 3, 30), np.float32), {"padding": -1}, ValueError, "padding must be at least 0"),
        (X, np.zeros((4, 3, 3, 30), np.float32), {"padding": "full"}, ValueError, "'same' or 'valid'"),
        (X, np.zeros((4, 3, 3, 30), np.float32), {"dilation": 1.5}, ValueError, "dilation must be an int or a pair"),
        (X, np.zeros((4, 3, 3, 30), np.float32), {"groups": 0}, ValueError, "groups must be an int of at least 1"),
        (X, np.zeros((5, 3, 3, 15), np.float32), {"groups": 2}, ValueError, "5 output channels do not divide into 2"),
        (X, np.zeros((4, 3, 3, 30), np.float64), {}, TypeError, "w is float64, x is float32"),
        (X.astype(np.int32), W, {}, TypeError, "received int32"),
        (X, np.zeros((4, 3, 3, 30), np.float32), {"algorithm": "fast"}, ValueError, "no algorithm 'fast'; it has"),
        (X, np.zeros((4, 3, 3, 30), np.float32), {"b": np.zeros(3, np.float32)}, ValueError, "b must be .4,."),
    ],
)
def test_bad_input_is_named(x, w, arguments, error, words) -> None:
    arguments = {n: cnn.Tensor(a) if isinstance(a, np.ndarray) else a for n, a in arguments.items()}
    with pytest.raises(error, match=words):
        F.conv2d(cnn.Tensor(x), cnn.Tensor(w), **arguments)


def test_float64_is_refused_by_native_with_a_hint() -> None:
    x, w = cnn.Tensor(np.zeros((1, 3, 3, 1))), cnn.Tensor(np.zeros((1, 3, 3, 1)))
    with cnn.use_backend("native"), pytest.raises(Unsupported, match=r"use_backend\('numpy'\)"):
        F.conv2d(x, w)
    with cnn.use_backend("numpy"):
        assert F.conv2d(x, w).dtype == np.float64


def test_algorithms_scope() -> None:
    x, w = cnn.Tensor(np.ones((1, 3, 3, 1), np.float32)), cnn.Tensor(np.ones((1, 3, 3, 1), np.float32))
    with cnn.use_backend("numpy"):
        with cnn.algorithms(conv2d_forward="direct"):
            assert F.conv2d(x, w).item() == 9
        with (
            cnn.algorithms(conv2d_forward="magic"),
            pytest.raises(ValueError, match="no algorithm 'magic'; it has direct"),
        ):
            F.conv2d(x, w)
    with pytest.raises(ValueError, match="no verb"), cnn.algorithms(conv3d="direct"):
        pass


def test_inputs_need_not_be_contiguous_or_writable(backend: Backend, rng: np.random.Generator) -> None:
    x = random_array(rng, (1, 3, 6, 5)).transpose(0, 2, 3, 1)
    w = random_array(rng, (4, 3, 3, 3))
    x.flags.writeable = w.flags.writeable = False
    y = F.conv2d(cnn.Tensor(backend.to_device(x)), cnn.Tensor(backend.to_device(w)))
    with cnn.use_backend("numpy"):
        expected = F.conv2d(cnn.Tensor(x.copy()), cnn.Tensor(w.copy())).numpy()
    assert_close(y.numpy(), expected, 27)
