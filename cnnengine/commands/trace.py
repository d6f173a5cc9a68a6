"""``cnnengine trace``: a page that steps through one block of a kernel."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from ..backends import emulator
from ..errors import BackendUnavailable
from ..shapes import conv2d_shape
from ..trace import ALGORITHMS, VERBS
from .common import UsageError, positive

OPERATIONS = ("conv2d",)
DTYPES = ("float32", "float16", "bfloat16")
SEED = 0


def add(commands: Any) -> None:
    """Tells argparse about the command."""
    page = commands.add_parser(
        "trace",
        help="step through one block of a kernel, as a page",
        description="Runs one block of a kernel in the emulator and writes a page, one file that needs no network:"
        " which thread reads and writes which element at each step, sectors, bank conflicts, the sums filling.",
    )
    page.set_defaults(run=_trace)
    page.add_argument("operation", choices=OPERATIONS)
    page.add_argument("--x", type=_four, default=(1, 8, 8, 4), metavar="N,H,W,C", help="default: 1,8,8,4")
    page.add_argument("--w", type=_four, default=(8, 3, 3, 4), metavar="K,R,S,C", help="default: 8,3,3,4")
    page.add_argument("--stride", type=positive, default=1, metavar="N", help="default: 1")
    page.add_argument("--padding", type=_not_negative, default=0, metavar="N", help="default: 0")
    page.add_argument("--dilation", type=positive, default=1, metavar="N", help="default: 1")
    page.add_argument("--groups", type=positive, default=1, metavar="N", help="default: 1")
    page.add_argument("--algorithm", choices=ALGORITHMS, default="tiled", help="default: tiled")
    page.add_argument("--dtype", choices=DTYPES, help="default: float32, of implicit_gemm_mma float16")
    page.add_argument("--verb", choices=tuple(VERBS), default="forward", help="default: forward")
    page.add_argument("--block", type=_three, default=(0, 0, 0), metavar="X,Y,Z", help="of the grid (default: 0,0,0)")
    page.add_argument("--output", type=Path, required=True, metavar="FILE", help="the page, such as trace.html")


def _trace(arguments: argparse.Namespace) -> int:
    from ..trace.page import page_of
    from ..trace.recording import record

    if reason := emulator.unavailable():
        raise BackendUnavailable(f"trace runs kernels in the emulator: {reason}")
    dtype = arguments.dtype or ("float16" if arguments.algorithm == "implicit_gemm_mma" else "float32")
    try:
        shape = conv2d_shape(
            arguments.x, arguments.w, arguments.stride, arguments.padding, arguments.dilation, arguments.groups
        )
        sizes = {"x": shape.x, "w": shape.w, "dy": shape.y}
        first, second = (_values(sizes[name], dtype, SEED + i) for i, name in enumerate(VERBS[arguments.verb][:2]))
        made = record(shape, first, second, verb=arguments.verb, algorithm=arguments.algorithm, block=arguments.block)
    except ValueError as error:
        raise UsageError(str(error)) from error
    text = page_of(made, _command(arguments, dtype))
    arguments.output.write_text(text, encoding="utf-8")
    total, kept = made.counters.total, made.trace.requests
    print(
        f"{arguments.output}: block {arguments.block} of {made.launched.grid}, {len(kept)} warp requests,"
        f" {kept['sectors'].sum()} sectors, {(kept['wavefronts'] - kept['least_wavefronts']).sum()} bank conflicts"
        f" (all blocks: {total.global_sectors} and {total.conflicts}); {len(text) / 1e6:.2f} MB"
    )
    return 0


def _values(shape: tuple[int, ...], dtype: str, seed: int) -> np.ndarray:
    """Eighths between -2 and 2, which are short to read"""
    import ml_dtypes  # noqa: F401  (bfloat16 becomes a name of NumPy's)

    eighths = np.random.default_rng(seed).integers(-16, 17, shape)
    return (eighths / 8).astype(np.dtype(dtype))


def _command(arguments: argparse.Namespace, dtype: str) -> str:
    """What makes the page again"""
    words = ["cnnengine", "trace", arguments.operation]
    for name in ("x", "w", "block"):
        words += [f"--{name}", ",".join(map(str, getattr(arguments, name)))]
    for name in ("stride", "padding", "dilation", "groups", "algorithm", "verb"):
        words += [f"--{name}", str(getattr(arguments, name))]
    return shlex.join([*words, "--dtype", dtype, "--output", arguments.output.name])


def _numbers(text: str, count: int) -> tuple[int, ...]:
    try:
        numbers = tuple(map(int, text.split(",")))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        raise argparse.ArgumentTypeError(f"expected {count} numbers with commas between them, received {text!r}")
    return numbers


def _four(text: str) -> tuple[int, ...]:
    return _numbers(text, 4)


def _three(text: str) -> tuple[int, ...]:
    return _numbers(text, 3)


def _not_negative(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, received {text}")
    return value
