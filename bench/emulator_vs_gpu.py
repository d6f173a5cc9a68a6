"""Runs every CUDA kernel on a GPU and in the emulator on the same inputs and compares what comes out.

    python bench/emulator_vs_gpu.py --output emulator_vs_gpu.jsonl
    compute-sanitizer python bench/emulator_vs_gpu.py --only-first    # just the GPU's side, for a memory checker

The emulator executes the kernels' own source, so that float32 differs at most by what fused multiply-adds round. Before
them come the small kernels by which the emulator itself is tested (bench/emulator_probes.py), where every bit counts
unless a reason is known. Exit status 1 where anything differs by more; resume.LOST where a kernel broke the GPU's
context, and another call with ``--resume`` goes on behind it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import emulator_probes
from bench.contenders.device import DTYPES
from bench.provenance import provenance, usable_cores
from bench.resume import LOST, STUCK, gpu_lost, keys, stored, unfinished
from cnnengine import backends
from cnnengine.backends.contract import (
    ACTIVATION_SAVES,
    BINARY,
    CONV2D_VERBS,
    IDENTITY,
    POOL,
    REDUCE,
    UNARY,
    Array,
    Backend,
    Epilogue,
)
from cnnengine.errors import BackendUnavailable, Unsupported
from cnnengine.shapes import (
    Conv2dShape,
    broadcast_shape,
    conv2d_shape,
    gemm_shape,
    norm_shape,
    pool2d_shape,
    reduce_shape,
)

# relative error ||a - b|| / ||b||: float32 sums in another order; 16 bits may round the last one differently
TOLERANCE = {"float32": 2e-6, "float16": 1e-3, "bfloat16": 8e-3}
TF32 = 1e-3  # of operands rounded to TF32, beside the oracle's that are not
SMALL_FLOPS = 200_000

# x, w, stride, padding, dilation, groups: one off a tile, primes, strides past the filter, 1x1, depthwise
CONVOLUTIONS = (
    ((2, 9, 9, 8), (16, 3, 3, 8), 1, 1, 1, 1),
    ((1, 17, 15, 33), (31, 3, 3, 33), 1, 1, 1, 1),
    ((2, 11, 7, 5), (7, 5, 3, 5), 2, (2, 1), 1, 1),
    ((1, 13, 13, 6), (6, 3, 3, 3), 1, 2, 2, 2),
    ((3, 8, 8, 24), (24, 1, 1, 24), 1, 0, 1, 1),
    ((1, 10, 10, 16), (16, 3, 3, 1), 1, 1, 1, 16),
    ((2, 7, 7, 3), (4, 2, 2, 3), 3, 0, 1, 1),
    ((2, 9, 9, 64), (72, 3, 3, 64), 1, 1, 1, 1),  # a step of wgmma's reduction, and columns past its tile
)


@dataclass(frozen=True)
class Check:
    """``compute`` runs on a backend and returns NumPy arrays, rounded to ``dtype`` on the way."""

    name: str
    dtype: str
    compute: Callable[[Backend], list[np.ndarray]]
    flops: int = 0

    @property
    def few(self) -> bool:
        return self.dtype == "float32" and self.flops < SMALL_FLOPS


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="bench/emulator_vs_gpu.py", description=(__doc__ or "").splitlines()[0])
    p.add_argument("--first", default="cuda", help="backend (default: cuda)")
    p.add_argument("--second", default="emulator", help="backend (default: emulator)")
    p.add_argument("--only-first", action="store_true", help="run the first backend alone, compare nothing")
    p.add_argument(
        "--few", action="store_true", help="float32 and the smaller convolutions: what a checker has time for"
    )
    p.add_argument("--at-most", type=int, metavar="N", help="this many checks")
    p.add_argument("--probes", type=int, metavar="N", help="this many of the emulator's test kernels (default: all)")
    p.add_argument("--output", type=Path, help="JSON lines")
    p.add_argument("--resume", action="store_true", help="add to the output what it does not have yet")
    options = p.parse_args(arguments)
    try:
        first = backends.get(options.first)
        second = None if options.only_first else backends.get(options.second)
    except BackendUnavailable as reason:
        print(f"bench/emulator_vs_gpu.py: {reason}", file=sys.stderr)
        return 2
    if options.only_first and first.device == "cuda":
        separate_allocations()
    dtypes = first.dtypes if second is None else first.dtypes & second.dtypes
    earlier = stored(options.output) if options.resume and options.output else []
    rows = [row for row in earlier if "agrees" in row]
    done = keys(rows, "check", "dtype")
    stuck = unfinished(earlier, done, "check", "dtype")
    compared = chosen_checks(first, dtypes, options)
    runs = chain(
        compared_probes(first, second, options.probes),
        ((c.name, c.dtype, partial(run, c, first, second)) for c in compared),
    )
    origin = provenance(len(usable_cores()))
    with options.output.open("a" if options.resume else "w") if options.output else nullcontext() as file:
        for name, dtype, compare in runs:
            if (name, dtype) in done:
                continue
            head: dict[str, Any] = {"suite": "emulator_vs_gpu", "check": name, "dtype": dtype}
            if (name, dtype) in stuck:
                failure = {"agrees": False, "identical": False, "error": None, "failed": STUCK}
                rows.append({**head, **failure})
            else:
                write({**head, "started": True}, file, origin)
                rows.append(compare())
            write(rows[-1], file, origin)  # row by row: a kernel that hangs leaves the others' results
            if "failed" in rows[-1] and first.device == "cuda" and gpu_lost():
                print(f"{name} {dtype}: {rows[-1]['failed']}; the GPU's context is lost")
                return LOST
    wrong = [row for row in rows if not row["agrees"]]
    for row in wrong:
        print(f"DIFFERS {row['check']} {row['dtype']}: relative error {row['error']}, {row.get('failed', '')}")
    identical = sum(row["identical"] for row in rows)
    print(f"{len(rows)} checks: {len(rows) - len(wrong)} agree, {identical} of them bit for bit; {len(wrong)} differ")
    return 1 if wrong else 0


def write(row: dict[str, Any], file: IO[str] | None, origin: dict[str, Any]) -> None:
    if file:
        file.write(json.dumps({**row, **origin}) + "\n")
        file.flush()


def chosen_checks(backend: Backend, dtypes: frozenset[str], options: argparse.Namespace) -> Iterator[Check]:
    found = (check for check in checks(backend, dtypes) if check.few or not options.few)
    return islice(found, options.at_most)


def compared_probes(
    first: Backend, second: Backend | None, at_most: int | None
) -> Iterator[tuple[str, str, Callable[[], dict[str, Any]]]]:
    """(name, dtype, what makes its row), where the GPU is compared with the emulator and is a Hopper or later."""
    if first.name != "cuda" or second is None or second.name != "emulator":
        return
    gpu = first.runtime  # type: ignore[attr-defined]
    reason = emulator_probes.skipped() if gpu.capability() >= 90 else "compute capability 9.0 is needed"
    if reason is not None:
        print(f"the emulator's test kernels are left out: {reason}")
        return
    for probe in islice(emulator_probes.probes(), at_most):
        yield probe.label, "probe", partial(run_probe, probe, gpu)


def run_probe(probe: emulator_probes.Probe, gpu: Any) -> dict[str, Any]:
    """A row: it agrees where NumPy's assertion holds on the GPU and bits are the emulator's, or a reason is known."""
    row: dict[str, Any] = {"suite": "emulator_vs_gpu", "check": probe.label, "dtype": "probe"}
    try:
        seen = emulator_probes.run(probe, gpu)
    except Exception as error:
        failed = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
        return {**row, "agrees": False, "identical": False, "error": None, "failed": failed}
    reason = None if seen.identical else emulator_probes.EXPLAINED.get(probe.name)
    return {
        **row,
        "agrees": seen.identical or reason is not None,
        "identical": seen.identical,
        "error": seen.error,
        "explained": reason,
        "kernels": seen.kernels,
        "launches": seen.launches,
    }


def separate_allocations() -> None:
    """Without CuPy's pool every array ends where its allocation does, so that a memory checker sees a read past it."""
    import cupy

    cupy.cuda.set_allocator(None)


