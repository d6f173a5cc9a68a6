"""What a page tells of one case of one operation: its times, ratios and share of the roof, by kind of contender."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .roofs import COPY, ROOFS, Peaks
from .rows import (
    AS_SHIPPED,
    Contenders,
    Key,
    Row,
    advantage,
    best_other,
    by_case,
    is_theirs,
    is_torch,
    ours_of,
    peaks_of,
    run_of,
    shares_of_roofs,
    together,
)
from .samples import Samples

KINDS: dict[str, Callable[[str], bool]] = {  # columns of a table; the best of each counts
    "NumPy": lambda name: name == "NumPy",
    "PyTorch": is_torch,
    "cuDNN": lambda name: name.startswith("cuDNN"),
    "ONNX Runtime": lambda name: name.startswith("ONNX Runtime"),
    "OpenVINO": lambda name: name.startswith("OpenVINO"),
}


@dataclass(frozen=True)
class Against:
    """The best contender of a kind: its name, milliseconds, theirs / ours, and the run where they met."""

    name: str
    milliseconds: float
    ratio: float
    run: tuple[str, str]


@dataclass(frozen=True)
class Layer:
    """One case. ``key``: suite, operation, device, dtype."""

    key: Key
    case: str
    contenders: Contenders
    peaks: Peaks | None

    @property
    def operation(self) -> str:
        return self.key[1]

    @property
    def ours(self) -> str | None:
        return ours_of(self.contenders)

    def samples(self, name: str) -> Samples:
        return Samples.from_fields(self.contenders[name])

    @property
    def has_flops(self) -> bool:
        return bool(self._any()["flops"])

    @property
    def in_flops(self) -> bool:
        """Whether its rate is told in GFLOP/s; where memory alone is the limit it is GB/s."""
        return self.has_flops and COPY not in self.contenders

    @property
    def unit(self) -> str:
        return "GFLOP/s" if self.in_flops else "GB/s"

    def rate(self, name: str) -> float | None:
        """Of the median, in ``unit``; None where the row tells no work."""
        row = self.contenders[name]
        work = row["flops"] if self.in_flops else row["bytes"]
        return 1e-6 * work / self.samples(name).median if work else None

    @property
    def roof(self) -> float | None:
        """Of the machine, in ``unit``."""
        if self.peaks is None:
            return None
        return self.peaks.gflops if self.in_flops else self.peaks.gbps

    def share(self) -> tuple[float, str] | None:
        """Of the roof that was timed beside it, as best samples reached it, and that roof's name."""
        if self.ours is None or not self.contenders[self.ours]["bytes"]:
            return None
        shares = shares_of_roofs(self.contenders, self.ours, None if self.peaks is None else self.peaks.gbps)
        if not shares:
            return None
        roof = max(shares, key=lambda name: shares[name])
        return shares[roof], roof

    def against(self, kind: str) -> Against | None:
        """The best of a kind; None where ours never met one."""
        return self._met(KINDS[kind])

    def against_best(self) -> Against | None:
        """The best of all that are not ours."""
        return self._met(is_theirs)

    def shown(self) -> list[str]:
        """Contenders without the roofs and those with malloc's own settings."""
        return [name for name in self.contenders if name not in ROOFS and not name.endswith(AS_SHIPPED)]

    def disturbed(self) -> tuple[int, int]:
        """Of all contenders' samples: those that were disturbed, and all."""
        rows = [self.contenders[name] for name in self.shown()]
        return sum(len(row["disturbed"]) for row in rows), sum(len(row["milliseconds"]) for row in rows)

    def met_elsewhere(self, name: str) -> bool:
        """Whether a contender's time is of another run than that of ours."""
        return self.ours is not None and run_of(self.contenders[name]) != run_of(self.contenders[self.ours])

    def _met(self, counts: Callable[[str], bool]) -> Against | None:
        name = best_other(self.contenders, counts)
        ratio = advantage(self.contenders, counts)
        if self.ours is None or name is None or ratio is None:
            return None
        race = together(self.contenders, self.ours, name)
        assert race is not None
        return Against(name, Samples.from_fields(race[name]).median, ratio, run_of(race[name]))

    def _any(self) -> Row:
        return self.contenders[self.shown()[0]]


def layers_of(rows: list[Row]) -> list[Layer]:
    """Every timed case of one machine but Python's cost, in the order of the files."""
    peaks = peaks_of(rows)
    return [
        Layer(key, case, contenders, peaks.get(key[2:]))
        for key, cases in by_case(rows).items()
        if key[0] != "overhead"
        for case, contenders in cases.items()
    ]


def kinds_of(layers: list[Layer]) -> list[str]:
    """Those that ours met somewhere."""
    return [kind for kind in KINDS if any(layer.against(kind) for layer in layers)]
