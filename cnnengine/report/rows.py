"""Result rows: reading them, a case's contenders, what ours is compared with, and its share of the roof beside it.

Rows of several runs of one machine may be put together. Times of different runs are never divided by one another: a
machine's pace changes from hour to hour, so a ratio is taken in the newest race in which both took part.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import exp, log
from pathlib import Path
from typing import Any

from ..backends.registry import NAMES
from ..errors import DataError
from .roofs import COPY, MIXTURE, MULTIPLY_ADDS, ROOFS, Peaks
from .samples import Samples, ratio

AS_SHIPPED = ", as shipped"  # ends the name of a contender that runs with malloc's own settings
PAST_THE_CACHES = 400 << 20  # bytes that no cache holds
CALL_LIMIT_MICROSECONDS = 6.0  # of Python, an operation
PREDICTED = "predicted"  # the suite of rows that nobody timed
NEEDED = {  # fields of a row that is read here, by what it is
    "peaks": ("dtype", "gflops", "gbps", "how"),
    "timed": ("operation", "case", "device", "dtype", "contender", "flops", "bytes", "disturbed", "calls"),
    PREDICTED: ("case", "dtype", "rung", "operation", "gpu", "arch", "flops", "bytes", "kernels", "missing", "command"),
    "of a run": (
        "date",
        "command",
        "commit",
        "dirty",
        "cpu",
        "cores",
        "threads",
        "gpu",
        "os",
        "python",
        "versions",
        "settings",
    ),
}

Row = dict[str, Any]
Key = tuple[str, str, str, str]  # suite, operation, device, dtype
Machine = tuple[str, int, str | None]  # processor, cores, GPU


class Contenders(dict[str, Row]):
    """The newest row of each contender of a case. ``races``: the races it is put together from, the newest first."""

    def __init__(self, races: Sequence[Mapping[str, Row]]) -> None:
        super().__init__()
        self.races = tuple(races)
        for race in races:
            for name, row in race.items():
                self.setdefault(name, row)


def read(path: Path) -> list[Row]:
    """The rows of one file. Raises DataError naming the line that is no result row, and what it lacks."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: not a result row: {error}") from None
        if not isinstance(row, dict) or "suite" not in row:
            raise DataError(f"{path}:{number}: not a result row: expected an object with the field suite")
        kinds = [row["suite"]] if row["suite"] in NEEDED else ["timed"] if "milliseconds" in row else []
        kinds += ["of a run"] if row["suite"] != PREDICTED else []
        missing = [field for kind in kinds for field in NEEDED[kind] if field not in row]
        if missing:
            raise DataError(f"{path}:{number}: not a result row: it lacks {', '.join(missing)}")
        rows.append(row)
    return rows


def measured(rows: Iterable[Row]) -> list[Row]:
    """Those of runs, without predictions."""
    return [row for row in rows if row["suite"] != PREDICTED]


def by_machine(rows: Iterable[Row]) -> dict[Machine, list[Row]]:
    """The measured rows of each machine, the one that was measured last first."""
    found: dict[Machine, list[Row]] = defaultdict(list)
    for row in measured(rows):
        found[row["cpu"], row["cores"], row["gpu"]].append(row)
    return dict(sorted(found.items(), key=lambda item: max(row["date"] for row in item[1]), reverse=True))


def title_of(machine: Machine) -> str:
    """ "AMD EPYC, 2 cores" """
    cpu, cores, gpu = machine
    return gpu or f"{cpu}, {cores} core{'s' if cores > 1 else ''}"


def run_of(row: Row) -> tuple[str, str]:
    """What the rows of one run have in common: when it began, and the command."""
    return row.get("date", ""), row.get("command", "")


