"""Compares this checkout with another commit: both built, both in memory, timed in turns.

    python bench/against.py HEAD~1            # all suites
    python bench/against.py v0.1.0 conv2d --only "r50 3x3"

The other commit is checked out into a temporary git worktree and built there; this checkout's benchmarks drive both.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.interleave import PAUSE_SECONDS
from bench.provenance import ROOT, provenance, usable_cores
from bench.remote import Process
from bench.suite import SUITES
from cnnengine.report.samples import Samples, ratio

SECONDS = 3.0  # per race


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="bench/against.py", description=(__doc__ or "").splitlines()[0])
    p.add_argument("commit", help="what to compare this checkout with")
    p.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)} (default: all)")
    p.add_argument("--only", default="", help="only races whose operation and case contain this")
    p.add_argument("--seconds", type=float, default=SECONDS, help=f"for each race (default {SECONDS:g})")
    p.add_argument("--smoke", action="store_true", help="tiny sizes")
    p.add_argument("--output", type=Path, help="append the samples here as JSON lines")
    options = p.parse_args(arguments)
    options.commit = resolved(options.commit)
    with ExitStack() as stack:
        other_root = stack.enter_context(installed(options.commit))
        there = stack.enter_context(Process(other_root, options.smoke))
        here = stack.enter_context(Process(ROOT, options.smoke))
        print(
            f"| operation | case | {options.commit}, ms | this checkout, ms | faster by |\n|---|---|--:|--:|--:|",
            flush=True,
        )
        for suite in options.suites or SUITES:
            compare(suite, here, there, options)
    return 0


def compare(suite: str, here: Process, there: Process, options: argparse.Namespace) -> None:
    """Times the races that both sides have."""
    known = {tuple(race): i for i, race in enumerate(there.ask(list=suite)["races"])}
    for index, (operation, case) in enumerate(here.ask(list=suite)["races"]):
        if options.only not in f"{operation} {case}":
            continue
        if (operation, case) not in known:
            print(f"| {operation} | {case} | absent | | |", flush=True)
            continue
        try:
            for side in (here, there):
                side.ask(clear=True)
            ready = {here.root: here.ask(prepare=[suite, index])}
            ready[there.root] = there.ask(prepare=[suite, known[operation, case]])
            samples = take_turns(here, there, ready, options.seconds)
        except RuntimeError as error:
            print(f"| {operation} | {case} | failed: {error} | | |", flush=True)
            continue
        theirs, ours = samples[there.root], samples[here.root]
        print(
            f"| {operation} | {case} | {theirs.median:.4f} | {ours.median:.4f} | {ratio(theirs, ours):.3f}x |",
            flush=True,
        )
        if options.output:
            store(options.output, (suite, operation, case), {options.commit: theirs, "this checkout": ours})


def take_turns(here: Process, there: Process, ready: dict[Path, dict[str, Any]], seconds: float) -> dict[Path, Samples]:
    """At least seven rounds in random order; all samples are kept."""
    samples = {root: Samples(answer["calls"]) for root, answer in ready.items()}
    sides, order, end = [here, there], random.Random(0), time.perf_counter() + seconds
    finished = 0
    while finished < 7 or time.perf_counter() < end:
        order.shuffle(sides)
        for side in sides:
            time.sleep(PAUSE_SECONDS)
            answer = side.ask(sample=ready[side.root]["contender"])
            samples[side.root].milliseconds.append(answer["milliseconds"])
            samples[side.root].disturbed.append(answer["disturbed"])
        finished += 1
    return samples


def store(path: Path, race: tuple[str, str, str], samples: dict[str, Samples]) -> None:
    suite, operation, case = race
    origin = provenance(len(usable_cores()))
    with path.open("a") as file:
        for contender, s in samples.items():
            head = {"suite": f"against/{suite}", "operation": operation, "case": case, "contender": contender}
            file.write(json.dumps({**head, **s.fields(), **origin}) + "\n")


@contextmanager
def installed(commit: str) -> Iterator[Path]:
    """A temporary folder with the commit's engine, built and installed, and this checkout's bench/ beside it."""
    with tempfile.TemporaryDirectory(prefix="cnnengine-against-") as folder:
        checkout, site = Path(folder) / "checkout", Path(folder) / "site"
        added = _run("git", "-C", str(ROOT), "worktree", "add", "--detach", str(checkout), commit)
        if added.returncode:
            raise SystemExit(f"git cannot check out {commit}: {added.stderr.strip()}")
        try:
            offline = ["--no-build-isolation"] if find_spec("pybind11") else []  # the build tools are here already
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", *offline]
            built = _run(*pip, "--target", str(site), str(checkout))
            if built.returncode:
                raise SystemExit(f"{commit} does not build:\n{built.stderr[-2000:]}")
            shutil.copytree(ROOT / "bench", site / "bench", ignore=shutil.ignore_patterns("results", "__pycache__"))
            yield site
        finally:
            _run("git", "-C", str(ROOT), "worktree", "remove", "--force", str(checkout))


def resolved(commit: str) -> str:
    """The commit's short hash: what HEAD~1 means today is nothing to store."""
    found = _run("git", "-C", str(ROOT), "rev-parse", "--short", "--verify", f"{commit}^{{commit}}")
    if found.returncode:
        raise SystemExit(f"git does not know the commit {commit!r}")
    return found.stdout.strip()


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    sys.exit(main())
