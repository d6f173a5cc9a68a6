"""Times suites of races, interleaved, and appends one JSON line per contender with its provenance.

python bench/run.py --output results.jsonl                    # all suites on the CPU, about 8 minutes
python bench/run.py conv2d --only r50 --seconds 8 --output results.jsonl
python bench/run.py --keep-freed-memory --as-shipped --without NumPy --output results.jsonl    # make bench-cpu
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.accuracy import measurements
from bench.interleave import Budget, HostTimer, Samples, Timer, race, ratio
from bench.peaks import COPY_BYTES, ROOFS, SMOKE_COPY_BYTES, Peaks, cpu_peaks, cuda_peaks, roofs
from bench.provenance import KEEP_FREED_MEMORY, ROOT, provenance, usable_cores
from bench.remote import Process, Remote
from bench.rows import PAST_THE_CACHES, shares_of_roofs
from bench.suite import AS_SHIPPED, SUITES, Race, races
from cnnengine import backends

LARGE_ROUNDS = 15
SECONDS = {"lenet5": 25.0, "overhead": 3.0, "activation": 1.5, "binary": 1.5, "dropout": 1.5}  # a race; others 2


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; 1 where a race failed, 2 where there is nothing to run on."""
    options = parser().parse_args(arguments)
    if options.keep_freed_memory and not all(os.environ.get(k) == v for k, v in KEEP_FREED_MEMORY.items()):
        os.execve(sys.executable, sys.orig_argv, os.environ | KEEP_FREED_MEMORY)  # read by malloc at start only
    if options.device == "cuda" and (reason := backends.available()["cuda"]) is not None:
        print(f"bench/run.py: --device cuda: {reason}", file=sys.stderr)
        return 2
    origin = provenance(len(usable_cores()))
    peaks = cuda_peaks() if options.device == "cuda" else {"float32": cpu_peaks(copy_bytes=copy_bytes(options))}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    with options.output.open("w") as file, ExitStack() as stack:
        shipped = None
        if options.as_shipped:
            removed = dict.fromkeys(KEEP_FREED_MEMORY)
            shipped = stack.enter_context(Process(ROOT, options.smoke, removed))
        for dtype, peak in peaks.items():
            measured = {"gflops": peak.gflops, "gbps": peak.gbps, "how": peak.how}
            write(file, {"suite": "peaks", "device": options.device, "dtype": dtype, **measured, **origin})
        for suite in options.suites or SUITES:
            if suite == "conv2d" and options.device == "cpu" and not options.only:
                for row in measurements(options.smoke):
                    write(file, {**row, **origin})
            for index, entry in enumerate(races(suite, options.device, options.smoke)):
                if options.only in f"{entry.operation} {entry.case} {entry.dtype}":
                    failures += Runner(entry, index, options, shipped).run(file, origin, peaks)
    return 1 if failures else 0


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="bench/run.py", description=(__doc__ or "").splitlines()[0])
    p.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)} (default: all)")
    p.add_argument("--output", type=Path, required=True, help="JSON lines, written anew")
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    p.add_argument("--only", default="", help="only races whose operation, case and dtype contain this")
    p.add_argument("--smoke", action="store_true", help="tiny sizes on every backend: checks, no figures")
    p.add_argument("--seconds", type=float, help="for each race (default: by suite)")
    p.add_argument(
        "--keep-freed-memory",
        action="store_true",
        help="glibc keeps large freed blocks instead of returning them to the system: helps PyTorch and NumPy",
    )
    p.add_argument(
        "--as-shipped",
        action="store_true",
        help="also time PyTorch and the native backend in a second process whose malloc is left as it is",
    )
    p.add_argument("--without", action="append", default=[], metavar="CONTENDER", help="leave this one out")
    return p


