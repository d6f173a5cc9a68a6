"""The figures of a report: which there are of the rows of one machine."""

from __future__ import annotations

from collections.abc import Sequence

from .drawing import Drawing, sheet
from .ladder import ladder, top_rate
from .layers import Layer, kinds_of, layers_of
from .overview import label, overview
from .roofline import points_of, roofline
from .rows import Row

COLUMNS = 2  # of a sheet of ladders


def devices_of(layers: Sequence[Layer]) -> list[str]:
    return sorted({layer.key[2] for layer in layers})


def overviews(layers: Sequence[Layer]) -> dict[str, Drawing]:
    """By device, where ours met somebody."""
    found = {device: [layer for layer in layers if layer.key[2] == device] for device in devices_of(layers)}
    return {device: overview(of) for device, of in found.items() if kinds_of(of)}


def rooflines(rows: list[Row], layers: Sequence[Layer]) -> dict[str, Drawing]:
    """By device, where an operation has FLOPs."""
    return {device: roofline(rows, device) for device in devices_of(layers) if points_of(rows, device)}


def ladders(layers: Sequence[Layer]) -> dict[str, list[Drawing]]:
    """By operation, one a layer, all of an operation in one scale."""
    found: dict[str, list[Layer]] = {}
    for layer in layers:
        if any(layer.rate(name) is not None for name in layer.shown()):
            found.setdefault(label(layer), []).append(layer)
    return {operation: [ladder(layer, top_rate(of)) for layer in of] for operation, of in found.items()}


def figures(rows: list[Row]) -> dict[str, Drawing]:
    """All of them by file name without its ending, each operation's ladders on one sheet."""
    layers = layers_of(rows)
    found = {f"overview-{device}": drawing for device, drawing in overviews(layers).items()}
    found |= {f"roofline-{device}": drawing for device, drawing in rooflines(rows, layers).items()}
    for operation, drawn in ladders(layers).items():
        name = "".join(c if c.isalnum() or c in "_-" else "-" for c in operation)
        found[f"ladder-{name}"] = sheet(drawn, COLUMNS, operation, f"The ladders of {len(drawn)} layers")
    return found
