"""``cnnengine selfsup``: a network learns from pictures without labels; then, how few labels it needs."""

from __future__ import annotations

import argparse
import io
import json
import platform
import shlex
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..backends.registry import NAMES
from ..data import Dataset
from ..errors import DataError
from ..models import registry
from ..selfsup import METHODS, Curves, Pretraining, curves, pretrain
from ..selfsup.label_curves import SHARES
from ..selfsup.pretraining import CHECKPOINT
from ..serialize import write_atomically
from ..training import Interrupted, load_dataset
from ..training.interrupt import exit_status
from .common import UsageError, default_backend, positive

DATA = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100")
NETWORKS = {1: "lenet5", 3: "resnet20"}  # by the channels of the images
USUAL = Pretraining()
FILE = "selfsup"


def add(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "selfsup",
        help="learn without labels",
        description="Trains a network on pictures without looking at their labels: simclr (two views of a picture are"
        " alike), rotation (by how many right angles it was turned), or masked (hidden patches are painted). Then a"
        " linear layer and the nearest neighbours classify its features with few labels and with all, beside the same"
        " network untrained, and trained from scratch on the same labels. What was interrupted goes on with --resume.",
    )
    parser.set_defaults(run=_selfsup)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("--data", choices=DATA, default="digits", help="default: digits, which come with the package")
    parser.add_argument("--root", metavar="DIR", help="folder of the data sets (default: CNNENGINE_DATA, or data)")
    parser.add_argument(
        "--model",
        choices=registry.names(),
        help="of simclr and rotation (default: lenet5 for grey images, resnet20 for colour); masked has its own",
    )
    parser.add_argument("--epochs", type=positive, default=USUAL.epochs, metavar="N", help=f"default: {USUAL.epochs}")
    parser.add_argument(
        "--batch-size", type=positive, default=USUAL.batch_size, metavar="N", help=f"default: {USUAL.batch_size}"
    )
    parser.add_argument("--lr", type=float, default=USUAL.lr, metavar="X", help=f"default: {USUAL.lr}")
    parser.add_argument("--warmup", type=float, metavar="EPOCHS", help="a linear rise (default: 1; 0 for one epoch)")
    parser.add_argument(
        "--temperature",
        type=float,
        default=USUAL.temperature,
        metavar="X",
        help=f"of simclr (default: {USUAL.temperature})",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that make views (default: 0)")
    parser.add_argument("--train", type=positive, metavar="N", help="only so many training images, chosen at random")
    parser.add_argument("--test", type=positive, metavar="N", help="only so many test images, chosen at random")
    usual = ",".join(f"{share:g}" for share in SHARES)
    parser.add_argument(
        "--shares", type=_shares, default=SHARES, metavar="LIST", help=f"of the labels (default: {usual})"
    )
    parser.add_argument(
        "--scratch-epochs",
        type=int,
        default=10,
        metavar="N",
        help="from scratch with all labels; with fewer labels up to ten times as many (default: 10; 0: not at all)",
    )
    parser.add_argument("--output", metavar="DIR", help="the folder (default: runs/selfsup-METHOD-DATA)")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on behind the last epoch that was done")
    again.add_argument("--overwrite", action="store_true", help="begin anew in a folder that holds a run")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--backend", choices=NAMES, help="default: the fastest that is here")


def _selfsup(arguments: argparse.Namespace) -> int:
    for name in ("seed", "workers", "scratch_epochs"):
        if getattr(arguments, name) < 0:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 0, received {getattr(arguments, name)}")
    if arguments.method == "masked" and arguments.model is not None:
        raise UsageError("--model is for simclr and rotation: masked has a transformer of its own")
    folder = Path(arguments.output or f"runs/selfsup-{arguments.method}-{arguments.data}")
    if (folder / CHECKPOINT).exists() and not (arguments.resume or arguments.overwrite):
        raise UsageError(f"{folder} holds a run already: go on with --resume, or begin anew with --overwrite")
    backend = arguments.backend or default_backend()
    dataset = load_dataset(arguments.data, arguments.root)
    if not isinstance(dataset, Dataset):
        raise DataError(f"{dataset.name}: only images in memory can be learned from")
    dataset = dataset.part_of(arguments.train, arguments.test)
    settings = _settings(arguments, dataset, backend)
    say = sys.stderr if arguments.json else sys.stdout

    def report(line: str) -> None:
        print(line, file=say, flush=True)

    report(f"{settings.method}: {len(dataset.train_images):,} images of {dataset.name} without labels, into {folder}")
    try:
        task, history = pretrain(
            settings, dataset, folder, resume=arguments.resume, workers=arguments.workers, report=report
        )
        found = curves(
            task,
            settings,
            dataset,
            folder,
            shares=arguments.shares,
            scratch_epochs=arguments.scratch_epochs,
            resume=arguments.resume,
            report=report,
        )
    except Interrupted as error:
        print(f"\ninterrupted; to go on:\n  {_command(arguments)} --resume", file=sys.stderr)
        return exit_status(error.by)
    result = _result(arguments, settings, dataset, task.width, history, found)
    lines = _written(folder, result, history, found)
    report("\n".join(lines))
    print(json.dumps(result, indent=2) if arguments.json else found.markdown())
    return 0


def _settings(arguments: argparse.Namespace, dataset: Dataset, backend: str) -> Pretraining:
    usual_warmup = USUAL.warmup if arguments.epochs > USUAL.warmup else 0.0
    try:
        return Pretraining(
            method=arguments.method,
            model="" if arguments.method == "masked" else arguments.model or NETWORKS[dataset.train_images.shape[3]],
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            lr=arguments.lr,
            warmup=usual_warmup if arguments.warmup is None else arguments.warmup,
            temperature=arguments.temperature,
            seed=arguments.seed,
            backend=backend,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def _result(
    arguments: argparse.Namespace,
    settings: Pretraining,
    dataset: Dataset,
    width: int,
    history: list[dict[str, float]],
    found: Curves,
) -> dict[str, Any]:
    from .. import __version__

    return {
        "settings": asdict(settings),
        "data": dataset.name,
        "train_images": len(dataset.train_images),
        "test_images": len(dataset.test_images),
        "features": width,
        "scratch_epochs": arguments.scratch_epochs,
        "history": history,
        "rows": found.as_list(),
        "command": _command(arguments),
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {"cnnengine": __version__, "python": platform.python_version()},
    }


def _written(folder: Path, result: dict[str, Any], history: list[dict[str, float]], found: Curves) -> list[str]:
    """Writes the numbers, the table and the picture; what to tell of it."""
    write_atomically(folder / f"{FILE}.json", (json.dumps(result, indent=2) + "\n").encode())
    write_atomically(folder / f"{FILE}.md", f"{found.markdown()}\n\n`{result['command']}`\n".encode())
    written = f"{folder}: {FILE}.json, {FILE}.md"
    if find_spec("matplotlib") is None:
        return [written, "no picture: matplotlib is not installed (pip install 'cnnengine[plot]')"]
    from ..selfsup.picture import draw

    settings, content = result["settings"], io.BytesIO()
    title = f"{settings['method']} {settings['model']}".strip() + f" on {result['data']}, {settings['epochs']} epochs"
    draw(history, found, title).savefig(content, format="png")
    write_atomically(folder / f"{FILE}.png", content.getvalue())
    return [f"{written}, {FILE}.png"]


def _shares(text: str) -> tuple[float, ...]:
    shares = tuple(float(part) for part in text.split(","))
    if not all(0 < share <= 1 for share in shares):
        raise argparse.ArgumentTypeError(f"must lie in (0, 1], received {text}")
    return shares


def _command(arguments: argparse.Namespace) -> str:
    words = ["cnnengine", "selfsup", arguments.method, "--data", arguments.data]
    for name in (
        "root", "model", "epochs", "batch_size", "lr", "warmup", "temperature", "seed", "workers", "train", "test",
        "scratch_epochs", "output", "backend",
    ):  # fmt: skip
        if (value := getattr(arguments, name)) is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join([*words, "--shares", ",".join(f"{share:g}" for share in arguments.shares)])
