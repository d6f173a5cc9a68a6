"""``cnnengine compare``: features designed by hand beside networks, on images that were turned, darkened and so on."""

from __future__ import annotations

import argparse
import io
import json
import platform
import shlex
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..backends.registry import NAMES
from ..classic import comparison_file, disturbed, names
from ..classic.comparison import (
    AUGMENTED,
    Row,
    Trained,
    check_method,
    check_network,
    default_methods,
    fit_classic,
    score,
    settings_of,
    train_network,
)
from ..classic.comparison_file import Comparison
from ..data import Dataset
from ..errors import DataError
from ..serialize import write_atomically
from ..training import Interrupted, RunFolder, Settings, load_dataset
from ..training.interrupt import exit_status
from .common import UsageError, default_backend, positive

DATA = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100")
FORMATS = ("png", "svg", "pdf")
EPOCHS = 3
FILE = "robustness"
LIBRARIES = ("skimage", "sklearn", "scipy")


def add(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "compare",
        help="hand-made features beside networks, on disturbed images",
        description="Trains each method on clean images, and counts how often it is right about test images that were"
        " turned, scaled, moved, darkened and made noisy. Writes a table, its numbers and a picture into a folder; each"
        " network is a run folder in it. What was interrupted goes on with --resume.",
    )
    parser.set_defaults(run=_compare)
    parser.add_argument("--data", choices=DATA, default="digits", help="default: digits, which come with the package")
    parser.add_argument(
        "--root", metavar="DIR", help="folder that holds the data sets (default: CNNENGINE_DATA, or data)"
    )
    parser.add_argument(
        "--methods",
        metavar="LIST",
        help=f"of {', '.join(names())} (with a linear SVM) and the networks' names, which take {AUGMENTED} behind them"
        " (default: hog, lenet5, lenet5+augment, resnet20; those that take such images)",
    )
    parser.add_argument("--epochs", type=positive, default=EPOCHS, metavar="N", help=f"of networks (default: {EPOCHS})")
    parser.add_argument("--train", type=positive, metavar="N", help="only so many training images, chosen at random")
    parser.add_argument("--test", type=positive, metavar="N", help="only so many test images, chosen at random")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the networks (default: 0)")
    parser.add_argument("--output", metavar="DIR", help="the folder (default: runs/compare-DATA)")
    parser.add_argument("--format", choices=FORMATS, default="png", help="of the picture (default: png)")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="keep what the folder has, and do the rest")
    again.add_argument("--overwrite", action="store_true", help="begin anew in a folder that holds a comparison")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--backend", choices=NAMES, help="default: the fastest that is here")


def _compare(arguments: argparse.Namespace) -> int:
    if missing := [name for name in LIBRARIES if find_spec(name) is None]:
        raise UsageError(f"compare needs {' and '.join(missing)}: pip install 'cnnengine[classic]'")
    if arguments.seed < 0:
        raise UsageError(f"--seed must be at least 0, received {arguments.seed}")
    methods = _methods(arguments.methods)
    backend = arguments.backend or default_backend()
    folder = Path(arguments.output or f"runs/compare-{arguments.data}")
    path = folder / f"{FILE}.json"
    if path.exists() and not (arguments.resume or arguments.overwrite):
        raise UsageError(f"{path} holds a comparison already: go on with --resume, or begin anew with --overwrite")
    dataset = _dataset(arguments)
    facts = {
        "data": dataset.name,
        "train_images": len(dataset.train_images),
        "test_images": len(dataset.test_images),
        "epochs": arguments.epochs,
        "seed": arguments.seed,
        "backend": backend,
    }
    known = comparison_file.read(path, facts) if arguments.resume and path.exists() else Comparison(facts)
    methods = methods or default_methods(dataset)
    for method in (m for m in methods if m not in names() and m not in known.methods):
        check_network(_settings(method, arguments, backend), dataset)
    say = sys.stderr if arguments.json else sys.stdout
    test_sets = disturbed(dataset.test_images)
    known.about = _about(arguments)
    known.write(path)
    for method in methods:
        if method in known.methods:
            print(f"{method}: kept from {path}", file=say)
            continue
        print(f"{method}: training on {len(dataset.train_images):,} images of {dataset.name}", file=say, flush=True)
        try:
            trained = _trained(method, dataset, folder / method, arguments, backend, say)
        except Interrupted as error:
            print(f"\ninterrupted; to go on:\n  {_command(arguments)} --resume", file=sys.stderr)
            return exit_status(error.by)
        rows = score(trained, test_sets, dataset.test_labels, lambda row: _report(row, say))
        known.add(method, trained.parameters, trained.seconds, rows)
        known.write(path)
    lines = _written(known, folder, arguments.format, test_sets, dataset.test_labels)
    print(json.dumps(known.as_dict(), indent=2, ensure_ascii=False) if arguments.json else known.markdown())
    print("\n".join(lines), file=say)
    return 0