class Runner:
    """Times one race, with the roof it stands under and, where there is a second process, the same contenders there."""

    def __init__(self, entry: Race, index: int, options: argparse.Namespace, shipped: Process | None) -> None:
        self._entry, self._index, self._options, self._shipped = entry, index, options, shipped
        self._names = tuple(name for name in entry.names if name not in options.without)
        self._head = {
            "suite": entry.suite,
            "operation": entry.operation,
            "case": entry.case,
            "device": entry.device,
            "dtype": entry.dtype,
            "flops": entry.flops,
            "bytes": entry.bytes,
            "items": entry.items,
        }

    def run(self, file: Any, origin: dict[str, Any], peaks: dict[str, Peaks]) -> bool:
        """Writes the race's rows; True where it failed. An absent contender gets a row with the reason."""
        entry, label = self._entry, f"{self._entry.operation:24} {self._entry.case:32}"
        for name, reason in entry.absent.items():
            write(file, {**self._head, "contender": name, "absent": reason, **origin})
        if not self._names:
            print(f"{label} nobody takes part: {entry.absent}", flush=True)
            return False
        timer = _timer(self._options.device)
        on_host = self._options.device == "cpu" and entry.bytes
        peaks_beside = roofs(entry.streams, copy_bytes(self._options)) if on_host else []
        try:
            contenders = {**entry.build(self._names), **self._second_process()}
            beside = {peak.name: peak for peak in peaks_beside}
            samples = race({**contenders, **beside}, self._budget(), timer)
        except Exception as error:  # whatever it is, the other races are worth running
            write(file, {**self._head, "contender": "all", "failed": f"{type(error).__name__}: {error}", **origin})
            print(f"{label} FAILED: {error}", flush=True)
            return True
        rows = {name: {**self._head, "contender": name, **s.fields()} for name, s in samples.items()}
        for name, peak in beside.items():
            rows[name] |= peak.work
        for row in rows.values():
            write(file, {**row, "timer": timer.name, **origin})
        print(summary(entry, samples, share(rows, peaks)), flush=True)
        return False

    def _budget(self) -> Budget:
        """Where a round takes long there are more of them: a share of the copy rate, which other users of the memory
        may halve from second to second, is a median over rounds."""
        seconds = self._options.seconds if self._options.seconds is not None else SECONDS.get(self._entry.suite, 2.0)
        large = self._entry.streams is not None and self._entry.bytes >= PAST_THE_CACHES
        return Budget(seconds, min_rounds=LARGE_ROUNDS) if large and seconds else Budget(seconds)

    def _second_process(self) -> dict[str, Remote]:
        if self._shipped is None or self._entry.suite == "overhead":
            return {}
        self._shipped.ask(clear=True)
        names = [n for n in self._names if n == "native" or n.startswith("PyTorch")]
        return {f"{name}{AS_SHIPPED}": Remote(self._shipped, self._entry.suite, self._index, name) for name in names}


def summary(entry: Race, samples: dict[str, Samples], share: float | None) -> str:
    """One line: medians, and how many times faster the first contender is than each other."""
    first, *others = (name for name in samples if name not in ROOFS)
    if entry.suite == "overhead":
        call, kernel = (1e3 * samples[name].median for name in ("call", "kernel"))
        return f"{entry.operation:24} {entry.case:32} {call - kernel:.2f} us of Python, {kernel:.2f} us of kernel"
    line = f"{entry.operation:24} {entry.case:32} {entry.dtype:9} {first} {samples[first].median:.3f} ms"
    if share is not None:
        line += f" ({share:.0%} of the peak)"
    return line + "".join(f"; {name} x{ratio(samples[name], samples[first]):.2f}" for name in others)


def share(rows: dict[str, dict[str, Any]], peaks: dict[str, Peaks]) -> float | None:
    """Of the roofline, by the roof beside the race where there is one; None where nothing says it."""
    row = next(iter(rows.values()))
    known = row["dtype"] in peaks
    shares = shares_of_roofs(rows, row["contender"], peaks[row["dtype"]].gbps if known else None)
    if shares or not row["bytes"] or not known:
        return max(shares.values(), default=None)
    return peaks[row["dtype"]].milliseconds(row["flops"], row["bytes"]) / Samples.from_fields(row).best


def copy_bytes(options: argparse.Namespace) -> int:
    return SMOKE_COPY_BYTES if options.smoke else COPY_BYTES


def write(file: Any, row: dict[str, Any]) -> None:
    file.write(json.dumps(row) + "\n")
    file.flush()


def _timer(device: str) -> Timer:
    if device == "cpu":
        return HostTimer()
    from bench.cuda_timer import CudaTimer

    return CudaTimer()


if __name__ == "__main__":
    sys.exit(main())
