"""Reading result rows: a case's contenders, what ours is compared with, and its share of the roof beside it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from math import exp, log
from typing import Any

from bench.interleave import Samples, ratio
from bench.peaks import COPY, MIXTURE, MULTIPLY_ADDS, ROOFS
from bench.suite import AS_SHIPPED
from cnnengine.backends.registry import NAMES

PAST_THE_CACHES = 400 << 20  # bytes that no cache holds

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
    if name is None or name not in contenders or other is None:
        return None
    return ratio(Samples.from_fields(contenders[other]), Samples.from_fields(contenders[name]))


def share_of_roof(contenders: Contenders, name: str) -> float | None:
    """Of multiply-adds the best sample's rate over the roof's best in the same race; of copies the median, over rounds,
    of the rate over the roof's in that round: what the memory gives changes from second to second. None where none was
    timed."""
    if MULTIPLY_ADDS in contenders:
        peak, row = contenders[MULTIPLY_ADDS], contenders[name]
        return float(row["flops"] / Samples.from_fields(row).best / (peak["flops"] / Samples.from_fields(peak).best))
    return share_of_stream(contenders, name, COPY)


def share_of_mixture(contenders: Contenders, name: str) -> float | None:
    """As share_of_roof, of as many reads for a write as the operation does."""
    return share_of_stream(contenders, name, MIXTURE if MIXTURE in contenders else COPY)


def share_of_stream(contenders: Contenders, name: str, roof: str) -> float | None:
    if roof not in contenders:
        return None
    peak, row = contenders[roof], contenders[name]
    return float(row["bytes"] / peak["bytes"] * ratio(Samples.from_fields(peak), Samples.from_fields(row)))


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