def _methods(text: str | None) -> tuple[str, ...]:
    """The methods asked for. Raises UsageError for one that is not known, or is there twice."""
    methods = () if text is None else tuple(text.split(","))
    for method in methods:
        try:
            check_method(method)
        except ValueError as error:
            raise UsageError(f"--methods: {error}") from error
    if len(set(methods)) != len(methods):
        raise UsageError(f"--methods names one twice: {text}")
    return methods


def _dataset(arguments: argparse.Namespace) -> Dataset:
    dataset = load_dataset(arguments.data, arguments.root)
    if not isinstance(dataset, Dataset):
        raise DataError(f"{dataset.name}: only images in memory can be compared")
    return dataset.part_of(arguments.train, arguments.test)


def _trained(
    method: str, dataset: Dataset, path: Path, arguments: argparse.Namespace, backend: str, say: Any
) -> Trained:
    if method in names():
        return fit_classic(method, dataset)
    return train_network(
        _settings(method, arguments, backend),
        method,
        dataset,
        RunFolder(path),
        resume=arguments.resume,
        report=lambda line: print(f"  {line}", file=say, flush=True),
    )


def _settings(method: str, arguments: argparse.Namespace, backend: str) -> Settings:
    return settings_of(method, arguments.data, epochs=arguments.epochs, seed=arguments.seed, backend=backend)


def _report(row: Row, say: Any) -> None:
    print(f"  {row.method} {row.test_set}: {100 * row.accuracy:.2f} %", file=say, flush=True)


def _written(
    known: Comparison, folder: Path, kind: str, test_sets: dict[str, np.ndarray], labels: np.ndarray
) -> list[str]:
    """Writes the table and the picture; what to tell of it."""
    facts = known.facts
    origin = (
        f"{facts['data']}: accuracy in %, {facts['train_images']:,} training and {facts['test_images']:,} test images;"
        f" networks: {facts['epochs']} epochs, seed {facts['seed']}, backend {facts['backend']}."
        f" `{known.about['command']}`"
    )
    write_atomically(folder / f"{FILE}.md", f"{known.markdown()}\n\n{origin}\n".encode())
    written = [f"{FILE}.json", f"{FILE}.md"]
    if find_spec("matplotlib") is None:
        return [
            f"{folder}: {', '.join(written)}",
            "no picture: matplotlib is not installed (pip install 'cnnengine[plot]')",
        ]
    from ..classic.comparison_picture import draw

    content = io.BytesIO()
    draw(known, test_sets, labels).savefig(content, format=kind)
    write_atomically(folder / f"{FILE}.{kind}", content.getvalue())
    return [f"{folder}: {', '.join([*written, f'{FILE}.{kind}'])}"]


def _about(arguments: argparse.Namespace) -> dict[str, Any]:
    from .. import __version__

    packages = ("numpy", "scipy", "scikit-image", "scikit-learn")
    return {
        "command": _command(arguments),
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {
            "cnnengine": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in packages},
        },
    }


def _command(arguments: argparse.Namespace) -> str:
    words = ["cnnengine", "compare", "--data", arguments.data]
    for name in ("root", "methods", "epochs", "train", "test", "seed", "output", "format", "backend"):
        value = getattr(arguments, name)
        if value is not None:
            words += [f"--{name}", str(value)]
    return shlex.join(words)
