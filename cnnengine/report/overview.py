"""How many times faster ours is, over all cases of each operation: a mark for each case, a bar for their mean."""

from __future__ import annotations

from collections import defaultdict

from .drawing import Drawing
from .layers import Layer, kinds_of
from .legend import legend
from .palette import Family, family_of
from .rows import geometric_mean
from .scale import Log, log_scale, short

WIDTH = 960.0
LEFT, RIGHT, TOP, BOTTOM = 266.0, 74.0, 58.0, 46.0
LANE = 19.0  # of one kind of contender within an operation


def overview(layers: list[Layer]) -> Drawing:
    """Layers of one device. Raises ValueError where ours met nobody."""
    kinds = kinds_of(layers)
    if not kinds:
        raise ValueError("overview: no row has ours beside somebody else's")
    by_operation: dict[str, dict[str, list[tuple[Layer, float]]]] = defaultdict(lambda: defaultdict(list))
    for layer in layers:
        for kind in kinds:
            met = layer.against(kind)
            if met is not None:
                by_operation[label(layer)][kind].append((layer, met.ratio))
    lanes = sum(len(found) for found in by_operation.values())
    height = TOP + LANE * lanes + 8 * len(by_operation) + BOTTOM
    ratios = [ratio for found in by_operation.values() for pairs in found.values() for _, ratio in pairs]
    x = log_scale([*ratios, 0.8, 1.25], LEFT, WIDTH - RIGHT, 1.15)
    drawing = Drawing(
        WIDTH,
        height,
        "How many times faster",
        f"Their time over ours in {len(ratios)} comparisons over {len(by_operation)} operations, from"
        f" {short(min(ratios))} to {short(max(ratios))}; more than 1 is faster than theirs.",
    )
    bottom = height - BOTTOM
    drawing.box(LEFT, TOP - 6, x(1) - LEFT, bottom - TOP + 6, "slower", opacity=0.45)
    for value in x.ticks((1, 2, 5)):
        drawing.line([(x(value), TOP - 6), (x(value), bottom)], "line", width=0.7)
        drawing.words(x(value), bottom + 17, f"{short(value)}x", "muted", anchor="middle")
    drawing.line([(x(1), TOP - 6), (x(1), bottom)], "roof", width=1.6)
    drawing.words(x(1) - 6, height - 8, "slower than theirs", "muted", anchor="end", size=12)
    drawing.words(x(1) + 6, height - 8, "faster than theirs", "muted", size=12)
    drawing.words(WIDTH - 8, TOP - 14, "mean", "muted", anchor="end", size=12)
    y = TOP
    for operation, found in by_operation.items():
        drawing.words(LEFT - 12, y + 13 + LANE * (len(found) - 1) / 2, operation, size=12.5, anchor="end")
        for kind in kinds:
            if kind in found:
                _lane(drawing, kind, found[kind], x, y + LANE / 2)
                y += LANE
        y += 8
        drawing.line([(LEFT, y - 4), (WIDTH - RIGHT, y - 4)], "line", width=0.5)
    legend(drawing, [_named(kind) for kind in kinds], LEFT, 24)
    return drawing


def label(layer: Layer) -> str:
    """An operation's name, with its network's where it is a step of a whole one, and its dtype where not float32."""
    suite, operation, _, dtype = layer.key
    network = "LeNet-5 " if suite == "lenet5" else ""
    return f"{network}{operation}{'' if dtype == 'float32' else f', {dtype}'}"


def _named(kind: str) -> Family:
    family = family_of(kind)
    return Family(f"against {kind}", family.role, family.shape)


def _lane(drawing: Drawing, kind: str, pairs: list[tuple[Layer, float]], x: Log, y: float) -> None:
    family = family_of(kind)
    ratios = [ratio for _, ratio in pairs]
    mean = geometric_mean(ratios)
    drawing.line([(x(min(ratios)), y), (x(max(ratios)), y)], family.role, width=1.5)
    for layer, ratio in pairs:
        met = layer.against(kind)
        assert met is not None
        tip = f"{ratio:.2f}x {met.name}\n{layer.operation}: {layer.case} ({layer.key[3]})"
        drawing.marker(x(ratio), y, family.shape, 4.0, family.role, hollow=len(pairs) > 1, tip=tip)
    tip = f"geometric mean {mean:.2f}x {kind}, of {len(ratios)} cases, {min(ratios):.2f} to {max(ratios):.2f}"
    if len(pairs) > 1:
        drawing.box(x(mean) - 2.5, y - 8, 5, 16, family.role, tip=tip)
    drawing.words(WIDTH - 8, y + 4, f"{mean:.2f}x", size=12, anchor="end", bold=True)
