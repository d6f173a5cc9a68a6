"""A figure as lines, polygons and words in pixels, written as PNG, and as SVG whose parts tell their numbers under the
pointer. Colours are roles (``palette.py``): a page's theme decides what they look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from math import cos, pi, sin
from pathlib import Path
from typing import Any

from ..errors import DataError
from . import palette

Point = tuple[float, float]
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif"
CHARACTER = 0.56  # of the font's size, the width of a mean one
PNG_SCALE = 2


def _regular(corners: int, turn: float, radius: float = 1.0) -> tuple[Point, ...]:
    angles = (turn + 2 * pi * i / corners for i in range(corners))
    return tuple((radius * cos(a), radius * sin(a)) for a in angles)


SHAPES: dict[str, tuple[Point, ...]] = {  # of radius 1, about equal areas
    "circle": _regular(16, 0.0),
    "square": _regular(4, pi / 4, 1.2),
    "diamond": _regular(4, 0.0, 1.35),
    "triangle": _regular(3, -pi / 2, 1.45),
    "triangle down": _regular(3, pi / 2, 1.45),
    "pentagon": _regular(5, -pi / 2, 1.15),
    "star": tuple(
        p for a, b in zip(_regular(4, -pi / 2, 1.75), _regular(4, -pi / 4, 0.75), strict=True) for p in (a, b)
    ),
}


@dataclass(frozen=True)
class Line:
    points: Sequence[Point]
    role: str
    width: float = 1.0
    dashes: tuple[float, float] | None = None
    tip: str = ""


@dataclass(frozen=True)
class Polygon:
    """``data``: attributes data-NAME of the SVG; ``tip``: what the pointer is told."""

    points: Sequence[Point]
    role: str
    hollow: bool = False
    opacity: float = 1.0
    tip: str = ""
    data: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Words:
    x: float
    y: float  # of the baseline
    text: str
    role: str = "ink"
    size: float = 12.0
    anchor: str = "start"
    bold: bool = False
    angle: float = 0.0  # degrees, clockwise


@dataclass
class Drawing:
    """``title`` and ``description`` are for those who cannot see it. Later parts lie on earlier ones."""

    width: float
    height: float
    title: str
    description: str
    parts: list[Line | Polygon | Words] = field(default_factory=list)

    def line(self, points: Sequence[Point], role: str, **how: Any) -> None:
        self.parts.append(Line(points, role, **how))

    def polygon(self, points: Sequence[Point], role: str, **how: Any) -> None:
        self.parts.append(Polygon(points, role, **how))

    def box(self, x: float, y: float, width: float, height: float, role: str, **how: Any) -> None:
        self.polygon(((x, y), (x + width, y), (x + width, y + height), (x, y + height)), role, **how)

    def marker(self, x: float, y: float, shape: str, radius: float, role: str, **how: Any) -> None:
        self.polygon([(x + radius * dx, y + radius * dy) for dx, dy in SHAPES[shape]], role, **how)

    def words(self, x: float, y: float, text: str, role: str = "ink", **how: Any) -> None:
        self.parts.append(Words(x, y, text, role, **how))

    def place(self, other: Drawing, x: float, y: float) -> None:
        """Adds the other's parts, moved."""
        for part in other.parts:
            if isinstance(part, Words):
                self.parts.append(Words(**{**vars(part), "x": part.x + x, "y": part.y + y}))
            else:
                moved = [(a + x, b + y) for a, b in part.points]
                self.parts.append(type(part)(**{**vars(part), "points": moved}))

    def svg(self, alone: bool = False) -> str:
        """An element for a page that declares the roles as variables; ``alone``: a file that declares them itself."""
        style = f"<style>{_style()}</style>" if alone else ""
        space = ' xmlns="http://www.w3.org/2000/svg"' if alone else ""
        size = f' width="{self.width:g}" height="{self.height:g}"' if alone else ""
        ground = f'<rect class="f-surface" width="{self.width:g}" height="{self.height:g}"/>' if alone else ""
        label = f' role="img" aria-label="{escape(self.title + ". " + self.description)}"'
        head = f'<svg class="drawing" viewBox="0 0 {self.width:g} {self.height:g}"{space}{size}{label}>'
        return head + style + ground + "".join(map(_element, self.parts)) + "</svg>"

    def png(self, path: Path, theme: str = palette.LIGHT) -> None:
        """Draws the same parts by matplotlib. Raises DataError where it is not installed."""
        try:
            from matplotlib.figure import Figure
            from matplotlib.patches import Polygon as Patch
        except ImportError:
            raise DataError(f"{path}: matplotlib is not installed (pip install 'cnnengine[plot]')") from None
        colours = palette.COLOURS[theme]
        figure = Figure(figsize=(self.width / 100, self.height / 100), facecolor=colours["surface"])
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, self.width), ylim=(self.height, 0))
        axes.set_axis_off()
        for order, part in enumerate(self.parts):
            colour = colours[part.role]
            if isinstance(part, Words):
                axes.text(
                    part.x, part.y, part.text, color=colour, fontsize=0.72 * part.size * 0.95, zorder=order,
                    ha={"start": "left", "middle": "center", "end": "right"}[part.anchor], va="baseline",
                    weight="bold" if part.bold else "normal", rotation=-part.angle, rotation_mode="anchor",
                    parse_math=False,
                )  # fmt: skip
            elif isinstance(part, Line):
                dashes = (0, part.dashes) if part.dashes else "-"
                xs, ys = zip(*part.points, strict=True)
                axes.plot(xs, ys, color=colour, linewidth=0.72 * part.width, linestyle=dashes, zorder=order)
            else:
                edge = colour if part.hollow else "none"
                fill = colours["surface"] if part.hollow else colour
                axes.add_patch(
                    Patch(part.points, facecolor=fill, edgecolor=edge, linewidth=1, alpha=part.opacity, zorder=order)
                )
        figure.savefig(path, dpi=100 * PNG_SCALE)


