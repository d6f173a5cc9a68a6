"""The ``cnnengine`` command: ``--help`` lists what it does; most have a file in commands/.

Exit status: 0 done, 2 wrong usage or an error said in one sentence, 130 ended by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import __version__, backends
from .backends.registry import NAMES
from .commands import compare, evaluate, explain, inspect, predict, report, selfsup, summary, trace, train_flags
from .commands.common import UsageError, default_backend, positive, warn
from .cuda.precompile import DTYPES, precompile
from .errors import BackendUnavailable, DataError, KernelError, Unsupported, WorkerDied
from .jit import cache
from .models import registry
from .training import Interrupted, RunFolder, Settings, Trainer, load_dataset
from .training.interrupt import exit_status
from .training.results import write_results
from .training.settings import DATASETS, EPOCHS, FREE, OTHER_EPOCHS

USAGE_ERROR, INTERRUPTED = 2, 130
INTERPRETED = ("emulator", "numba")  # on the CPU these run a GPU's threads one by one
RUNS = Path("runs")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as exit_:  # argparse has printed help, or what is wrong
        return exit_.code if isinstance(exit_.code, int) else USAGE_ERROR
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *where, **how: warn(str(message))
            return arguments.run(arguments)  # type: ignore[no-any-return]
    except KeyboardInterrupt:
        print("\ncnnengine: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone: nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (UsageError, DataError, BackendUnavailable, Unsupported, KernelError, WorkerDied) as error:
        print(f"cnnengine: error: {error}", file=sys.stderr)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        print(f"cnnengine: error: {name}{error.strerror or error}", file=sys.stderr)
    return USAGE_ERROR


def _train(arguments: argparse.Namespace) -> int:
    given = {name: getattr(arguments, name) for name in Settings.__dataclass_fields__}
    given = {name: value for name, value in given.items() if value is not None}
    folder = _run_folder(arguments)
    if arguments.resume:
        known = folder.read_checkpoint().settings
        try:
            settings = Settings(**known | {name: given[name] for name in FREE if name in given})
        except (TypeError, ValueError) as error:
            raise DataError(f"{folder.checkpoint}: not a checkpoint of this version of cnnengine: {error}") from error
        conflicts = settings.conflicts(given)
        if conflicts:
            raise UsageError(f"{folder.path} cannot be resumed with other settings: {'; '.join(conflicts)}")
    else:
        settings = _settings(given)
    backends.get(settings.backend)  # a reason why not comes before anything is loaded
    dataset = load_dataset(settings.data, settings.root)
    trainer = Trainer(settings, dataset, folder, resume=arguments.resume)
    if not arguments.resume:
        folder.prepare()
    parameters = sum(p.size for p in trainer.model.parameters())
    print(
        f"{settings.model}, {parameters:,} parameters; {dataset.name}, {len(dataset.train):,} training and"
        f" {len(dataset.test):,} test images; backend {settings.backend}, seed {settings.seed};"
        f" into {folder.path}"
    )
    if settings.backend in INTERPRETED and trainer.device == "cpu":
        print(f"{settings.backend} interprets GPU kernels on the CPU: exact, and far too slow for whole data sets")
    if arguments.resume:
        done = trainer.progress
        print(f"resumed behind epoch {done.epoch}, batch {done.batch} of {trainer.batches}")
    try:
        trainer.run()
    except Interrupted as interrupted:
        done = trainer.progress
        print(
            f"\ninterrupted in epoch {done.epoch + 1} of {settings.epochs}, behind batch {done.batch} of"
            f" {trainer.batches}; {folder.checkpoint} and {folder.model.name} are saved. To go on:\n"
            f"  {_resume_command(arguments, folder)}",
            file=sys.stderr,
        )
        return exit_status(interrupted.by)
    if trainer.stopped_early:
        print(f"stopped early: epoch {trainer.best_epoch} has the best {settings.monitor}")
    lines = write_results(trainer)
    last = trainer.progress.history[-1]
    print(
        f"test accuracy {100 * last['test_accuracy']:.2f} % after {last['epoch']} epochs in"
        f" {trainer.progress.seconds:.1f} s"
    )
    print("\n".join(lines))
    if not math.isfinite(last["train_loss"]):
        warn(f"the loss is {last['train_loss']}: training has diverged, a smaller --lr may help")
    return 0


def _settings(given: dict[str, Any]) -> Settings:
    try:
        return Settings(**given | {"backend": given.get("backend") or default_backend()})
    except ValueError as error:
        raise UsageError(str(error)) from error


def _run_folder(arguments: argparse.Namespace) -> RunFolder:
    """The folder asked for; without a name the first free of runs/MODEL-DATA, runs/MODEL-DATA-2, ..."""
    if arguments.run_dir is not None:
        if not arguments.run_dir:
            raise UsageError("--run-dir must name a folder, received ''")
        folder = RunFolder(arguments.run_dir)
    elif arguments.name is not None:
        if Path(arguments.name).name != arguments.name or arguments.name in ("", ".", ".."):
            raise UsageError(f"--name must be a plain name, received {arguments.name!r}; for a path use --run-dir")
        folder = RunFolder(RUNS / arguments.name)
    elif arguments.resume:
        known = sorted(p.parent.name for p in RUNS.glob("*/checkpoint.safetensors"))
        there = f"in {RUNS} there are {', '.join(known)}" if known else f"in {RUNS} there are none"
        raise UsageError(f"--resume needs to know which run, by --name or --run-dir; {there}")
    else:
        base, number = f"{arguments.model}-{arguments.data or Settings.data}", 2
        folder = RunFolder(RUNS / base)
        while folder.holds_a_run:
            folder, number = RunFolder(RUNS / f"{base}-{number}"), number + 1
    if folder.path.exists() and not folder.path.is_dir():
        raise UsageError(f"{folder.path} is a file: a run needs a folder")
    if folder.holds_a_run and not (arguments.resume or arguments.overwrite):
        raise UsageError(f"{folder.path} holds a run already: go on with --resume, or begin anew with --overwrite")
    return folder


def _resume_command(arguments: argparse.Namespace, folder: RunFolder) -> str:
    return shlex.join(["cnnengine", "train", arguments.model, "--run-dir", str(folder.path), "--resume"])


def _precompile(arguments: argparse.Namespace) -> int:
    network = registry.entry(arguments.model)
    shape = (arguments.batch, *network.image)
    try:
        made = precompile(
            network.build(num_classes=arguments.classes),
            shape,
            training=not arguments.inference,
            dtype=arguments.dtype,
            arch=arguments.arch,
            workers=arguments.workers,
        )
    except ValueError as error:  # of the architecture: argparse has checked the rest
        raise UsageError(f"--arch: {error}") from error
    step = "inference" if arguments.inference else "training"
    print(
        f"{arguments.model}, {step} in {arguments.dtype}, batch {arguments.batch}, {made.arch}: {made.kernels}"
        f" kernels, {made.compiled} compiled in {made.seconds:.1f} s ({made.cpu_seconds:.1f} CPU seconds, workers"
        f" {made.workers})"
    )
    return 0


def _backends(arguments: argparse.Namespace) -> int:
    rows = [("backend", "device", "dtypes", "state")]
    for name, reason in backends.available().items():
        if reason is not None:
            rows.append((name, "", "", f"not available: {reason}"))
            continue
        backend = backends.get(name)
        rows.append((name, backend.device, ", ".join(sorted(backend.dtypes)), "available"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)) + f"  {row[3]}")
    print(f"by default: {default_backend()} (--backend, or CNNENGINE_BACKEND, chooses another)")
    return 0


def _cache(arguments: argparse.Namespace) -> int:
    store = cache.Cache(cache.default_folder())
    if arguments.action == "clear":
        print(f"{store.folder}: {store.clear()} compiled kernels removed")
    else:
        entries, size = store.size()
        print(f"{store.folder}: {entries} compiled kernels, {size / 1e6:.1f} of at most {store.limit / 1e6:.0f} MB")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "cnnengine", description="Train and use convolutional networks with kernels that can be read."
    )
    parser.add_argument("--version", action="version", version=f"cnnengine {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser(
        "train",
        help="train a model",
        description="Trains a model into a run folder: weights, checkpoint, metrics.json, epochs.csv and pictures."
        " The same settings on the same machine give the same weights, bit for bit. Ctrl-C and SIGTERM save a"
        " checkpoint.",
    )
    train.set_defaults(run=_train)
    train.add_argument("model", choices=registry.names())
    train.add_argument("--data", choices=DATASETS, help="digits (default) come with the package; the others are files")
    train.add_argument(
        "--root",
        metavar="DIR",
        help="folder that holds the data sets, or for --data folder train/CLASS/ and val/CLASS/ (default:"
        " CNNENGINE_DATA, else data)",
    )
    epochs = ", ".join(f"{count} for {name}" for name, count in EPOCHS.items()) + f", else {OTHER_EPOCHS}"
    train.add_argument("--epochs", type=positive, metavar="N", help=f"default: {epochs}")
    train.add_argument("--batch-size", type=positive, metavar="N", help=f"default: {Settings().batch_size}")
    train.add_argument("--lr", type=_not_negative, metavar="X", help=f"first learning rate (default: {Settings().lr})")
    train.add_argument("--momentum", type=_not_negative, metavar="X", help=f"default: {Settings().momentum}")
    train.add_argument("--weight-decay", type=_not_negative, metavar="X", help=f"default: {Settings().weight_decay}")
    train.add_argument("--seed", type=_seed, metavar="N", help="default: 0")
    train.add_argument("--backend", choices=NAMES, help="default: the fastest that is here")
    train_flags.add(train)
    where = train.add_mutually_exclusive_group()
    where.add_argument("--name", help="the run folder is runs/NAME (default: the model's and the data's name)")
    where.add_argument("--run-dir", metavar="DIR", help="the run folder itself")
    again = train.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on from the run's checkpoint, with its settings")
    again.add_argument("--overwrite", action="store_true", help="begin anew in a folder that holds a run")

    compare.add(commands)
    predict.add(commands)
    evaluate.add(commands)
    inspect.add(commands)
    selfsup.add(commands)
    explain.add(commands)

    ahead = commands.add_parser(
        "precompile",
        help="compile a model's CUDA kernels ahead",
        description="Compiles every kernel that a step of the model launches on a GPU, into the cache, in several"
        " processes. With --arch no GPU is needed.",
    )
    ahead.set_defaults(run=_precompile)
    ahead.add_argument("model", choices=registry.names())
    ahead.add_argument("--batch", type=positive, default=64, metavar="N", help="images (default: 64)")
    ahead.add_argument("--classes", type=positive, default=10, metavar="N", help="of the model (default: 10)")
    ahead.add_argument("--dtype", choices=DTYPES, default="float32", help="of convolutions and products (autocast)")
    ahead.add_argument("--inference", action="store_true", help="not a training step with SGD, the forward pass alone")
    ahead.add_argument("--arch", metavar="SM", help="such as sm_90a (default: that of the GPU that is here)")
    ahead.add_argument("--workers", type=positive, metavar="N", help="processes (default: one a core)")

    report.add(commands)
    summary.add(commands)
    trace.add(commands)

    table = commands.add_parser("backends", help="list the backends, and why one is not available")
    table.set_defaults(run=_backends)

    store = commands.add_parser("cache", help="show or clear the cache of compiled kernels")
    store.set_defaults(run=_cache)
    store.add_argument("action", choices=("info", "clear"), nargs="?", default="info")
    return parser


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**64:
        raise argparse.ArgumentTypeError(f"must lie in [0, 2**64), received {text}")
    return value


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a finite number, 0 or above, received {text}")
    return value