def by_case(rows: Iterable[Row]) -> dict[Key, dict[str, Contenders]]:
    """The timed rows of one machine: key -> case -> contenders. What was raced in several runs has several races."""
    races: dict[Key, dict[str, dict[tuple[str, str], dict[str, Row]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(dict))
    )
    for row in rows:
        if "milliseconds" in row:
            key = (row["suite"], row["operation"], row["device"], row["dtype"])
            races[key][row["case"]][run_of(row)][row["contender"]] = row
    return {
        key: {case: Contenders([runs[run] for run in sorted(runs, reverse=True)]) for case, runs in cases.items()}
        for key, cases in races.items()
    }


def together(contenders: Mapping[str, Row], *names: str) -> Mapping[str, Row] | None:
    """The newest race in which all of them took part; None where there was none. A plain mapping is one race."""
    races = contenders.races if isinstance(contenders, Contenders) else (contenders,)
    return next((race for race in races if all(name in race for name in names)), None)


def ours_of(contenders: Mapping[str, Row]) -> str | None:
    """The backend in its documented default, the first in the file."""
    return next((name for name in contenders if name in NAMES), None)


def is_theirs(name: str) -> bool:
    return name.split()[0] not in NAMES and name not in ROOFS and not name.endswith(AS_SHIPPED)


def is_torch(name: str) -> bool:
    return name.startswith("PyTorch") and is_theirs(name)


def shipped(contenders: Mapping[str, Row]) -> Contenders:
    """Those that ran with malloc's own settings, under their plain names."""
    races = contenders.races if isinstance(contenders, Contenders) else (contenders,)
    return Contenders(
        [
            {name.removesuffix(AS_SHIPPED): row for name, row in race.items() if name.endswith(AS_SHIPPED)}
            for race in races
        ]
    )


def times_faster(contenders: Mapping[str, Row], ours: str, theirs: str) -> float | None:
    """How many times faster ours is, in the newest race of both; None where they never met."""
    race = together(contenders, ours, theirs)
    return None if race is None else ratio(Samples.from_fields(race[theirs]), Samples.from_fields(race[ours]))


def best_other(
    contenders: Mapping[str, Row], counts: Callable[[str], bool] = is_theirs, ours: str | None = None
) -> str | None:
    """The fastest, by its median over ours in their newest race, of those that count and have met ours."""
    name = ours or ours_of(contenders)
    medians = {}
    for other in filter(counts, contenders):
        race = together(contenders, other) if name is None else together(contenders, name, other)
        if race is not None:
            unit = 1.0 if name is None else Samples.from_fields(race[name]).median
            medians[other] = Samples.from_fields(race[other]).median / unit
    return min(medians, key=lambda other: medians[other]) if medians else None


def advantage(
    contenders: Mapping[str, Row], counts: Callable[[str], bool] = is_theirs, ours: str | None = None
) -> float | None:
    """How many times faster ours is than the best that counts; None where one of both is missing."""
    name = ours or ours_of(contenders)
    other = None if name not in contenders else best_other(contenders, counts, name)
    return None if name is None or other is None else times_faster(contenders, name, other)


def share_of_roof(contenders: Mapping[str, Row], name: str) -> float | None:
    """Of multiply-adds the best sample's rate over the roof's best in the same race; of copies the median, over rounds,
    of the rate over the roof's in that round: what the memory gives changes from second to second. None where none was
    timed."""
    race = together(contenders, MULTIPLY_ADDS, name)
    if race is not None:
        peak, row = race[MULTIPLY_ADDS], race[name]
        return float(row["flops"] / Samples.from_fields(row).best / (peak["flops"] / Samples.from_fields(peak).best))
    return share_of_stream(contenders, name, COPY)


def share_of_mixture(contenders: Mapping[str, Row], name: str) -> float | None:
    """As share_of_roof, of as many reads for a write as the operation does."""
    return share_of_stream(contenders, name, MIXTURE if together(contenders, MIXTURE, name) else COPY)


def share_of_stream(contenders: Mapping[str, Row], name: str, roof: str) -> float | None:
    race = together(contenders, roof, name)
    if race is None:
        return None
    peak, row = race[roof], race[name]
    return float(row["bytes"] / peak["bytes"] * ratio(Samples.from_fields(peak), Samples.from_fields(row)))


def shares_of_roofs(contenders: Mapping[str, Row], name: str, gbps: float | None) -> dict[str, float]:
    """roof -> share of it: the roof of the race, and where that is arithmetic the copy rate of the run, ``gbps``. The
    roofline, min(arithmetic, FLOP a byte * copy rate), is the roof of the larger share."""
    beside = share_of_roof(contenders, name)
    if beside is None:
        return {}
    race = together(contenders, MULTIPLY_ADDS, name)
    if race is None:
        return {COPY: beside}
    row = race[name]
    found = {MULTIPLY_ADDS: beside}
    if gbps is not None:
        found[COPY] = 1e-6 * row["bytes"] / Samples.from_fields(row).best / gbps
    return found


def copy_rate(rows: Iterable[Row]) -> float | None:
    """GB/s of copies past the caches, as the CPU runs measured it; None where none did."""
    return max((peaks.gbps for (device, _), peaks in peaks_of(rows).items() if device == "cpu"), default=None)


def geometric_mean(ratios: Iterable[float]) -> float:
    logs = [log(r) for r in ratios]
    return exp(sum(logs) / len(logs))


def peaks_of(rows: Iterable[Row]) -> dict[tuple[str, str], Peaks]:
    """(device, dtype) -> the roofs, each the best that a run measured: a roof is what the hardware can do."""
    found: dict[tuple[str, str], Peaks] = {}
    for row in rows:
        if row["suite"] == "peaks":
            key = (row.get("device", "cpu"), row["dtype"])
            known = found.get(key, Peaks(0.0, 0.0, ""))
            gflops, gbps = max(row["gflops"], known.gflops), max(row["gbps"], known.gbps)
            found[key] = Peaks(gflops, gbps, row["how"] if row["gflops"] == gflops else known.how)
    return found


def disturbed_share(rows: Iterable[Row]) -> float:
    """Of all samples, those during which another process held a core."""
    timed = [row for row in rows if "milliseconds" in row]
    samples = sum(len(row["milliseconds"]) for row in timed)
    return sum(len(row["disturbed"]) for row in timed) / samples if samples else 0.0
