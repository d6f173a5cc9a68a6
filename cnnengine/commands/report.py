"""``cnnengine report``: one page of benchmark results, and the same as Markdown and pictures."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from .common import UsageError, warn

RESULTS = Path("bench/results")
CHECKOUT = Path(__file__).resolve().parents[2]
INCOMPLETE = 1  # bench/run.py's exit status where a race failed


def add(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "report",
        help="benchmark results as one page",
        description="Draws the result files of bench/run.py: how many times faster, the roofline, each layer's ladder,"
        " a table of all of them, and where the numbers come from. The page needs no network. Files of several runs of"
        " one machine are put together, several machines get a chapter each.",
    )
    parser.set_defaults(run=_report)
    parser.add_argument(
        "results", nargs="*", type=Path, metavar="RESULTS", help=f"files of rows (default: all in {RESULTS})"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="PAGE.html", help="the page")
    parser.add_argument("--markdown", type=Path, metavar="PAGE.md", help="the tables as Markdown too")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="each figure as SVG and PNG too")
    parser.add_argument(
        "--run",
        nargs="*",
        metavar="SUITE",
        dest="suites",
        help="measure these suites first (without a name all), in a checkout; the rows are kept beside the page",
    )
    parser.add_argument(
        "--predict",
        metavar="GPU",
        dest="gpu",
        help="what a GPU such as H100 would make of each rung of the CUDA convolution, by the machine code and the"
        " emulator's counts, about a minute; the rows are kept beside the page",
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="with --run: races whose name contains it")
    parser.add_argument("--seconds", type=float, metavar="S", help="with --run: of each race (default: by suite)")


def _report(arguments: argparse.Namespace) -> int:
    from ..report import predictions
    from ..report.figures import figures
    from ..report.markdown import document
    from ..report.page import page
    from ..report.rows import by_machine, read

    if arguments.suites is None and (arguments.only or arguments.seconds is not None):
        raise UsageError("--only and --seconds say what --run measures, which is not given")
    files = list(arguments.results)
    if arguments.suites is not None:
        files.append(_measured(arguments))
    elif not files:
        files = sorted(RESULTS.glob("*.jsonl"))
    if not files:
        raise UsageError(f"no result files are named, and there are none in {RESULTS}; bench/run.py writes them")
    if arguments.gpu is not None:
        files.append(_predicted(arguments))
    rows = [row for file in files for row in read(file)]
    try:
        text = page(rows)
    except ValueError as error:
        raise DataError(f"{', '.join(map(str, files))}: {error}") from error
    arguments.output.write_text(text, encoding="utf-8")
    print(f"{arguments.output}: {len(rows):,} rows of {len(files)} files, {len(text) / 1e6:.1f} MB")
    if arguments.markdown:
        arguments.markdown.write_text(document(rows), encoding="utf-8")
        print(arguments.markdown)
    if arguments.figures:
        arguments.figures.mkdir(parents=True, exist_ok=True)
        machines = by_machine(rows)
        drawn = {
            f"{f'{number}-' if len(machines) > 1 else ''}{name}": drawing
            for number, of in enumerate(machines.values(), start=1)
            for name, drawing in figures(of).items()
        }
        guessed = predictions.predicted(rows)
        if any(predictions.asked(row) for row in guessed):
            drawn["predicted-traffic"] = predictions.traffic(guessed)
        for name, drawing in drawn.items():
            (arguments.figures / f"{name}.svg").write_text(drawing.svg(alone=True), encoding="utf-8")
            drawing.png(arguments.figures / f"{name}.png")
        print(f"{arguments.figures}: {len(drawn)} figures as SVG and PNG")
    return 0


def _predicted(arguments: argparse.Namespace) -> Path:
    """The file of fresh predictions, which is kept beside the page."""
    from ..report.predicted import predictions

    output: Path = arguments.output.with_name(f"{arguments.output.stem}-predicted.jsonl")
    try:
        rows = predictions(arguments.gpu)
    except ValueError as error:
        raise UsageError(f"--predict: {error}") from error
    with output.open("w", encoding="utf-8") as file:
        for row in rows:
            print(f"predicted {row['case']}, {row['dtype']}, {row['rung']}", flush=True)
            file.write(json.dumps(row) + "\n")
    return output


def _measured(arguments: argparse.Namespace) -> Path:
    """The file of a fresh run, which a checkout's bench/run.py writes beside the page."""
    checkout = next((c for c in (Path.cwd(), CHECKOUT) if (c / "bench" / "run.py").is_file()), None)
    if checkout is None:
        raise UsageError(
            "--run needs bench/run.py of a checkout of cnnengine, which the installed package does not have"
        )
    output: Path = arguments.output.with_suffix(".jsonl").resolve()
    command: Sequence[str] = [
        sys.executable, "bench/run.py", *arguments.suites, "--output", str(output), "--only", arguments.only,
        *(["--seconds", str(arguments.seconds)] if arguments.seconds is not None else []),
    ]  # fmt: skip
    status = subprocess.run(command, cwd=checkout).returncode
    if status == INCOMPLETE:
        warn("some races failed; the page says which")
    elif status:
        raise UsageError(f"bench/run.py ended with status {status}")
    return output
