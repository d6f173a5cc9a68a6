"""Times suites of races, interleaved, and appends one JSON line per contender with its provenance.

python bench/run.py --output results.jsonl                    # all suites on the CPU, about 8 minutes
python bench/run.py conv2d --only r50 --seconds 8 --output results.jsonl
python bench/run.py --keep-freed-memory --as-shipped --without NumPy --output results.jsonl    # make bench-cpu
python bench/run.py networks --only "training step ResNet" --keep-freed-memory --output results.jsonl    # by name alone
python bench/run.py conv2d --device cuda --dtype float16 --resume --output gpu.jsonl           # goes on where it was
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
from bench.cuda_timer import SMOKE_FLUSH_BYTES, LaunchTimer, cuda_timer
from bench.gpu_state import gpu_state
from bench.interleave import SMOKE, Budget, HostTimer, Timer, race
from bench.peaks import COPY_BYTES, SMOKE_COPY_BYTES, cpu_peaks, cuda_peaks, roofs
from bench.provenance import KEEP_FREED_MEMORY, ROOT, provenance, usable_cores
from bench.remote import Process, Remote
from bench.resume import LOST, STUCK, gpu_lost, keys, stored, unfinished
from bench.suite import CUDA_SUITES, LONG_SUITES, SUITES, Race, races
from cnnengine import backends
from cnnengine.report.roofs import ROOFS, Peaks
from cnnengine.report.rows import AS_SHIPPED, PAST_THE_CACHES, shares_of_roofs
from cnnengine.report.samples import Samples, ratio

RACE = ("suite", "operation", "case", "device", "dtype")  # what tells races apart
LARGE_ROUNDS = 15
SECONDS = {  # a race; others 2
    "lenet5": 25.0, "networks": 10.0, "overhead": 3.0, "activation": 1.5, "binary": 1.5, "dropout": 1.5,
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; 1 where a race failed or a contender's result was wrong, 2 where there is nothing to run
    on, LOST where a kernel broke the GPU's context: with ``--resume`` another process goes on behind that race."""
    options = parser().parse_args(arguments)
    if options.keep_freed_memory and not all(os.environ.get(k) == v for k, v in KEEP_FREED_MEMORY.items()):
        os.execve(sys.executable, sys.orig_argv, os.environ | KEEP_FREED_MEMORY)  # read by malloc at start only
    if options.device == "cuda" and (reason := backends.available()["cuda"]) is not None:
        print(f"bench/run.py: --device cuda: {reason}", file=sys.stderr)
        return 2
    origin = provenance(len(usable_cores()))
    rows = stored(options.output) if options.resume else []
    ended = [row for row in rows if "milliseconds" in row or (row.get("contender") == "all" and "failed" in row)]
    done = keys(ended, *RACE)
    stuck = unfinished(rows, done, *RACE)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    with options.output.open("a" if options.resume else "w") as file, ExitStack() as stack:
        shipped = None
        if options.as_shipped:
            removed = dict.fromkeys(KEEP_FREED_MEMORY)
            shipped = stack.enter_context(Process(ROOT, options.smoke, removed))
        peaks = known_peaks(rows, options.device)
        if not peaks:
            peaks = measured_peaks(options)
            for dtype, peak in peaks.items():
                measured = {"gflops": peak.gflops, "gbps": peak.gbps, "how": peak.how}
                write(file, {"suite": "peaks", "device": options.device, "dtype": dtype, **measured, **origin})
        for suite in options.suites or (*SUITES, *(CUDA_SUITES if options.device == "cuda" else ())):
            if suite == "conv2d" and options.device == "cpu" and not options.only:
                for row in measurements(options.smoke):
                    write(file, {**row, **origin})
            for index, entry in enumerate(races(suite, options.device, options.smoke)):
                if not wanted(entry, options) or race_key(entry) in done:
                    continue
                runner = Runner(entry, index, options, shipped)
                if race_key(entry) in stuck:
                    runner.write_failure(file, origin, STUCK)
                    failures += 1
                    continue
                failed = runner.run(file, origin, peaks)
                failures += failed
                if failed and options.device == "cuda" and gpu_lost():
                    print("bench/run.py: the GPU's context is lost", file=sys.stderr)
                    return LOST
    return 1 if failures else 0


def wanted(entry: Race, options: argparse.Namespace) -> bool:
    named = options.only in f"{entry.operation} {entry.case} {entry.dtype}"
    return named and (not options.dtype or entry.dtype in options.dtype)


