"""The ladder of one case as bars: NumPy, the other libraries, then our rungs, by the work each did a second."""

from __future__ import annotations

from collections.abc import Sequence

from .drawing import Drawing, Point, text_width
from .layers import Layer
from .palette import family_of
from .rows import times_faster
from .scale import in_unit, short

WIDTH = 490.0
LEFT, RIGHT, TOP, ROW, BAR = 218.0, 98.0, 46.0, 24.0, 15.0


def ladder(layer: Layer, top: float) -> Drawing:
    """``top``: the rate at the end of the longest bar, so that several cases have one scale. Behind a bar stands its
    rate, behind one of theirs how many times faster ours is. A dashed line is the roof. Raises ValueError where no
    contender's row tells its work."""
    rates = {name: rate for name in layer.shown() if (rate := layer.rate(name)) is not None}
    if not rates:
        raise ValueError(f"ladder: the rows of {layer.operation}, {layer.case} tell no work")
    names = sorted(rates, key=lambda name: (family_of(name).order, rates[name]))
    best = max(rates, key=lambda name: rates[name])
    height = TOP + ROW * len(names) + 26
    drawing = Drawing(
        WIDTH,
        height,
        f"{layer.operation}, {layer.case}",
        f"{layer.unit} of {len(names)} contenders: " + ", ".join(f"{n} {short(rates[n])}" for n in names),
    )
    drawing.words(12, 20, layer.case, size=14, bold=True)
    drawing.words(12, 36, f"{in_unit(top, layer.unit)[1]}, {layer.key[3]}", "muted", size=11)
    scale = (WIDTH - LEFT - RIGHT) / top
    bottom = TOP + ROW * len(names)
    drawing.line([(LEFT, TOP - 2), (LEFT, bottom)], "line")
    for i, name in enumerate(names):
        _bar(drawing, layer, name, rates[name], (LEFT, TOP + ROW * i), scale, bold=name == best)
    if layer.roof is not None and layer.roof <= 1.3 * top:
        _roof(drawing, layer, layer.roof, top, LEFT + scale * min(layer.roof, top), bottom)
    for i, name in enumerate(names):  # over the roof's line
        _value(drawing, layer, name, rates[name], top, (LEFT, TOP + ROW * i), scale, bold=name == best)
    return drawing


def top_rate(layers: Sequence[Layer]) -> float:
    """The greatest rate or roof among them: the end of a scale that they share."""
    rates = [rate for layer in layers for name in layer.shown() if (rate := layer.rate(name)) is not None]
    return max([*rates, *(layer.roof for layer in layers if layer.roof is not None)])


def _bar(drawing: Drawing, layer: Layer, name: str, rate: float, at: Point, scale: float, bold: bool) -> None:
    (x, y), family = at, family_of(name)
    other = " (of another run)" if layer.met_elsewhere(name) else ""
    samples = layer.samples(name)
    low, high = samples.quartiles
    tip = (
        f"{name}{other}\n{rate:.1f} {layer.unit}\nmedian {samples.median:.3f} ms, quartiles {low:.3f} to {high:.3f},"
        f" {len(samples.milliseconds)} samples, {sum(samples.disturbed)} of them disturbed"
    )
    drawing.marker(x - 13, y + BAR / 2, family.shape, 4.5, family.role, hollow=family.hollow)
    drawing.words(x - 24, y + BAR - 3, name + ("*" if other else ""), size=12, anchor="end", bold=bold)
    drawing.box(x, y, max(1.0, scale * rate), BAR, family.role, hollow=family.hollow, tip=tip)


def _roof(drawing: Drawing, layer: Layer, roof: float, top: float, x: float, bottom: float) -> None:
    tip = f"roof: {roof:.1f} {layer.unit}"
    drawing.line([(x, TOP - 5), (x, bottom)], "roof", width=1.4, dashes=(4, 3), tip=tip)
    unit = in_unit(top, layer.unit)[0]
    name = f"{'multiply-add peak' if layer.in_flops else 'copies'} {short(roof / unit)}"
    half = text_width(name, 11) / 2
    drawing.words(min(x, WIDTH - half - 4), bottom + 14, name, "muted", size=11, anchor="middle")


def _value(
    drawing: Drawing, layer: Layer, name: str, rate: float, top: float, at: Point, scale: float, bold: bool
) -> None:
    """The rate, and of one of theirs how many times faster ours is."""
    ours = layer.ours is None or family_of(name).role == "ours"
    ratio = None if ours or layer.ours is None else times_faster(layer.contenders, layer.ours, name)
    text, times = short(rate / in_unit(top, layer.unit)[0]), "" if ratio is None else f"ours {ratio:.2f}x"
    start, y = at[0] + scale * rate + 6, at[1]
    width = text_width(text, 13)
    drawing.box(start - 2, y - 1, width + (8 + text_width(times, 11) if times else 0) + 2, BAR + 2, "surface")
    drawing.words(start, y + BAR - 3, text, size=12, bold=bold)
    if times:
        drawing.words(start + width + 8, y + BAR - 3, times, "muted", size=11)
