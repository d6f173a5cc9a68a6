"""``cnnengine predict``: the likeliest classes of images."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from ..backends.registry import NAMES
from ..data.decode import SUFFIXES
from ..errors import DataError
from ..models import registry
from ..training.predict import Classifier, Guess, classify, from_network, from_run
from .common import UsageError, default_backend, positive

RUN_TOP, NETWORK_TOP = 3, 5  # classes shown by default


def add(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "predict",
        help="classify images",
        description="Prints the likeliest classes of each image. With a run folder: of what was trained there, in a"
        " line each. With a network's name and --weights: of ImageNet's classes, or those the file names, in a table"
        " each. A photograph is cut and scaled as the network's authors did; for networks of digits a picture of any"
        " size is cropped to its figure, scaled to 20 pixels and centred in 28 x 28 as MNIST's were.",
    )
    parser.set_defaults(run=_predict)
    parser.add_argument("model", metavar="MODEL", help="a run folder, a .safetensors file of one, or a network's name")
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", help="an image in a format Pillow reads, a folder of them, or a pattern"
    )
    parser.add_argument(
        "--weights", metavar="FILE", help="of the network that MODEL names: .safetensors, or PyTorch's .pth"
    )
    parser.add_argument(
        "--top", type=positive, metavar="N", help=f"classes (default: {RUN_TOP} of a run, {NETWORK_TOP} of a network)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON: a list with an object for each image")
    parser.add_argument("--backend", choices=NAMES, help="default: the fastest that is here")


def _predict(arguments: argparse.Namespace) -> int:
    backend = arguments.backend or default_backend()
    images = image_files(arguments.images)
    classifier = trained(arguments.model, arguments.weights)
    is_run = arguments.weights is None
    results = zip(
        images,
        classify(classifier, images, backend, arguments.top or (RUN_TOP if is_run else NETWORK_TOP)),
        strict=True,
    )
    if arguments.json:
        print(_json(results))
        return 0
    width = max(map(len, images))
    for image, guesses in results:
        if is_run:
            print(f"{image:{width}}  " + "   ".join(f"{g.name} {100 * g.probability:5.1f} %" for g in guesses))
        else:
            print("\n".join([image, *(f"  {100 * g.probability:5.1f} %  {g.label:4}  {g.name}" for g in guesses)]))
    return 0


def trained(model: str, weights: str | None) -> Classifier:
    """What the arguments MODEL and --weights name. Raises UsageError and DataError."""
    if weights is None:
        if model in registry.names() and not Path(model).exists():
            raise UsageError(f"{model} has no weights of its own: name a file of them with --weights")
        return from_run(model)
    if model not in registry.names():
        raise UsageError(f"--weights: there is no network {model!r}; there are {', '.join(sorted(registry.names()))}")
    return from_network(model, weights)


def image_files(arguments: Iterable[str]) -> list[str]:
    """The files that are meant: those in a folder by their names, sorted; those that fit a pattern; any other argument
    as it is. Raises DataError for a folder without images, and a pattern that nothing fits."""
    files: list[str] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            found = sorted(str(p) for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
            if not found:
                raise DataError(f"{argument}: there is no image in this folder ({', '.join(SUFFIXES)})")
        elif has_magic(argument) and not path.exists():
            found = sorted(name for name in glob(argument, recursive=True) if Path(name).is_file())
            if not found:
                raise DataError(f"{argument}: no file fits this pattern")
        else:
            found = [argument]
        files += found
    return files


def _json(results: Iterable[tuple[str, list[Guess]]]) -> str:
    rows = [
        {
            "image": image,
            "guesses": [{"class": g.label, "name": g.name, "probability": round(g.probability, 6)} for g in guesses],
        }
        for image, guesses in results
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False)
