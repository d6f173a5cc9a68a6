"""A line of the table of requirements."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    requirement: str
    wanted: str
    measured: str
    holds: bool | None  # None: the run did not measure it

    def cells(self) -> str:
        holds = {True: "yes", False: "**no**", None: "not measured"}[self.holds]
        return f"| {self.requirement} | {self.wanted} | {self.measured} | {holds} |"
