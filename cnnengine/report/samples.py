"""The samples of one contender of a race, and how two of them are compared."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ENOUGH = 5  # undisturbed samples to go by


@dataclass
class Samples:
    """Milliseconds per call, one entry a round."""

    calls: int  # a sample is this many calls
    milliseconds: list[float] = field(default_factory=list)
    disturbed: list[bool] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Of the undisturbed samples as long as there are five, else of all."""
        calm = [v for v, d in zip(self.milliseconds, self.disturbed, strict=True) if not d]
        return statistics.median(calm if len(calm) >= ENOUGH else self.milliseconds)

    @property
    def best(self) -> float:
        """The least, which is what hardware can do: for shares of a peak."""
        return min(self.milliseconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third."""
        if len(self.milliseconds) < 2:
            return self.median, self.median
        first, _, third = statistics.quantiles(self.milliseconds, n=4, method="inclusive")
        return first, third

    def fields(self) -> dict[str, Any]:
        """As stored in a result row: all samples, and the numbers of the disturbed ones."""
        return {
            "milliseconds": [float(f"{v:.5g}") for v in self.milliseconds],
            "disturbed": [i for i, d in enumerate(self.disturbed) if d],
            "calls": self.calls,
        }

    @classmethod
    def from_fields(cls, row: Mapping[str, Any]) -> Samples:
        disturbed = set(row["disturbed"])
        return cls(row["calls"], row["milliseconds"], [i in disturbed for i in range(len(row["milliseconds"]))])


def ratio(theirs: Samples, ours: Samples) -> float:
    """How many times faster ours is: the median over the rounds of theirs / ours. Rounds where another process held a
    core are left out as long as five others remain."""
    rounds = list(zip(theirs.milliseconds, ours.milliseconds, theirs.disturbed, ours.disturbed, strict=True))
    calm = [(a, b) for a, b, x, y in rounds if not (x or y)]
    used = calm if len(calm) >= ENOUGH else [(a, b) for a, b, _, _ in rounds]
    return statistics.median(a / b for a, b in used)
