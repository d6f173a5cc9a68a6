"""Reading result rows: a case's contenders, what ours is compared with, and its share of the roof beside it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from math import exp, log
from typing import Any

from bench.interleave import Samples, ratio
from bench.peaks import COPY, MULTIPLY_ADDS, ROOFS
from bench.suite import AS_SHIPPED
from cnnengine.backends.registry import NAMES

Row = dict[str, Any]
Contenders = dict[str, Row]
Key = tuple[str, str, str, str]  # suite, operation, device, dtype


def by_case(rows: Iterable[Row]) -> dict[Key, dict[str, Contenders]]:
    """The timed rows: key -> case -> contender -> row."""
    tables: dict[Key, dict[str, Contenders]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if "milliseconds" in row:
            key = (row["suite"], row["operation"], row["device"], row["dtype"])
            tables[key][row["case"]][row["contender"]] = row
    return tables


def ours_of(contenders: Contenders) -> str | None:
    """The backend in its documented default, the first in the file."""
    return next((name for name in contenders if name in NAMES), None)


def is_theirs(name: str) -> bool:
    return name.split()[0] not in NAMES and name not in ROOFS and not name.endswith(AS_SHIPPED)


def is_torch(name: str) -> bool:
    return name.startswith("PyTorch") and is_theirs(name)


def shipped(contenders: Contenders) -> Contenders:
    """Those that ran with malloc's own settings, under their plain names."""
    return {name.removesuffix(AS_SHIPPED): row for name, row in contenders.items() if name.endswith(AS_SHIPPED)}


def best_other(contenders: Contenders, counts: Callable[[str], bool] = is_theirs) -> str | None:
    """The fastest, by its median, of those that count."""
    medians = {name: Samples.from_fields(row).median for name, row in contenders.items() if counts(name)}
    return min(medians, key=lambda name: medians[name]) if medians else None


def advantage(
    contenders: Contenders, counts: Callable[[str], bool] = is_theirs, ours: str | None = None
) -> float | None:
    """How many times faster ours is than the best that counts; None where one of both is missing."""
    name, other = ours or ours_of(contenders), best_other(contenders, counts)
    if name is None or other is None:
        return None
    return ratio(Samples.from_fields(contenders[other]), Samples.from_fields(contenders[name]))


def share_of_roof(contenders: Contenders, name: str) -> float | None:
    """The best sample's rate over the best rate of the roof in the same race; None where none was timed."""
    for roof, work in ((MULTIPLY_ADDS, "flops"), (COPY, "bytes")):
        if roof in contenders:
            peak, row = contenders[roof], contenders[name]
            return float(row[work] / Samples.from_fields(row).best / (peak[work] / Samples.from_fields(peak).best))
    return None


def shares_of_roofs(contenders: Contenders, name: str, gbps: float | None) -> dict[str, float]:
    """roof -> share of it: the roof of the race, and where that is arithmetic the copy rate of the run, ``gbps``. The
    roofline, min(arithmetic, FLOP a byte * copy rate), is the roof of the larger share."""
    beside = share_of_roof(contenders, name)
    if beside is None:
        return {}
    if MULTIPLY_ADDS not in contenders:
        return {COPY: beside}
    row = contenders[name]
    found = {MULTIPLY_ADDS: beside}
    if gbps is not None:
        found[COPY] = 1e-6 * row["bytes"] / Samples.from_fields(row).best / gbps
    return found


def copy_rate(rows: Iterable[Row]) -> float | None:
    """GB/s of copies past the caches, as the CPU runs measured it; None where none did."""
    rates = [r["gbps"] for r in rows if r["suite"] == "peaks" and r.get("device", "cpu") == "cpu"]
    return max(rates, default=None)


def geometric_mean(ratios: Iterable[float]) -> float:
    logs = [log(r) for r in ratios]
    return exp(sum(logs) / len(logs))
