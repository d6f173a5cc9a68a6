"""The roofline: work a second over work a byte, both logarithmic, under the roofs that were measured.

S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model for multicore architectures",
Communications of the ACM 52(4), 2009.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import atan2, degrees

from .drawing import Drawing, text_width
from .legend import legend
from .palette import Family, family_of
from .roofs import COPY, MULTIPLY_ADDS, ROOFS, Peaks
from .rows import AS_SHIPPED, Row, by_case, peaks_of
from .samples import Samples
from .scale import Log, log_scale, rate_text, short

WIDTH, HEIGHT = 960.0, 560.0
LEFT, RIGHT, TOP, BOTTOM = 74.0, 22.0, 54.0, 52.0
OURS, THEIRS = 5.0, 4.0  # radii
BAND = (0.1, 0.9)  # quantiles of what a roof gave beside the races


def roofline(rows: list[Row], device: str) -> Drawing:
    """Every timed row of the device that has FLOPs, by its median; ``rows`` are of one machine. Raises ValueError where
    there is none."""
    timed = points_of(rows, device)
    if not timed:
        raise ValueError(f"roofline: the rows hold no timed operation with FLOPs on the device {device}")
    peaks = {dtype: p for (where, dtype), p in peaks_of(rows).items() if where == device}
    dtypes = [dtype for dtype in dict.fromkeys(row["dtype"] for row in timed) if dtype in peaks]
    intensities, rates = [row["flops"] / row["bytes"] for row in timed], [gflops(row) for row in timed]
    below = [peaks[dtype].gflops / peaks[dtype].gbps / 4 for dtype in dtypes]  # so that both roofs are seen
    x = log_scale([*intensities, *below], LEFT, WIDTH - RIGHT, 1.5)
    tops = [peaks[dtype].gflops for dtype in dtypes]
    y = log_scale([*rates, *tops], HEIGHT - BOTTOM, TOP, 1.6)
    drawing = Drawing(
        WIDTH,
        HEIGHT,
        f"Roofline of the {device}",
        f"GFLOP/s over FLOP a byte of {len(timed)} measurements, from {short(min(rates))} to {short(max(rates))},"
        f" under {roofs_in_words(peaks, dtypes)}. The table of layers has the same numbers.",
    )
    _axes(drawing, x, y)
    if device == "cpu":
        _bands(drawing, rows, x, y)
    highest = max(dtypes, key=lambda dtype: peaks[dtype].gflops, default=None)
    for dtype in dtypes:
        _roof(drawing, peaks[dtype], dtype, x, y, copies=dtype == highest)
    families = _points(drawing, timed, x, y)
    legend(drawing, families, LEFT, 24)
    return drawing


def points_of(rows: Iterable[Row], device: str) -> list[Row]:
    """The rows that are marks: of each contender's rows of a case the newest, those with FLOPs, without the roofs and
    those that ran with malloc's settings."""
    return [
        row
        for cases in by_case(rows).values()
        for contenders in cases.values()
        for name, row in contenders.items()
        if name not in ROOFS and not name.endswith(AS_SHIPPED)
        if row["device"] == device and row["flops"] and row["bytes"]
    ]


def gflops(row: Row) -> float:
    """Of the median."""
    return float(row["flops"]) / Samples.from_fields(row).median * 1e-6


def roofs_in_words(peaks: dict[str, Peaks], dtypes: list[str]) -> str:
    """ "233 GFLOP/s (float32) and copies at 49.1 GB/s" """
    if not dtypes:
        return "no measured roof"
    arithmetic = ", ".join(f"{short(peaks[d].gflops)} GFLOP/s ({d})" for d in dtypes)
    return f"{arithmetic} and copies at {short(max(peaks[d].gbps for d in dtypes))} GB/s"


def _axes(drawing: Drawing, x: Log, y: Log) -> None:
    for value in x.ticks((1, 2, 5)):
        drawing.line([(x(value), y.start), (x(value), y.end)], "line", width=0.7)
        drawing.words(x(value), y.start + 18, short(value), "muted", anchor="middle")
    for value in y.ticks((1, 2, 5)):
        drawing.line([(x.start, y(value)), (x.end, y(value))], "line", width=0.7)
        drawing.words(x.start - 8, y(value) + 4, short(value), "muted", anchor="end")
    drawing.words((x.start + x.end) / 2, HEIGHT - 10, "FLOP a byte of least traffic", anchor="middle")
    drawing.words(18, (y.start + y.end) / 2, "GFLOP/s", anchor="middle", angle=-90)


