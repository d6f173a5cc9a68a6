"""What a report tells of predicted rungs: a figure, tables for the page and for Markdown. See ``predicted.py``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from .drawing import Drawing
from .palette import DEFAULT
from .rows import PREDICTED, Row
from .scale import log_scale, short
from .tables import number, sortable

WIDTH = 960.0
LEFT, RIGHT, TOP, BOTTOM, ROW = 230.0, 150.0, 34.0, 52.0, 24.0
HEADS = (
    "rung", "dtype", "registers", "spilled, bytes", "shared, KB", "occupancy", "limited by",
    "waves", "sectors a load", "sectors a store", "bank conflicts", "bytes for 1,000 FLOP",
    "times least", "at best, us", "bound", "layer",
)  # fmt: skip
TEXTS = ("layer", "dtype", "rung", "limited by", "bound")
CAPTION = (
    "What each rung asks of memory, before any cache answers: sectors of 32 bytes that its loads and stores touch, and"
    " boxes that TMA moves, counted by the emulator. Left is better; the scale is logarithmic."
)
Cell = tuple[float | str | None, str]  # what it is sorted by, and what is seen


def predicted(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row["suite"] == PREDICTED]


def asked(row: Row) -> float | None:
    """Bytes asked of memory, before any cache, for 1,000 FLOP; None where nothing was counted."""
    return 1000 * row["traffic"] / row["emulated_flops"] if "traffic" in row else None


def traffic(rows: Sequence[Row]) -> Drawing:
    """Raises ValueError where no rung was counted."""
    counted = [(row, value) for row in rows if (value := asked(row)) is not None]
    if not counted:
        raise ValueError("traffic: no predicted row has the emulator's counts")
    groups: dict[str, list[tuple[Row, float]]] = {}
    for row, value in counted:
        groups.setdefault(f"{row['case']}, {row['dtype']}", []).append((row, value))
    height = TOP + sum(ROW * (len(of) + 1.4) for of in groups.values()) + BOTTOM
    x = log_scale([value for _, value in counted], LEFT, WIDTH - RIGHT, 1.4)
    drawing = Drawing(
        WIDTH,
        height,
        "What each rung asks of memory",
        "Bytes for 1,000 FLOP: " + ", ".join(f"{r['rung']} {r['dtype']} {short(value)}" for r, value in counted),
    )
    for tick in x.ticks((1, 2, 5)):
        drawing.line([(x(tick), TOP - 10), (x(tick), height - BOTTOM)], "line", width=0.7)
        drawing.words(x(tick), height - BOTTOM + 18, short(tick), "muted", anchor="middle")
    drawing.words((LEFT + WIDTH - RIGHT) / 2, height - 8, "bytes asked of memory, for 1,000 FLOP", anchor="middle")
    drawing.words(WIDTH - 8, TOP - 14, "sectors a load", "muted", anchor="end")
    y = TOP
    for title, of in groups.items():
        drawing.words(12, y + 14, title, size=13, bold=True)
        y += ROW * 1.2
        for row, value in of:
            middle = y + ROW / 2
            tip = f"{row['rung']}, {row['dtype']}: {short(value)} bytes for 1,000 FLOP\n{row['emulated']}"
            drawing.words(LEFT - 14, middle + 4, row["rung"], anchor="end", size=12.5)
            drawing.line([(LEFT, middle), (x(value), middle)], "ours", width=3)
            drawing.marker(x(value), middle, DEFAULT.shape, 6, "ours", tip=tip)
            drawing.words(x(value) + 12, middle + 4, short(value), size=12, bold=True)
            sectors = row["sectors_a_load"]
            drawing.words(WIDTH - 8, middle + 4, "TMA" if row["bulk"] else short(sectors or 0), anchor="end", size=12)
            y += ROW
        y += ROW * 0.2
    return drawing


def cells(row: Row) -> list[Cell]:
    """In the order of HEADS."""
    value = asked(row)
    least = None if value is None else value * row["flops"] / 1000 / row["bytes"]
    wavefronts, best = row.get("wavefronts"), row.get("milliseconds_at_best")
    share = None if not wavefronts else row["conflicts"] / wavefronts
    loads = row.get("sectors_a_load")
    bound = f"{row['bound']}" if "bound" in row else ""
    return [
        (row["rung"], row["rung"]),
        (row["dtype"], row["dtype"]),
        _cell(row.get("registers"), "{:.0f}"),
        _cell(row.get("spill_bytes"), "{:.0f}"),
        _cell(None if row.get("shared_bytes") is None else row["shared_bytes"] / 1024, "{:.1f}"),
        _cell(row.get("occupancy"), "{:.0%}"),
        (" and ".join(row.get("limiters", [])),) * 2,
        _cell(row.get("waves"), "{:.1f}"),
        (row.get("sectors_a_load"), "" if loads is None else f"{loads:.1f}"),
        _cell(row.get("sectors_a_store"), "{:.1f}"),
        _cell(share, "{:.0%}"),
        (value, "" if value is None else short(value)),
        (least, "" if least is None else f"{short(least)}x"),
        _cell(None if best is None else 1e3 * best, "{:.1f}"),
        (bound, bound),
        (row["case"], row["case"]),
    ]


def notes(rows: Sequence[Row]) -> list[str]:
    """How the predictions were made, and what is missing in them."""
    gpus = sorted({f"{row['gpu']} ({row['arch']})" for row in rows})
    small = sorted({row["emulated"] for row in rows if "emulated" in row})
    made = [f"{row['rung']}, {row['dtype']}: {row['differs']}" for row in rows if row.get("differs")]
    absent = sorted({f"{what}: {why}" for row in rows for what, why in row["missing"].items()})
    return [
        f"For {', '.join(gpus)}: registers, spills and shared memory are those of the machine code that NVRTC made;"
        " occupancy and waves follow from them. At best is the longer of arithmetic in whole rounds of blocks and least"
        " traffic, at the rates of the datasheet: most kernels are slower, none is quicker. Winograd is taken with the"
        " products it has left, 3xtf32 with its three. Nobody has timed these.",
        *(f"Counted by the emulator on {what}" for what in small),
        *(f"Another kernel was counted: {text}" for text in made),
        *(f"Missing: {text}" for text in absent),
        *sorted({f"{row['date']}: {row['command']}" for row in rows if "date" in row}),
    ]


def section(rows: Sequence[Row]) -> str:
    """For the page; empty where there are no rows."""
    if not rows:
        return ""
    heads = [(head, "text" if head in TEXTS else "number") for head in HEADS]
    lines = []
    for row in rows:
        inside = "".join(_html(value, text) for value, text in cells(row))
        lines.append(f"<tr>{inside}</tr>")
    table = sortable("predicted", "The rungs of the CUDA convolution, predicted", heads, lines)
    items = "".join(f"<li>{escape(note)}</li>" for note in notes(rows))
    return f'{table}<ul class="notes">{items}</ul>'


def table(rows: Sequence[Row]) -> list[str]:
    """For Markdown; nothing where there are no rows."""
    if not rows:
        return []
    head = [f"| {' | '.join(HEADS)} |", "|" + "".join("---|" if h in TEXTS else "--:|" for h in HEADS)]
    lines = [f"| {' | '.join(text for _, text in cells(row))} |" for row in rows]
    return ["\n".join(["## CUDA convolutions, predicted", "", *head, *lines, "", *(f"* {n}" for n in notes(rows))])]


def _cell(value: float | None, form: str) -> Cell:
    return value, "" if value is None else form.format(value)


def _html(value: float | str | None, text: str) -> str:
    if value is None:
        return "<td></td>"
    return f"<td>{escape(text)}</td>" if isinstance(value, str) else number(value, text)
