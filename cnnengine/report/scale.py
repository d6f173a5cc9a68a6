"""From values to pixels, and where the marks of an axis stand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor, log10


@dataclass(frozen=True)
class Log:
    """Logarithmic: ``low`` at the pixel ``start``, ``high`` at ``end``."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (log10(value) - log10(self.low)) / (log10(self.high) - log10(self.low))
        return self.start + share * (self.end - self.start)

    def ticks(self, steps: tuple[int, ...] = (1,)) -> list[float]:
        """The multiples by ``steps`` of the powers of ten that lie within."""
        powers = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
        values = (step * 10.0**power for power in powers for step in steps)
        return [v for v in values if self.low * 0.999 <= v <= self.high * 1.001]


def log_scale(values: Iterable[float], start: float, end: float, margin: float = 1.25) -> Log:
    """From a ``margin`` below the least to one above the greatest."""
    known = list(values)
    return Log(min(known) / margin, max(known) * margin, start, end)


def in_unit(rate: float, unit: str) -> tuple[float, str]:
    """(1, "GFLOP/s"), or (1000, "TFLOP/s") where ``rate`` is large."""
    return (1000.0, "T" + unit.removeprefix("G")) if rate >= 10_000 else (1.0, unit)


def short(value: float) -> str:
    """Three digits that count, without an exponent: 0.012, 3.4, 560, 12,000."""
    if value == 0:
        return "0"
    digits = max(0, 2 - floor(log10(abs(value))))
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def rate_text(rate: float, unit: str) -> str:
    """ "233 GFLOP/s", "341 TFLOP/s" """
    size, name = in_unit(rate, unit)
    return f"{short(rate / size)} {name}"
