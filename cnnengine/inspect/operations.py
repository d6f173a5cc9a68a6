"""The operations that can be inspected: from what was asked for to a call of the contract's verb.

FLOPs are those of the definition: 2 a multiply-add, 1 for anything else, an exponential included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from ..backends.contract import ACTIVATION_SAVES, ACTIVATIONS, BINARY, IDENTITY, OPTIMIZERS, POOL, REDUCE, UNARY
from ..shapes import broadcast_shape, conv2d_shape, gemm_shape, norm_shape, pool2d_shape, reduce_shape
from .problem import DTYPES, Arrays, Operand, Problem, Request, smaller, work

TWO, THREE = ("forward", "backward"), ("forward", "backward_input", "backward_weight")
NORMS = ("batch", "layer", "group")
EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class Operation:
    """``kinds``: what ``kind`` may be, the first of them by default; ``needs``: options without which it makes no
    sense."""

    build: Callable[[Request], Problem]
    verbs: tuple[str, ...] = ("forward",)
    kinds: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()


def build(request: Request) -> Problem:
    """The call that was asked for. Raises ValueError for what does not fit together."""
    if request.operation not in OPERATIONS:
        raise ValueError(f"operation must be one of {', '.join(OPERATIONS)}; received {request.operation!r}")
    operation = OPERATIONS[request.operation]
    _one_of(request, "verb", operation.verbs)
    _one_of(request, "dtype", DTYPES)
    if operation.kinds:
        request = replace(request, kind=request.kind or operation.kinds[0])
        _one_of(request, "kind", operation.kinds)
    for name in operation.needs:
        if getattr(request, name) is None:
            raise ValueError(f"{request.operation}: needs {name}")
    defaults = Request(request.operation, request.x)
    for name in ("w", "window", "stride", "padding", "dilation", "groups", "algorithm", "kind"):
        given = getattr(request, name) != getattr(defaults, name)
        if given and name not in (*operation.needs, *operation.takes) and not (name == "kind" and operation.kinds):
            raise ValueError(f"{request.operation}: takes no {name}, received {getattr(request, name)!r}")
    if 0 in request.x or not request.x:
        raise ValueError(f"{request.operation}: x must have sizes of at least 1, received {request.x}")
    return operation.build(request)


def reduced(problem: Problem, most: int) -> Problem:
    """The same on smaller arrays, such that emulating it takes at most about ``most`` operations."""
    while work(problem) > most:
        request = problem.request
        x = smaller(request.x, request.groups)
        w = request.w
        if x is None:
            return problem
        if w is not None and request.operation == "conv2d":
            w = (w[0], *w[1:3], x[3] // request.groups)
        elif w is not None and request.operation == "gemm":
            w = (x[1], w[1])
        elif w is not None:
            w = tuple(min(m, n) for m, n in zip(x[len(x) - len(w) :], w, strict=True))
        try:
            problem = build(replace(request, x=x, w=w))
        except ValueError:  # a window or a filter does not fit any more
            return problem
    return problem


def _one_of(request: Request, name: str, allowed: tuple[str, ...]) -> None:
    if getattr(request, name) not in allowed:
        raise ValueError(
            f"{request.operation}: {name} must be one of {', '.join(allowed)}; received {getattr(request, name)!r}"
        )


def _axes(request: Request, count: int, letters: str) -> None:
    if len(request.x) != count:
        raise ValueError(f"{request.operation}: x must have {count} axes ({letters}), received {request.x}")


def _conv2d(request: Request) -> Problem:
    assert request.w is not None
    stride = 1 if request.stride is None else request.stride
    s = conv2d_shape(request.x, request.w, stride, request.padding, request.dilation, request.groups)
    x, w, y = (Operand(shape, request.dtype) for shape in (s.x, s.w, s.y))

    def call(backend: Any, a: Arrays, algorithm: str | None) -> None:
        if request.verb == "forward":
            backend.conv2d_forward(s, a["x"], a["w"], a["y"], IDENTITY, algorithm)
        elif request.verb == "backward_input":
            backend.conv2d_backward_input(s, a["dy"], a["w"], a["dx"], algorithm)
        else:
            backend.conv2d_backward_weight(s, a["x"], a["dy"], a["dw"], algorithm)

    operands = {
        "forward": {"x": x, "w": w, "y": y},
        "backward_input": {"dy": y, "w": w, "dx": x},
        "backward_weight": {"x": x, "dy": y, "dw": w},
    }[request.verb]
    return Problem(request, f"conv2d_{request.verb}", operands, s.flops(), call)


def _pool2d(request: Request) -> Problem:
    assert request.window is not None
    assert request.kind is not None
    padding: Any = request.padding
    s = pool2d_shape("pool2d", request.x, request.window, request.stride, padding, request.dilation)
    kind, index = request.kind, Operand(s.y, s.index_dtype, below=s.R * s.S)
    x, y = Operand(s.x, request.dtype), Operand(s.y, request.dtype)

    def call(backend: Any, a: Arrays, _: str | None) -> None:
        if request.verb == "forward":
            backend.pool2d_forward(kind, s, a["x"], a["y"], a.get("index"))
        else:
            backend.pool2d_backward(kind, s, a["dy"], a.get("index"), a["dx"])

    operands = {"x": x, "y": y} if request.verb == "forward" else {"dy": y, "dx": x}
    return Problem(
        request,
        f"pool2d_{request.verb}",
        operands | ({"index": index} if kind == "max" else {}),
        s.flops(),
        call,
    )


def _activation(request: Request) -> Problem:
    assert request.kind is not None
    kind, one = request.kind, Operand(request.x, request.dtype)

    def call(backend: Any, a: Arrays, _: str | None) -> None:
        if request.verb == "forward":
            backend.activation_forward(kind, a["x"], a["y"], 0.0)
        else:
            backend.activation_backward(kind, a[ACTIVATION_SAVES[kind]], a["dy"], a["dx"], 0.0)

    names = ("x", "y") if request.verb == "forward" else (ACTIVATION_SAVES[kind], "dy", "dx")
    operands = dict.fromkeys(names, one)
    return Problem(request, f"activation_{request.verb}", operands, prod(request.x), call)


def _elementwise(verb: str) -> Callable[[Request], Problem]:
    def make(request: Request) -> Problem:
        one = Operand(request.x, request.dtype)
        if verb == "unary":
            return Problem(
                request,
                verb,
                {"x": one, "y": one},
                prod(request.x),
                lambda backend, a, _: backend.unary(request.kind, a["x"], a["y"]),
            )
        other = request.x if request.w is None else request.w
        shape, walk = broadcast_shape("binary", request.x, other)
        operands = {"a": one, "b": Operand(other, request.dtype), "y": Operand(shape, request.dtype)}
        return Problem(
            request,
            verb,
            operands,
            prod(shape),
            lambda backend, a, _: backend.binary(request.kind, walk, a["a"], a["b"], a["y"]),
        )

    return make


def _reduce(request: Request) -> Problem:
    """Over all axes but the last."""
    s = reduce_shape(1, prod(request.x[:-1]), request.x[-1])
    operands = {"x": Operand(request.x, request.dtype), "y": Operand((request.x[-1],), request.dtype)}
    return Problem(
        request,
        "reduce",
        operands,
        prod(request.x),
        lambda backend, a, _: backend.reduce(request.kind, s, a["x"], a["y"]),
    )


def _norm(request: Request) -> Problem:
    """Forward: 7 operations an element (the sum, the centred squares' sum, scale and shift); backward 11."""
    C = request.x[-1]
    if request.kind == "batch":
        s = norm_shape(1, prod(request.x[:-1]), C, 1)
    elif request.kind == "layer":
        s = norm_shape(prod(request.x[:-1]), 1, 1, C)
    else:
        groups = request.groups
        if C % groups:
            raise ValueError(f"norm: {C} channels do not divide into {groups} groups")
        s = norm_shape(request.x[0], prod(request.x[1:-1]), groups, C // groups)
    x, channels = Operand(request.x, request.dtype), Operand((C,), request.dtype)
    statistics = Operand((s.N * s.G,), "float32", positive=True)

    def call(backend: Any, a: Arrays, _: str | None) -> None:
        if request.verb == "forward":
            known = a["x"], a["gain"], a["offset"], None, a["y"], a["mean"], a["variance"]
            backend.norm_forward(s, *known, EPSILON, "identity")
        else:
            known = a["x"], a["gain"], a["mean"], a["variance"], None, a["dy"], a["dx"]
            backend.norm_backward(s, *known, a["dgain"], a["doffset"], None, EPSILON, "identity")

    if request.verb == "forward":
        operands = {"x": x, "gain": channels, "offset": channels, "y": x, "mean": statistics, "variance": statistics}
    else:
        operands = {"x": x, "gain": channels, "mean": statistics, "variance": statistics, "dy": x, "dx": x}
        operands |= {"dgain": channels, "doffset": channels}
    flops = (7 if request.verb == "forward" else 11) * prod(request.x)
    return Problem(request, f"norm_{request.verb}", operands, flops, call)


def _softmax_cross_entropy(request: Request) -> Problem:
    """Forward: the largest, a difference, its exponential, their sum, a quotient; backward: a difference, a product."""
    _axes(request, 2, "rows, classes")
    rows, classes = request.x
    x, labels = Operand(request.x, request.dtype), Operand((rows,), "int64", below=classes)
    loss = Operand((rows,), request.dtype)

    def call(backend: Any, a: Arrays, _: str | None) -> None:
        if request.verb == "forward":
            backend.softmax_cross_entropy_forward(a["x"], a["labels"], a["loss"], a["probability"])
        else:
            backend.softmax_cross_entropy_backward(a["probability"], a["labels"], a["dloss"], a["dx"])

    if request.verb == "forward":
        operands = {"x": x, "labels": labels, "loss": loss, "probability": x}
    else:
        operands = {"probability": x, "labels": labels, "dloss": loss, "dx": x}
    flops = (5 if request.verb == "forward" else 2) * prod(request.x)
    return Problem(request, f"softmax_cross_entropy_{request.verb}", operands, flops, call)


def _gemm(request: Request) -> Problem:
    """x (M, K) times w (K, N)."""
    assert request.w is not None
    _axes(request, 2, "M, K")
    M, K = request.x
    if len(request.w) != 2 or request.w[0] != K:
        raise ValueError(f"gemm: x (M, K) {request.x} times w (K, N): received w {request.w}")
    N = request.w[1]
    s = gemm_shape(1, M, N, K, False, False, False, False)
    operands = {name: Operand(shape, request.dtype) for name, shape in (("a", (M, K)), ("b", (K, N)), ("c", (M, N)))}
    return Problem(
        request,
        "gemm",
        operands,
        2 * M * N * K,
        lambda backend, a, _: backend.gemm(s, a["a"], a["b"], a["c"], IDENTITY),
    )


def _dropout(request: Request) -> Problem:
    """Half of the elements are dropped."""
    one = Operand(request.x, request.dtype)
    operands = {"x": one, "y": one, "state": Operand((2,), "uint64", below=1 << 30)}
    return Problem(
        request,
        "dropout",
        operands,
        prod(request.x),
        lambda backend, a, _: backend.dropout(a["x"], a["y"], 1 << 31, 2.0, a["state"]),
    )


def _normalize_images(request: Request) -> Problem:
    channels = Operand(request.x[-1:], "float32")
    operands = {"x": Operand(request.x, "uint8", below=256), "factor": channels, "offset": channels}
    return Problem(
        request,
        "normalize_images",
        operands | {"y": Operand(request.x, request.dtype)},
        2 * prod(request.x),
        lambda backend, a, _: backend.normalize_images(a["x"], a["factor"], a["offset"], a["y"]),
    )


def _optimizer_step(request: Request) -> Problem:
    """Of one parameter of shape x. SGD with momentum: 6 operations an element; Adam: 14."""
    kind, one = request.kind, Operand(request.x, request.dtype)
    twice = Operand(request.x, request.dtype, moved=2)
    states = ("velocity",) if kind == "sgd" else ("m", "v")
    hyper = Operand((5 if kind == "sgd" else 10,), "float32")

    def call(backend: Any, a: Arrays, _: str | None) -> None:
        backend.optimizer_step(kind, [a["p"]], [a["gradient"]], [a[name] for name in states], a["hyper"])

    operands = {"p": twice, "gradient": one, **dict.fromkeys(states, twice), "hyper": hyper}
    return Problem(request, "optimizer_step", operands, (6 if kind == "sgd" else 14) * prod(request.x), call)


OPERATIONS: dict[str, Operation] = {
    "activation": Operation(_activation, TWO, tuple(dict.fromkeys(("relu", *ACTIVATIONS)))),
    "binary": Operation(_elementwise("binary"), kinds=BINARY, takes=("w",)),
    "conv2d": Operation(_conv2d, THREE, needs=("w",), takes=("stride", "padding", "dilation", "groups", "algorithm")),
    "dropout": Operation(_dropout),
    "gemm": Operation(_gemm, needs=("w",)),
    "norm": Operation(_norm, TWO, NORMS, takes=("groups",)),
    "normalize_images": Operation(_normalize_images),
    "optimizer_step": Operation(_optimizer_step, kinds=OPTIMIZERS),
    "pool2d": Operation(_pool2d, TWO, POOL, ("window",), ("stride", "padding", "dilation")),
    "reduce": Operation(_reduce, kinds=REDUCE),
    "softmax_cross_entropy": Operation(_softmax_cross_entropy, TWO),
    "unary": Operation(_elementwise("unary"), kinds=UNARY),
}
