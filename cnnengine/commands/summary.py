"""``cnnengine summary``: a model's layers, parameters, multiply-adds and memory."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import DataError
from ..models import registry
from ..models.summary import summary
from .common import positive


def add(commands: Any) -> None:
    """Tells argparse about the command."""
    table = commands.add_parser(
        "summary",
        help="list a model's layers",
        description="Prints each layer's output, parameters, multiply-adds (MACs) and memory, and their totals."
        " Nothing is computed.",
    )
    table.set_defaults(run=_summary)
    table.add_argument("model", choices=registry.names())
    table.add_argument("--image", type=_image, metavar="H,W,C", help="height, width, channels (default: the model's)")
    table.add_argument("--batch", type=positive, default=1, metavar="N", help="images (default: 1)")
    table.add_argument("--classes", type=positive, metavar="N", help="of the model (default: the model's)")


def _summary(arguments: argparse.Namespace) -> int:
    options = {} if arguments.classes is None else {"num_classes": arguments.classes}
    model = registry.create(arguments.model, **options)
    image = arguments.image or registry.entry(arguments.model).image
    try:
        print(summary(model, (arguments.batch, *image)))
    except ValueError as error:
        raise DataError(f"{arguments.model} does not take images {image}: {error}") from error
    return 0


def _image(text: str) -> tuple[int, int, int]:
    try:
        height, width, channels = map(int, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected three numbers H,W,C, received {text!r}") from None
    if min(height, width, channels) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, received {text!r}")
    return height, width, channels