def race_key(entry: Race) -> tuple[str, ...]:
    return tuple(str(getattr(entry, field)) for field in RACE)


def known_peaks(rows: list[dict[str, Any]], device: str) -> dict[str, Peaks]:
    """As an earlier part of the run measured them."""
    found = [row for row in rows if row["suite"] == "peaks" and row["device"] == device]
    return {row["dtype"]: Peaks(row["gflops"], row["gbps"], row["how"]) for row in found}


def measured_peaks(options: argparse.Namespace) -> dict[str, Peaks]:
    if options.device == "cuda":
        cuda_timer(SMOKE_FLUSH_BYTES if options.smoke else None)
        return cuda_peaks(options.smoke)
    return {"float32": cpu_peaks(copy_bytes=copy_bytes(options))}


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="bench/run.py", description=(__doc__ or "").splitlines()[0])
    suites = f"of {', '.join(SUITES)} (default: all), on a GPU of {', '.join(CUDA_SUITES)} too, or {LONG_SUITES[0]}"
    p.add_argument("suites", nargs="*", metavar="SUITE", help=suites)
    p.add_argument("--output", type=Path, required=True, help="JSON lines, written anew")
    p.add_argument("--resume", action="store_true", help="add to the output what it does not have yet")
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    p.add_argument("--only", default="", help="only races whose operation, case and dtype contain this")
    p.add_argument("--dtype", action="append", default=[], help="only races in it (may be repeated)")
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
        """Writes the race's rows; True where it failed or a contender was refused. One that is absent gets a row with
        the reason."""
        entry, label = self._entry, f"{self._entry.operation:24} {self._entry.case:32}"
        for name, reason in entry.absent.items():
            write(file, {**self._head, "contender": name, "absent": reason, **origin})
        if not self._names:
            print(f"{label} nobody takes part: {entry.absent}", flush=True)
            return False
        if self._options.resume:  # so that a later call knows where one stopped
            write(file, {**self._head, "contender": "all", "started": True, **origin})
        timer = _timer(entry, self._options)
        on_host = self._options.device == "cpu" and entry.bytes
        peaks_beside = roofs(entry.streams, copy_bytes(self._options)) if on_host else []
        try:
            contenders = {**entry.build(self._names), **self._second_process()}
            beside = {peak.name: peak for peak in peaks_beside}
            samples = race({**contenders, **beside}, self._budget(), timer)
        except Exception as error:  # whatever it is, the other races are worth running
            self._write_left_out(file, origin)
            self.write_failure(file, origin, f"{type(error).__name__}: {error}"[:2000])
            return True
        rows = {
            name: {**self._head, "contender": name, **s.fields(), **entry.notes.get(name, {})}
            for name, s in samples.items()
        }
        for name, peak in beside.items():
            rows[name] |= peak.work
        state = {"gpu_state": gpu_state()} if self._options.device == "cuda" else {}
        for row in rows.values():
            write(file, {**row, "timer": timer.name, **state, **origin})
        print(summary(entry, samples, share(rows, peaks)), flush=True)
        return self._write_left_out(file, origin)

    def _write_left_out(self, file: Any, origin: dict[str, Any]) -> bool:
        """A row for each contender that was made and is not timed; True where one's result was wrong."""
        left_out = self._entry.left_out
        for name, reason in left_out.items():
            field = "failed" if reason.startswith("refused") else "absent"
            write(file, {**self._head, "contender": name, field: reason, **origin})
            print(f"    {name}: {reason}", flush=True)
        return any(reason.startswith("refused") for reason in left_out.values())

    def write_failure(self, file: Any, origin: dict[str, Any], reason: str) -> None:
        write(file, {**self._head, "contender": "all", "failed": reason, **origin})
        print(f"{self._entry.operation:24} {self._entry.case:32} FAILED: {reason}", flush=True)

    def _budget(self) -> Budget:
        """Where a round takes long there are more of them: a share of the copy rate, which other users of the memory
        may halve from second to second, is a median over rounds."""
        if self._options.smoke and self._options.device == "cuda":
            return SMOKE
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


def _timer(entry: Race, options: argparse.Namespace) -> Timer:
    if options.device == "cpu":
        return HostTimer()
    if entry.suite == "overhead":
        return LaunchTimer()
    return cuda_timer(SMOKE_FLUSH_BYTES if options.smoke else None)


if __name__ == "__main__":
    sys.exit(main())