def _roof(drawing: Drawing, peaks: Peaks, dtype: str, x: Log, y: Log, copies: bool) -> None:
    """The copy rate up to the ridge, then the arithmetic. ``copies``: whether the copy rate's name stands beside it."""
    ridge = min(max(peaks.gflops / peaks.gbps, x.low), x.high)
    first = max(x.low, y.low / peaks.gbps)
    points = [(x(x.high), y(peaks.gflops)), (x(ridge), y(min(peaks.gflops, ridge * peaks.gbps)))]
    if first < ridge:
        points.append((x(first), y(first * peaks.gbps)))
        if copies:
            middle = max((first * ridge) ** 0.5, ridge / 4)
            slope = degrees(atan2(points[1][1] - points[2][1], points[1][0] - points[2][0]))
            label = f"copies past the caches: {short(peaks.gbps)} GB/s"
            drawing.words(x(middle) - 6, y(middle * peaks.gbps) - 8, label, anchor="middle", bold=True, angle=slope)
    tip = f"{dtype}: {peaks.gflops:.1f} GFLOP/s, {peaks.gbps:.1f} GB/s ({peaks.how})"
    drawing.line(points, "roof", width=2, tip=tip)
    label = f"multiply-adds, {dtype}: {rate_text(peaks.gflops, 'GFLOP/s')}"
    start = min(x(ridge) + 6 if copies else x.end, x.end - text_width(label, 13))  # off the line of the copies
    drawing.words(start, y(peaks.gflops) - 8, label, bold=True)
    drawing.line([(x(ridge), y(min(peaks.gflops, ridge * peaks.gbps))), (x(ridge), y.start)], "roof", dashes=(2, 4))
    label = f"ridge: {short(peaks.gflops / peaks.gbps)} FLOP a byte"
    drawing.words(min(x(ridge) + 5, x.end - text_width(label, 11)), y.start - 8, label, "muted", size=11)


def _bands(drawing: Drawing, rows: list[Row], x: Log, y: Log) -> None:
    """What the roofs gave beside the races, from moment to moment: eight samples of ten lie within."""
    rates: dict[str, list[float]] = {COPY: [], MULTIPLY_ADDS: []}
    for row in rows:
        if "milliseconds" in row and row["contender"] in rates:
            work = row["bytes"] if row["contender"] == COPY else row["flops"]
            rates[row["contender"]] += [1e-6 * work / ms for ms in row["milliseconds"]]
    copies, products = (_quantiles(found) for found in rates.values())
    if copies is None or products is None:
        return

    def under(value: float, rate: float, top: float) -> float:
        return min(max(value * rate, y.low), top)

    steps = [x.low * (x.high / x.low) ** (i / 60) for i in range(61)]
    low = [(x(v), y(under(v, copies[0], products[0]))) for v in steps]
    high = [(x(v), y(under(v, copies[1], products[1]))) for v in steps]
    tip = (
        f"Beside the races, in eight samples of ten: copies {copies[0]:.0f} to {copies[1]:.0f} GB/s, multiply-adds"
        f" {products[0]:.0f} to {products[1]:.0f} GFLOP/s"
    )
    drawing.polygon([*low, *reversed(high)], "muted", opacity=0.22, tip=tip)


def _quantiles(values: list[float]) -> tuple[float, float] | None:
    ordered = sorted(values)
    low, high = (round(share * (len(ordered) - 1)) for share in BAND)
    return (ordered[low], ordered[high]) if ordered else None


def _points(drawing: Drawing, timed: list[Row], x: Log, y: Log) -> list[Family]:
    """Ours above the others; returns the families that are there."""
    by_order = sorted(timed, key=lambda row: family_of(row["contender"]).order)
    for row in by_order:
        family = family_of(row["contender"])
        rate, intensity = gflops(row), row["flops"] / row["bytes"]
        tip = (
            f"{row['contender']}\n{row['operation']}: {row['case']} ({row['dtype']})\n{short(rate)} GFLOP/s, "
            f"{Samples.from_fields(row).median:.3f} ms, {short(intensity)} FLOP a byte"
        )
        radius = OURS if family.role == "ours" else THEIRS
        drawing.marker(
            x(intensity), y(rate), family.shape, radius, family.role, hollow=family.hollow, tip=tip,
            data={"operation": row["operation"], "family": family.label, "case": row["case"]},
        )  # fmt: skip
    return list(dict.fromkeys(family_of(row["contender"]) for row in reversed(by_order)))
