"""``cnnengine inspect``: a call's kernels, taken apart."""

from __future__ import annotations

import argparse
from typing import Any

from ..inspect.emulated import MOST
from ..inspect.gpus import GPUS
from ..inspect.inspector import ARCH, SETS, inspect
from ..inspect.operations import NORMS, OPERATIONS, THREE
from ..inspect.problem import DTYPES
from .common import UsageError

LAYOUTS = ("NHWC", "NCHW")


def add(commands: Any) -> None:
    """Tells argparse about the command."""
    parser = commands.add_parser(
        "inspect",
        help="take the kernels of a call apart",
        description="Compiles the kernels that a call launches and prints what is to be known of them without a GPU:"
        " registers, occupancy, instructions, the roofline of a GPU, and what the emulator counts, by line of the"
        " source. --output also saves the sources, PTX and machine code. Where there is a GPU, the call is timed.",
    )
    parser.set_defaults(run=_inspect)
    parser.add_argument("operation", choices=tuple(OPERATIONS))
    parser.add_argument("--x", type=sizes, required=True, metavar="N,H,W,C", help="gemm: M,K; else any shape")
    parser.add_argument("--w", type=sizes, metavar="K,R,S,C", help="conv2d: filters; gemm: K,N; binary: other shape")
    parser.add_argument("--layout", choices=LAYOUTS, default="NHWC", help="of --x N,C,H,W and --w K,C,R,S: NCHW")
    parser.add_argument("--verb", choices=("forward", "backward", *THREE[1:]), default="forward")
    parser.add_argument(
        "--kind", help=f"such as relu, add, max, sgd; of norm {', '.join(NORMS)} (default: the operation's first)"
    )
    parser.add_argument("--window", type=pair, metavar="R,S", help="of pool2d")
    parser.add_argument("--stride", type=pair, metavar="H,W")
    parser.add_argument("--padding", type=pair, default=0, metavar="H,W")
    parser.add_argument("--dilation", type=pair, default=1, metavar="H,W")
    parser.add_argument("--groups", type=int, default=1, metavar="N")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--algorithm", metavar="NAME", help="rung of a convolution (default: the backend's choice)")
    parser.add_argument("--set", choices=SETS, default="cuda", help="of kernels (default: cuda)")
    parser.add_argument(
        "--arch", metavar="SM", help=f"such as sm_80 (default: --gpu's, that of the GPU here, or {ARCH})"
    )
    parser.add_argument("--gpu", metavar="NAME", help=f"to predict for: {', '.join(GPUS)}")
    parser.add_argument("--runtime-shape", action="store_true", help="the kernel for any shape, none compiled in")
    parser.add_argument(
        "--emulate",
        type=int,
        default=MOST,
        metavar="N",
        help=f"operations of the emulated run, 0: no run (default: {MOST})",
    )
    parser.add_argument("--no-measure", action="store_true", help="do not time the call where there is a GPU")
    parser.add_argument("--output", metavar="DIR", help="save the report, sources, PTX and machine code here")


def _inspect(arguments: argparse.Namespace) -> int:
    x, w = arguments.x, arguments.w
    if arguments.layout == "NCHW":
        x, w = _to_nhwc("--x", x), None if w is None else _to_nhwc("--w", w)
    given = {
        name: getattr(arguments, name)
        for name in ("verb", "kind", "window", "stride", "padding", "dilation", "groups", "dtype", "algorithm")
    }
    try:
        found = inspect(
            arguments.operation,
            x=x,
            w=w,
            **given,
            kernels=arguments.set,
            arch=arguments.arch,
            gpu=arguments.gpu,
            specialised=not arguments.runtime_shape,
            emulate=arguments.emulate,
            measure=not arguments.no_measure,
        )
    except ValueError as error:
        other = "; or name them as they are, with --layout NCHW" if "from_nchw" in str(error) else ""
        raise UsageError(f"{error}{other}") from error
    print(found.text())
    if arguments.output:
        print(f"\nsaved in {found.save(arguments.output)}")
    return 0


def _to_nhwc(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 4:
        raise UsageError(f"--layout NCHW: {name} must have four sizes, received {','.join(map(str, shape))}")
    n, c, h, w = shape
    return n, h, w, c


def sizes(text: str) -> tuple[int, ...]:
    """An argument of sizes, N,H,W,C."""
    try:
        values = tuple(map(int, text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers with commas between them, received {text!r}") from None
    if min(values) < 1:
        raise argparse.ArgumentTypeError(f"sizes must be at least 1, received {text!r}")
    return values


def pair(text: str) -> int | tuple[int, int]:
    """An argument of one number, or of two for height and width."""
    try:
        values = tuple(map(int, text.split(",")))
        return values[0] if len(values) == 1 else (values[0], values[1])
    except (ValueError, IndexError):
        raise argparse.ArgumentTypeError(f"expected a number or two, H,W, received {text!r}") from None