def sheet(drawings: Sequence[Drawing], columns: int, title: str, description: str) -> Drawing:
    """Several drawings of one width in a grid, under a title."""
    rows = [drawings[i : i + columns] for i in range(0, len(drawings), columns)]
    heights = [max(d.height for d in row) for row in rows]
    made = Drawing(columns * drawings[0].width, 40 + sum(heights), title, description)
    made.words(12, 26, title, size=16, bold=True)
    y = 40.0
    for row, height in zip(rows, heights, strict=True):
        for column, drawing in enumerate(row):
            made.place(drawing, column * drawing.width, y)
        y += height
    return made


def text_width(text: str, size: float) -> float:
    """About that of the text in pixels: fonts differ."""
    return CHARACTER * size * len(text)


def _style() -> str:
    """The classes that elements use, and the roles' colours, dark where the reader's system is."""
    dark = f"@media (prefers-color-scheme: dark){{svg{{{palette.variables(palette.DARK)}}}}}"
    return f"svg{{{palette.variables(palette.LIGHT)}font-family:{FONT}}}{dark}{classes()}"


def classes() -> str:
    """Of CSS, one to fill and one to stroke with each role."""
    roles = palette.COLOURS[palette.LIGHT]
    return "".join(f".f-{r}{{fill:var(--{r})}}.s-{r}{{fill:none;stroke:var(--{r})}}" for r in roles) + (
        ".hollow{fill:var(--surface)}"
    )


def _element(part: Line | Polygon | Words) -> str:
    if isinstance(part, Words):
        bold = ' font-weight="600"' if part.bold else ""
        anchor = f' text-anchor="{part.anchor}"' if part.anchor != "start" else ""
        turn = f' transform="rotate({part.angle:.1f} {part.x:.1f} {part.y:.1f})"' if part.angle else ""
        place = f'x="{part.x:.1f}" y="{part.y:.1f}" font-size="{part.size:g}"'
        return f'<text class="f-{part.role}" {place}{anchor}{bold}{turn}>{escape(part.text, quote=False)}</text>'
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in part.points)
    tip = f"<title>{escape(part.tip, quote=False)}</title>" if part.tip else ""
    if isinstance(part, Line):
        dashes = f' stroke-dasharray="{part.dashes[0]:g} {part.dashes[1]:g}"' if part.dashes else ""
        return (
            f'<polyline class="s-{part.role}" stroke-width="{part.width:g}"{dashes} points="{points}">{tip}</polyline>'
        )
    kind = f"s-{part.role} hollow" if part.hollow else f"f-{part.role}"
    width = ' stroke-width="1.3"' if part.hollow else ""
    opacity = f' opacity="{part.opacity:g}"' if part.opacity < 1 else ""
    data = "".join(f' data-{name}="{escape(value)}"' for name, value in part.data.items())
    return f'<polygon class="{kind}"{width}{opacity}{data} points="{points}">{tip}</polygon>'