def run(check: Check, first: Backend, second: Backend | None) -> dict[str, Any]:
    """One row. What the first refuses, as a rung does a shape it is not made for, agrees; what only the second refuses
    is a difference, as any other exception is, and not the end."""
    row: dict[str, Any] = {"suite": "emulator_vs_gpu", "check": check.name, "dtype": check.dtype}
    try:
        ours = computed(check, first)
        theirs = ours if second is None else computed(check, second)
    except Exception as error:
        return {**row, "agrees": False, "identical": False, "error": None, "failed": f"{type(error).__name__}: {error}"}
    if ours is None or theirs is None:
        return {**row, "agrees": ours is None, "identical": False, "error": None, "failed": "refused"}
    error = max(difference(a, b) for a, b in zip(ours, theirs, strict=True))
    identical = all(a.tobytes() == b.tobytes() for a, b in zip(ours, theirs, strict=True))
    exact = second is not None and second.name == "numpy"
    allowed = TF32 if exact and "implicit_gemm_tf32" in check.name else TOLERANCE[check.dtype]
    return {**row, "agrees": error <= allowed, "identical": identical, "error": error}


def computed(check: Check, backend: Backend) -> list[np.ndarray] | None:
    """None where the backend refuses."""
    try:
        return check.compute(backend)
    except Unsupported:
        return None


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """||a - b|| / ||b||; infinite for different shapes, or where only one is NaN or infinite."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    if a.shape != b.shape or not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return float("inf")
    finite = np.isfinite(b)
    return float(np.linalg.norm(a[finite] - b[finite]) / max(np.linalg.norm(b[finite]), 1e-30))


def checks(backend: Backend, dtypes: frozenset[str]) -> Iterator[Check]:
    """Every verb with a kernel, in every dtype and every algorithm that ``backend`` has."""
    for dtype in sorted(set(DTYPES) & dtypes):
        for verb in CONV2D_VERBS:
            for algorithm in (None, *backend.algorithms[verb]):
                for x, w, stride, padding, dilation, groups in CONVOLUTIONS:
                    shape = conv2d_shape(x, w, stride, padding, dilation, groups)
                    name = f"{verb} {algorithm or 'default'} x {x} w {w} stride {stride} groups {groups}"
                    yield Check(name, dtype, partial(convolution, verb, shape, dtype, algorithm), shape.flops())
        for kind in POOL:
            yield Check(f"pool2d {kind}", dtype, partial(pooling, kind, dtype))
        for kind in ACTIVATION_SAVES:
            yield Check(f"activation {kind}", dtype, partial(activation, kind, dtype))
        for op in BINARY:
            yield Check(f"binary {op}", dtype, partial(elementwise, op, dtype))
        for op in UNARY:
            yield Check(f"unary {op}", dtype, partial(function, op, dtype))
        for op in REDUCE:
            yield Check(f"reduce {op}", dtype, partial(reduction, op, dtype))
        for transposed in (False, True):
            yield Check(f"gemm transpose_b={transposed}", dtype, partial(product, transposed, dtype))
        for name, compute in {
            "norm": norm,
            "softmax_cross_entropy": loss,
            "dropout": dropout,
            "normalize_images": images,
            "sgd": sgd,
            "adam": adam,
        }.items():
            yield Check(name, dtype, partial(compute, dtype))


def _random(backend: Backend, dtype: str, *shapes: tuple[int, ...]) -> list[Array]:
    generator = np.random.default_rng(0)
    return [backend.to_device(generator.standard_normal(s, np.float32).astype(DTYPES[dtype])) for s in shapes]


def _host(backend: Backend, *arrays: Array) -> list[np.ndarray]:
    backend.synchronize()
    return [np.array(backend.to_host(a)) for a in arrays]


def convolution(verb: str, shape: Conv2dShape, dtype: str, algorithm: str | None, backend: Backend) -> list[np.ndarray]:
    x, w, dy, residual = _random(backend, dtype, shape.x, shape.w, shape.y, shape.y)
    (bias,) = _random(backend, dtype, (shape.K,))
    if verb == "conv2d_forward":
        y = backend.empty(shape.y, DTYPES[dtype])
        backend.conv2d_forward(shape, x, w, y, Epilogue(bias, residual=residual, activation="relu"), algorithm)
        return _host(backend, y)
    if verb == "conv2d_backward_input":
        dx = backend.empty(shape.x, DTYPES[dtype])
        backend.conv2d_backward_input(shape, dy, w, dx, algorithm)
        return _host(backend, dx)
    dw = backend.empty(shape.w, DTYPES[dtype])
    backend.conv2d_backward_weight(shape, x, dy, dw, algorithm)
    return _host(backend, dw)


def pooling(kind: str, dtype: str, backend: Backend) -> list[np.ndarray]:
    shape = pool2d_shape("pool2d", (2, 13, 11, 7), 3, 2, 1)
    x, dy = _random(backend, dtype, shape.x, shape.y)
    y, dx = backend.empty(shape.y, DTYPES[dtype]), backend.empty(shape.x, DTYPES[dtype])
    index = backend.empty(shape.y, shape.index_dtype) if kind == "max" else None
    backend.pool2d_forward(kind, shape, x, y, index)
    backend.pool2d_backward(kind, shape, dy, index, dx)
    return _host(backend, y, dx)


def activation(kind: str, dtype: str, backend: Backend) -> list[np.ndarray]:
    x, dy = _random(backend, dtype, (3, 7, 5, 11), (3, 7, 5, 11))
    y, dx = backend.empty(x.shape, x.dtype), backend.empty(x.shape, x.dtype)
    backend.activation_forward(kind, x, y, 0.5)
    backend.activation_backward(kind, y if ACTIVATION_SAVES[kind] == "y" else x, dy, dx, 0.5)
    return _host(backend, y, dx)


def norm(dtype: str, backend: Backend) -> list[np.ndarray]:
    """Batch norm in training with a residual and ReLU, and its gradients."""
    size = (2, 9, 7, 24)
    x, residual, dy, gain, offset = _random(backend, dtype, size, size, size, size[3:], size[3:])
    shape = norm_shape(1, prod(size[:3]), size[3], 1)
    y, dx, dr = (backend.empty(size, DTYPES[dtype]) for _ in range(3))
    dgain, doffset = (backend.empty(size[3:], DTYPES[dtype]) for _ in range(2))
    mean, variance = (backend.empty(shape.statistics, np.float32) for _ in range(2))
    backend.norm_forward(shape, x, gain, offset, residual, y, mean, variance, 1e-5, "relu")
    backend.norm_backward(shape, x, gain, mean, variance, y, dy, dx, dgain, doffset, dr, 1e-5, "relu")
    return _host(backend, y, mean, variance, dx, dgain, doffset, dr)


def elementwise(op: str, dtype: str, backend: Backend) -> list[np.ndarray]:
    a, b = _random(backend, dtype, (3, 5, 7), (5, 1))
    y_shape, shape = broadcast_shape(op, (3, 5, 7), (5, 1))
    y = backend.empty(y_shape, DTYPES[dtype])
    backend.binary(op, shape, a, b, y)
    return _host(backend, y)


def function(op: str, dtype: str, backend: Backend) -> list[np.ndarray]:
    (x,) = _random(backend, dtype, (3, 101))
    y = backend.empty(x.shape, x.dtype)
    backend.unary(op, x, y)
    return _host(backend, y)


def reduction(op: str, dtype: str, backend: Backend) -> list[np.ndarray]:
    (x,) = _random(backend, dtype, (3, 257, 5))
    y = backend.empty((3, 5), DTYPES[dtype])
    backend.reduce(op, reduce_shape(3, 257, 5), x, y)
    return _host(backend, y)


def product(transposed: bool, dtype: str, backend: Backend) -> list[np.ndarray]:
    a, b = _random(backend, dtype, (2, 33, 17), (2, 29, 17) if transposed else (2, 17, 29))
    c = backend.empty((2, 33, 29), DTYPES[dtype])
    backend.gemm(gemm_shape(2, 33, 29, 17, False, transposed, False, False), a, b, c, IDENTITY)
    return _host(backend, c)


def loss(dtype: str, backend: Backend) -> list[np.ndarray]:
    x, dloss = _random(backend, dtype, (19, 10), (19,))
    labels = backend.to_device(np.arange(19, dtype=np.int64) % 10)
    probability, dx = backend.empty(x.shape, x.dtype), backend.empty(x.shape, x.dtype)
    value = backend.empty((19,), x.dtype)
    backend.softmax_cross_entropy_forward(x, labels, value, probability)
    backend.softmax_cross_entropy_backward(probability, labels, dloss, dx)
    return _host(backend, value, probability, dx)


def dropout(dtype: str, backend: Backend) -> list[np.ndarray]:
    (x,) = _random(backend, dtype, (1023,))
    y, state = backend.empty(x.shape, x.dtype), backend.to_device(np.array([7, 3], np.uint64))
    backend.dropout(x, y, 1 << 31, 2.0, state)
    return _host(backend, y)


def images(dtype: str, backend: Backend) -> list[np.ndarray]:
    x = backend.to_device(np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3))
    factor, offset = (backend.to_device(np.array(n, np.float32)) for n in ([0.25, 0.5, 0.75], [1, -2, 3]))
    y = backend.empty(x.shape, DTYPES[dtype])
    backend.normalize_images(x, factor, offset, y)
    return _host(backend, y)


def sgd(dtype: str, backend: Backend) -> list[np.ndarray]:
    p, g, v = _random(backend, dtype, (301,), (301,), (301,))
    hyper = backend.to_device(np.array([0.1, 0.9, 1e-3, 1.0, 1.0], np.float32))
    backend.optimizer_step("sgd", [p], [g], [v], hyper)
    return _host(backend, p, v)


def adam(dtype: str, backend: Backend) -> list[np.ndarray]:
    p, g, m, v = _random(backend, dtype, (301,), (301,), (301,), (301,))
    backend.binary("mul", broadcast_shape("mul", v.shape, v.shape)[1], v, v, v)
    hyper = backend.to_device(np.array([0.01, 0.75, 0.25, 0.875, 0.125, 1.25, 0.25, 0.01, 0.99, 0.5], np.float32))
    backend.optimizer_step("adam", [p], [g], [m, v], hyper)
    return _host(backend, p, m, v)


if __name__ == "__main__":
    sys.exit(main())
