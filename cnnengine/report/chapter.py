"""What a report's page tells of one machine: figures, ladders, the table of layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .drawing import Drawing
from .figures import ladders, overviews, rooflines
from .layers import Layer, kinds_of, layers_of
from .overview import label
from .rows import Machine, Row, geometric_mean, title_of
from .tables import Runs, layers_table, overhead_table

FIRST = 6  # ladders of an operation that are seen at once
CONVOLUTION = "conv2d"
OVERVIEW = (
    "Their time over ours: a mark for each layer, a bar for the geometric mean. Right of the line ours is faster."
    " PyTorch takes part in its better memory layout."
)
ROOFLINE = (
    "Each mark is one contender on one layer, by its median. The line is the best that a run measured; the grey band"
    " is what the roofs gave beside the races, eight samples of ten. Above the roof: Winograd does fewer multiply-adds"
    " than are counted, and small arrays stay in a cache."
)
LADDER = (
    "The rate of every contender: NumPy first, our default last, all layers of an operation in one scale. The dashed"
    " line is the roof. * is of another run than ours."
)


@dataclass(frozen=True)
class Chapter:
    """``name`` begins the ids of its parts; ``links``: (id, title)."""

    name: str
    title: str
    links: list[tuple[str, str]]
    html: str


def chapter(name: str, machine: Machine, rows: list[Row], runs: Runs, level: int) -> Chapter:
    """``level``: of its parts' headings, 2 where it is the only one, 3 under its own heading."""
    layers = layers_of(rows)
    title = title_of(machine)
    parts = [
        ("overview", "How many times faster", _overviews(layers)),
        ("roofline", "Roofline", _rooflines(rows, layers, name)),
        ("ladder", "Ladder", _ladders(layers, name)),
        ("table", "Every layer", _table(layers, runs, name)),
        ("python", "What Python costs", overhead_table(rows, f"{name}-overhead")),
    ]
    parts = [(f"{name}-{part}", heading, body) for part, heading, body in parts if body]
    sections = "".join(
        f'<section id="{part}" aria-labelledby="{part}-title"><h{level} id="{part}-title">{heading}</h{level}>{body}'
        "</section>"
        for part, heading, body in parts
    )
    head = f"<h2>{escape(title)}</h2>" if level > 2 else ""
    html = (
        f'<section id="{name}" class="machine" aria-label="{escape(title)}">{head}{tiles(layers)}{sections}</section>'
    )
    return Chapter(name, title, [(part, heading) for part, heading, _ in parts], html)


def tiles(layers: Sequence[Layer]) -> str:
    """The few numbers that matter most."""
    convolutions = [layer for layer in layers if layer.key[0] == CONVOLUTION]
    found = []
    for kind in kinds_of(list(layers)):
        ratios = [met.ratio for layer in convolutions if (met := layer.against(kind)) is not None]
        if ratios:
            text = (
                f"convolution against {kind}, geometric mean of {len(ratios)}, {min(ratios):.2f} to {max(ratios):.2f}"
            )
            found.append((f"{geometric_mean(ratios):.2f}x", text))
    for layer in layers:
        met = layer.against("PyTorch") if layer.operation == "training step" else None
        if met is not None:
            found.append((f"{met.ratio:.2f}x", f"{layer.case}, training step against {met.name}"))
    best = [met.ratio for layer in layers if (met := layer.against_best()) is not None]
    if best:
        faster = sum(ratio > 1 for ratio in best)
        found.append((f"{faster} of {len(best)}", "layers and steps where ours is faster than the best of all others"))
    items = "".join(f"<li><strong>{escape(value)}</strong><span>{escape(text)}</span></li>" for value, text in found)
    return f'<ul class="tiles">{items}</ul>' if items else ""


def figure(drawing: Drawing, caption: str, name: str = "") -> str:
    identity = f' id="{name}"' if name else ""
    return (
        f'<figure{identity}><div class="scroll" tabindex="0" role="region" aria-label="{escape(drawing.title)}">'
        f"{drawing.svg()}</div><figcaption>{escape(caption)}</figcaption></figure>"
    )


def _overviews(layers: Sequence[Layer]) -> str:
    return "".join(figure(drawing, OVERVIEW) for drawing in overviews(layers).values())


def _rooflines(rows: list[Row], layers: Sequence[Layer], name: str) -> str:
    drawn = []
    for device, drawing in rooflines(rows, layers).items():
        operations = list(dict.fromkeys(la.operation for la in layers if la.key[2] == device and la.has_flops))
        shown = f"{name}-{device}-points"
        drawn.append(_controls(_select(shown, operations, every=True)) + figure(drawing, ROOFLINE, shown))
    return "".join(drawn)


def _ladders(layers: Sequence[Layer], name: str) -> str:
    found = ladders(layers)
    panels = []
    for i, (operation, drawn) in enumerate(found.items()):
        step = -(-len(drawn) // FIRST)
        for j, drawing in enumerate(drawn):
            more = " more" if j % step else ""
            hidden = " hidden" if i or more else ""
            attributes = f'class="panel{more}" data-operation="{escape(operation)}"{hidden}'
            panels.append(f"<figure {attributes}>{drawing.svg()}</figure>")
    if not panels:
        return ""
    shown = f"{name}-panels"
    more = f'<button type="button" data-all="{shown}" aria-pressed="false">All layers</button>'
    controls = _controls(_select(shown, list(found)) + more)
    return f'{controls}<div class="panels" id="{shown}">{"".join(panels)}</div><p class="caption">{LADDER}</p>'


def _table(layers: Sequence[Layer], runs: Runs, name: str) -> str:
    shown = f"{name}-layers"
    operations = list(dict.fromkeys(map(label, layers)))
    field = f'type="search" data-search="{shown}" placeholder="such as r50 3x3" autocomplete="off"'
    search = f"<label>Layer <input {field}></label>"
    count = f'<output data-count="{shown}">{len(layers)} layers</output>'
    return _controls(_select(shown, operations, every=True) + search + count) + layers_table(layers, runs, shown)


def _controls(inside: str) -> str:
    return f'<div class="controls">{inside}</div>'


def _select(shown: str, operations: Sequence[str], every: bool = False) -> str:
    options = ['<option value="">all</option>'] if every else []
    options += [f"<option>{escape(operation)}</option>" for operation in operations]
    return f'<label>Operation <select data-filter="{shown}">{"".join(options)}</select></label>'
