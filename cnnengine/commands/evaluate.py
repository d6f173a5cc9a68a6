"""``cnnengine evaluate``: top-1 and top-5 error of a network on a folder of labelled images."""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from ..backends.registry import NAMES
from ..errors import DataError
from ..models import registry
from ..training import Interrupted, from_network
from ..training.interrupt import exit_status
from ..training.scoring import Results, Score, fingerprint, labelled_images, score_images
from .common import UsageError, default_backend, positive


def add(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "evaluate",
        help="top-1 and top-5 error on a folder of labelled images",
        description="Counts how often a network is right about the images of DIR/CLASS/, for ImageNet"
        " DIR/n01440764/*.JPEG, each cut and scaled as the network's authors did. The score so far is kept in a file:"
        " what was interrupted goes on with --resume.",
    )
    parser.set_defaults(run=_evaluate)
    parser.add_argument("model", metavar="MODEL", choices=registry.names(), help="a network's name")
    parser.add_argument("--weights", metavar="FILE", required=True, help=".safetensors, or PyTorch's .pth")
    parser.add_argument("--data", metavar="DIR", required=True, help="a folder with a folder of images for each class")
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="a line for each class in the order of the network's, which begins with the folder's name (default: the"
        " folders have the classes' names, or their sorted order)",
    )
    parser.add_argument("--batch-size", type=positive, default=64, metavar="N", help="default: 64")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read images (default: 0)")
    parser.add_argument("--limit", type=positive, metavar="N", help="only so many images, chosen at random")
    parser.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="at an image that cannot be read (default: raise)",
    )
    parser.add_argument("--output", metavar="FILE", help="the score's file (default: evaluate-MODEL.json)")
    parser.add_argument("--resume", action="store_true", help="go on from the score's file")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--backend", choices=NAMES, help="default: the fastest that is here")


def _evaluate(arguments: argparse.Namespace) -> int:
    if arguments.workers < 0:
        raise UsageError(f"--workers must be at least 0, received {arguments.workers}")
    backend = arguments.backend or default_backend()
    classifier = from_network(arguments.model, arguments.weights)
    images = labelled_images(
        classifier, arguments.data, labels=arguments.labels, limit=arguments.limit, on_error=arguments.on_error
    )
    facts = {
        "model": arguments.model,
        "weights": hashlib.sha256(Path(arguments.weights).read_bytes()).hexdigest()[:16],
        "images": len(images),
        "files": fingerprint(images),
        "batch_size": arguments.batch_size,
    }
    results = Results(Path(arguments.output or f"evaluate-{arguments.model}.json"), facts)
    score, done = results.read() if arguments.resume else (Score(), False)
    if not arguments.resume and _unfinished(results.path):
        raise UsageError(f"{results.path} holds an unfinished evaluation: go on with --resume, or remove it")
    if not done:
        try:
            score = score_images(
                classifier,
                images,
                backend,
                batch_size=arguments.batch_size,
                workers=arguments.workers,
                score=score,
                save=results.write,
            )
        except Interrupted as error:
            kept, _ = results.read()
            print(
                f"\ninterrupted behind {kept.images:,} of {len(images):,} images; {results.path} is saved. To go on:\n"
                f"  {_command(arguments)}",
                file=sys.stderr,
            )
            return exit_status(error.by)
    print(_json(arguments, score) if arguments.json else _text(arguments, score))
    return 0


def _unfinished(path: Path) -> bool:
    """Whether the file is of an evaluation that was not finished; raises DataError where it is something else."""
    if not path.exists():
        return False
    try:
        return not json.loads(path.read_bytes())["done"]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not the results of an evaluation, so it is not overwritten") from error


def _command(arguments: argparse.Namespace) -> str:
    words = ["cnnengine", "evaluate", arguments.model]
    for name in ("weights", "data", "labels", "batch_size", "workers", "limit", "on_error", "output", "backend"):
        value = getattr(arguments, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join([*words, "--resume"] + ["--json"] * arguments.json)


def _text(arguments: argparse.Namespace, score: Score) -> str:
    skipped = f", {len(score.skipped):,} skipped" if score.skipped else ""
    return (
        f"{arguments.model} on {arguments.data}: {score.images:,} images{skipped}\n"
        f"top-1 error {100 * score.top1_error:.2f} %, top-5 error {100 * score.top5_error:.2f} %"
        f" in {score.seconds:.1f} s"
    )


def _json(arguments: argparse.Namespace, score: Score) -> str:
    rows = {
        "model": arguments.model,
        "data": arguments.data,
        "images": score.images,
        "top1_error": round(score.top1_error, 6),
        "top5_error": round(score.top5_error, 6),
        "seconds": round(score.seconds, 3),
        "skipped": score.skipped,
    }
    return json.dumps(rows, indent=2, ensure_ascii=False)
