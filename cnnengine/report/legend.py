"""Names beside the markers of a figure."""

from __future__ import annotations

from collections.abc import Iterable

from .drawing import Drawing, text_width
from .palette import Family

SIZE = 13.0


def legend(drawing: Drawing, families: Iterable[Family], x: float, y: float) -> None:
    """From left to right, from (x, y) on."""
    for family in families:
        drawing.marker(x + 6, y - 4, family.shape, 5.5, family.role, hollow=family.hollow)
        drawing.words(x + 20, y, family.label, size=SIZE)
        x += 20 + text_width(family.label, SIZE) + 18
