"""The tables of a report's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from .layers import Against, Layer, kinds_of
from .overview import label
from .palette import tint
from .roofs import COPY
from .rows import CALL_LIMIT_MICROSECONDS, Row, by_case, run_of
from .runs import Run, facts
from .samples import Samples
from .scale import rate_text, short

Runs = Mapping[Run, str]  # run -> its letter on the page


def layers_table(layers: Sequence[Layer], runs: Runs, name: str) -> str:
    """Ours, the best of each kind and the ratios, one line a case; sorted and filtered by the page's script."""
    kinds = kinds_of(list(layers))
    heads = [("operation", "text"), ("layer", "text"), ("ours, ms", "number")]
    heads += [head for kind in kinds for head in ((f"{kind}, ms", "number"), (f"{kind} / ours", "number"))]
    heads += [("rate", "number"), ("of the roof", "number"), ("disturbed", "number")]
    lines = [_layer_line(layer, kinds, runs) for layer in layers if layer.ours is not None]
    return sortable(name, "Every layer: milliseconds, ratios and share of the roof", heads, lines)


def overhead_table(rows: Sequence[Row], name: str) -> str:
    """Python's cost of each operation; empty where it was not measured."""
    lines = []
    for (suite, operation, _, _), cases in by_case(rows).items():
        for contenders in cases.values() if suite == "overhead" else ():
            call, kernel = (1e3 * Samples.from_fields(contenders[n]).median for n in ("call", "kernel"))
            cost = call - kernel
            verdict = "within" if cost <= CALL_LIMIT_MICROSECONDS else "above"
            role = "faster" if verdict == "within" else "slower"
            numbers = "".join(number(value, f"{value:.2f}") for value in (call, kernel, cost))
            head = f'<th scope="row">{escape(operation)}</th>'
            lines.append(f'<tr>{head}{numbers}<td class="tint-{role}">{verdict}</td></tr>')
    if not lines:
        return ""
    limit = f"limit of {CALL_LIMIT_MICROSECONDS:g} us"
    heads = [(t, "number") for t in ("call, us", "kernel, us", "Python, us")]
    return sortable(
        name, "Microseconds of Python an operation", [("operation", "text"), *heads, (limit, "text")], lines
    )


def provenance_table(rows: Sequence[Row], runs: Runs) -> str:
    """The facts of each run."""
    tables = []
    for run, letter in sorted(runs.items(), key=lambda item: item[1]):
        known = {name: escape(text) for name, text in facts([row for row in rows if run_of(row) == run]).items()}
        known["command"] = f"<code>{known['command']}</code>"
        body = "".join(f'<tr><th scope="row">{name}</th><td>{text}</td></tr>' for name, text in known.items())
        tables.append(f'<table class="facts"><caption>Run {letter}</caption><tbody>{body}</tbody></table>')
    return "".join(tables)


def _layer_line(layer: Layer, kinds: Sequence[str], runs: Runs) -> str:
    assert layer.ours is not None
    mine = layer.samples(layer.ours)
    low, high = mine.quartiles
    note = f"{layer.ours}: quartiles {low:.3f} to {high:.3f} ms"
    cells = [f'<td title="{escape(note)}" data-value="{mine.median:.6g}">{milliseconds(mine.median)}</td>']
    for met in map(layer.against, kinds):
        cells += [_their_time(met, layer, runs), _ratio(met)]
    rate = layer.rate(layer.ours)
    cells.append("<td></td>" if rate is None else number(rate, rate_text(rate, layer.unit)))
    share = layer.share()
    cells.append("<td></td>" if share is None else _share(*share))
    disturbed, samples = layer.disturbed()
    cells.append(
        f'<td title="{disturbed} of {samples} samples" data-value="{disturbed / samples:.4f}">'
        f"{disturbed / samples:.0%}</td>"
    )
    operation = label(layer)
    head = f'<td data-value="{escape(operation)}">{escape(operation)}</td><th scope="row">{escape(layer.case)}</th>'
    return f'<tr data-operation="{escape(operation)}">{head}{"".join(cells)}</tr>'


def _their_time(met: Against | None, layer: Layer, runs: Runs) -> str:
    """With the run's letter where it is not the one that the time of ours is from."""
    if met is None:
        return "<td></td>"
    assert layer.ours is not None
    letter = f"<sup>{runs[met.run]}</sup>" if met.run != run_of(layer.contenders[layer.ours]) else ""
    note = f"{met.name}, run {runs[met.run]}"
    return (
        f'<td title="{escape(note)}" data-value="{met.milliseconds:.6g}">{milliseconds(met.milliseconds)}{letter}</td>'
    )


def _ratio(met: Against | None) -> str:
    if met is None:
        return "<td></td>"
    role = tint(met.ratio)
    sign = "▲" if "faster" in role else "▼" if "slower" in role else "●"
    words = {"▲": "faster", "▼": "slower", "●": "about even"}[sign]
    note = f"{words}: {met.ratio:.3f} times {met.name}"
    return (
        f'<td class="ratio tint-{role}" title="{escape(note)}" data-value="{met.ratio:.5g}">'
        f'{met.ratio:.2f}&#8239;&times; <span aria-hidden="true">{sign}</span></td>'
    )


def _share(share: float, roof: str) -> str:
    of = "copies" if roof == COPY else "multiply-adds"
    width = min(100.0, 100 * share)
    return (
        f'<td class="share" style="--share:{width:.0f}%" title="{share:.1%} of the {of} timed beside it"'
        f' data-value="{share:.4f}">{share:.0%}{" <small>copies</small>" if roof == COPY else ""}</td>'
    )


def milliseconds(value: float) -> str:
    """With three digits that count: 0.0281, 1.15, 131."""
    return short(float(f"{value:.3g}"))


def number(value: float, text: str) -> str:
    return f'<td data-value="{value:.6g}">{escape(text)}</td>'


def sortable(name: str, caption: str, heads: Sequence[tuple[str, str]], lines: Sequence[str]) -> str:
    cells = "".join(
        f'<th scope="col" data-kind="{kind}"><button type="button">{escape(title)}</button></th>'
        for title, kind in heads
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">'
        f'<table class="sortable" id="{name}">'
        f"<caption>{escape(caption)}</caption><thead><tr>{cells}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )
