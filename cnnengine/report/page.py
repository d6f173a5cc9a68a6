"""The report as one page: no network, light and dark, for a screen and for paper."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files

from . import palette
from .chapter import chapter, figure
from .drawing import FONT, classes
from .predictions import CAPTION, asked, predicted, section, traffic
from .rows import Row, by_machine, measured
from .runs import missing, runs_of
from .tables import provenance_table

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
METHOD = """
<p>All contenders of a race compute the same on the same data, agree before any is timed, and take turns in rounds of a
random order. A time is the median over the rounds, a ratio the median of the ratios within a round: machines that
others use change their pace from minute to minute, ratios hardly. Samples during which another process held a core are
left out as long as five others remain. A time with a letter behind it is of that run, in which it met ours; times of
two runs are never divided by one another.</p>
<p>FLOPs are those of the definition, two a multiply-add. The bytes are the least traffic, every array once. A share of
the roof is of the roof that was timed beside it in the same rounds. Ratios are theirs over ours: more than 1 is faster
than theirs.</p>
"""


def page(everything: Sequence[Row]) -> str:
    """The whole document. Raises ValueError where no row is timed."""
    rows = measured(everything)
    if not any("milliseconds" in row for row in rows):
        raise ValueError("the result files hold no timed row")
    machines, runs, predictions = by_machine(rows), runs_of(rows), _predictions(predicted(everything))
    level = 3 if len(machines) > 1 else 2
    chapters = [chapter(f"m{i}", machine, of, runs, level) for i, (machine, of) in enumerate(machines.items(), start=1)]
    links = [(c.name, c.title) for c in chapters] if len(chapters) > 1 else chapters[0].links
    ending = [("predictions", "CUDA, predicted")] if predictions else []
    ending += [("method", "How to read it"), ("provenance", "Where it comes from")]
    absent = "".join(f"<li>{escape(line)}</li>" for line in missing(rows))
    title = " · ".join(c.title for c in chapters)
    days = sorted({row["date"][:10] for row in rows})
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>cnnengine report: {escape(title)}</title>
<style>{_style()}</style>
</head>
<body>
<a class="skip" href="#content">To the content</a>
<header>
<div><h1>cnnengine report</h1><p>{escape(title)}; measured {span}</p></div>
<fieldset class="theme"><legend>Colours</legend>{_themes()}</fieldset>
</header>
<nav aria-label="Sections">{"".join(f'<a href="#{name}">{escape(text)}</a>' for name, text in [*links, *ending])}</nav>
<main id="content">
{"".join(c.html for c in chapters)}
{predictions}
<section id="method" aria-labelledby="method-title"><h2 id="method-title">How to read it</h2>{METHOD}</section>
<section id="provenance" aria-labelledby="provenance-title">
<h2 id="provenance-title">Where the numbers come from</h2>
<div class="runs">{provenance_table(rows, runs)}</div>
{f"<h3>Not in the tables</h3><ul>{absent}</ul>" if absent else ""}
</section>
</main>
<div id="tip" hidden></div>
<script>{_text("page.js")}</script>
</body>
</html>
"""


def _predictions(rows: list[Row]) -> str:
    if not rows:
        return ""
    drawn = figure(traffic(rows), CAPTION) if any(asked(row) for row in rows) else ""
    heading = '<h2 id="predictions-title">CUDA, predicted</h2>'
    return f'<section id="predictions" aria-labelledby="predictions-title">{heading}{drawn}{section(rows)}</section>'


def _themes() -> str:
    names = (("auto", "as the system"), (palette.LIGHT, "light"), (palette.DARK, "dark"))
    return "".join(
        f'<label><input type="radio" name="theme" value="{name}"{" checked" if name == "auto" else ""}>{text}</label>'
        for name, text in names
    )


def _style() -> str:
    """The colours of both themes, paper in the light one, then what everything looks like."""
    light, dark = palette.variables(palette.LIGHT), palette.variables(palette.DARK)
    themes = (
        f":root{{{light}color-scheme:light;--font:{FONT}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{dark}color-scheme:dark}}}}"
        f"@media screen{{:root[data-theme=dark]{{{dark}color-scheme:dark}}}}"
    )
    tints = "".join(f".tint-{role}{{background:var(--{role})}}" for role in palette.TINTS)
    return themes + classes() + tints + _text("page.css")


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
