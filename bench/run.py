"""Times suites of races, interleaved, and appends one JSON line per contender with its provenance.

python bench/run.py --output results.jsonl                    # all suites on the CPU, about 8 minutes
python bench/run.py conv2d --only r50 --seconds 8 --output results.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.interleave import Budget, HostTimer, Samples, Timer, race, ratio
from bench.peaks import Peaks, burst, cpu_peaks, cuda_peaks
from bench.provenance import KEEP_FREED_MEMORY, provenance, usable_cores
from bench.suite import SUITES, Race, races
from cnnengine import backends

SECONDS = {"lenet5": 25.0, "overhead": 3.0, "conv2d": 2.0, "pool2d": 2.0, "activation": 1.5}  # per race


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; 1 where a race failed, 2 where there is nothing to run on."""
    options = parser().parse_args(arguments)
    if options.keep_freed_memory and not all(os.environ.get(k) == v for k, v in KEEP_FREED_MEMORY.items()):
        os.execve(sys.executable, sys.orig_argv, os.environ | KEEP_FREED_MEMORY)  # read by malloc at start only
    if options.device == "cuda" and (reason := backends.available()["cuda"]) is not None:
        print(f"bench/run.py: --device cuda: {reason}", file=sys.stderr)
        return 2
    origin = provenance(len(usable_cores()))
    peaks = cuda_peaks() if options.device == "cuda" else {"float32": cpu_peaks()}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    with options.output.open("w") as file:
        for dtype, peak in peaks.items():
            write(
                file,
                {"suite": "peaks", "dtype": dtype, "gflops": peak.gflops, "gbps": peak.gbps, "how": peak.how, **origin},
            )
        for suite in options.suites or SUITES:
            for entry in races(suite, options.device, options.smoke):
                if options.only in f"{entry.operation} {entry.case} {entry.dtype}":
                    failures += run_race(entry, options, file, origin, peaks)
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
    return p


def run_race(
    entry: Race, options: argparse.Namespace, file: Any, origin: dict[str, Any], peaks: dict[str, Peaks]
) -> bool:
    """Times one race and writes its rows; True where it failed. An absent contender gets a row with the reason."""
    head = {
        "suite": entry.suite,
        "operation": entry.operation,
        "case": entry.case,
        "device": entry.device,
        "dtype": entry.dtype,
        "flops": entry.flops,
        "bytes": entry.bytes,
        "items": entry.items,
    }
    for name, reason in entry.absent.items():
        write(file, {**head, "contender": name, "absent": reason, **origin})
    if not entry.names:
        print(f"{entry.operation:24} {entry.case:32} nobody takes part: {entry.absent}", flush=True)
        return False
    timer = _timer(options.device)
    gave = burst() if options.device == "cpu" else None
    seconds = options.seconds if options.seconds is not None else SECONDS[entry.suite]
    try:
        samples = race(entry.build(entry.names), Budget(seconds), timer)
    except Exception as error:  # whatever it is, the other races are worth running
        write(file, {**head, "contender": "all", "failed": f"{type(error).__name__}: {error}", **origin})
        print(f"{entry.operation:24} {entry.case:32} FAILED: {error}", flush=True)
        return True
    for name, s in samples.items():
        write(file, {**head, "contender": name, **s.fields(), "timer": timer.name, "burst_gflops": gave, **origin})
    print(summary(entry, samples, peaks), flush=True)
    return False


def summary(entry: Race, samples: dict[str, Samples], peaks: dict[str, Peaks]) -> str:
    """One line: medians, and how many times faster the first contender is than each other."""
    first, *others = samples
    if entry.suite == "overhead":
        call, kernel = (1e3 * samples[name].median for name in ("call", "kernel"))
        return f"{entry.operation:24} {entry.case:32} {call - kernel:.2f} us of Python, {kernel:.2f} us of kernel"
    line = f"{entry.operation:24} {entry.case:32} {entry.dtype:9} {first} {samples[first].median:.3f} ms"
    if entry.bytes and entry.dtype in peaks:
        limit = peaks[entry.dtype].milliseconds(entry.flops, entry.bytes)
        line += f" ({limit / samples[first].median:.0%} of the roofline)"
    return line + "".join(f"; {name} x{ratio(samples[name], samples[first]):.2f}" for name in others)


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
