"""Results as Markdown: a table for each operation, who is absent and why, and where the numbers come from."""

from __future__ import annotations

from collections.abc import Mapping

from . import predictions
from .roofs import COPY, ROOFS, Peaks
from .rows import (
    CALL_LIMIT_MICROSECONDS,
    Contenders,
    Key,
    Row,
    advantage,
    best_other,
    by_case,
    by_machine,
    disturbed_share,
    ours_of,
    peaks_of,
    run_of,
    shares_of_roofs,
    shipped,
    title_of,
)
from .runs import facts, missing, runs_of
from .samples import Samples


def document(rows: list[Row]) -> str:
    """The whole report, machine by machine."""
    machines = by_machine(rows)
    parts = ["# Benchmark report"]
    for machine, of in machines.items():
        if len(machines) > 1:
            parts.append(f"# {title_of(machine)}")
        parts += [*tables(of), *notes(of), origins(of)]
    parts += predictions.table(predictions.predicted(rows))
    return "\n\n".join(parts) + "\n"


def tables(rows: list[Row]) -> list[str]:
    """Headed Markdown tables, one an operation; the rows are of one machine."""
    cases = by_case(rows)
    peaks = peaks_of(rows)
    overhead = {key: found for key, found in cases.items() if key[0] == "overhead"}
    parts = [overhead_table(overhead)] if overhead else []
    return parts + [race_table(k, found, peaks.get(k[2:])) for k, found in cases.items() if k[0] != "overhead"]


def overhead_table(cases: Mapping[Key, Mapping[str, Contenders]]) -> str:
    """Microseconds of Python per operation."""
    lines = [
        f"## Python cost per operation (limit {CALL_LIMIT_MICROSECONDS:g} us)",
        "",
        "| operation | call, us | kernel, us | Python, us | within the limit |",
        "|---|--:|--:|--:|---|",
    ]
    for (_, operation, _, _), found in cases.items():
        for contenders in found.values():
            call, kernel = (1e3 * Samples.from_fields(contenders[name]).median for name in ("call", "kernel"))
            verdict = "yes" if call - kernel <= CALL_LIMIT_MICROSECONDS else "**no**"
            lines.append(f"| {operation} | {call:.2f} | {kernel:.2f} | {call - kernel:.2f} | {verdict} |")
    return "\n".join(lines)


def race_table(key: Key, cases: Mapping[str, Contenders], peaks: Peaks | None) -> str:
    """Median milliseconds of every contender, ours as a share of the roof and against the best that is not ours."""
    suite, operation, device, dtype = key
    names = [n for n in dict.fromkeys(name for contenders in cases.values() for name in contenders) if n not in ROOFS]
    lines = [
        f"## {suite}: {operation} ({device}, {dtype})",
        "",
        f"| case | {' | '.join([*(f'{n}, ms' for n in names), 'rate', 'of the peak', 'against', 'as shipped'])} |",
        "|---|" + "--:|" * (len(names) + 4),
    ]
    for case, contenders in cases.items():
        cells = [f"{Samples.from_fields(contenders[n]).median:.3f}" if n in contenders else "" for n in names]
        cells += [rate(contenders), share(contenders, peaks), against(contenders), against(shipped(contenders))]
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join(lines)


def rate(contenders: Mapping[str, Row]) -> str:
    """What our best sample reached: GB/s where memory is the roof, else GFLOP/s."""
    name = ours_of(contenders)
    if name is None or not contenders[name]["bytes"]:
        return ""
    row = contenders[name]
    best = 1e-3 * Samples.from_fields(row).best
    if COPY in contenders or not row["flops"]:
        return f"{1e-9 * row['bytes'] / best:.1f} GB/s"
    return f"{1e-9 * row['flops'] / best:.0f} GFLOP/s"


def share(contenders: Mapping[str, Row], peaks: Peaks | None) -> str:
    """Of the roofline: by the roof that was timed in the same rounds, which says so where copies are the lower one."""
    name = ours_of(contenders)
    if name is None or not contenders[name]["bytes"]:
        return ""
    row = contenders[name]
    shares = shares_of_roofs(contenders, name, None if peaks is None else peaks.gbps)
    if shares:
        roof = max(shares, key=lambda r: shares[r])
        return f"{shares[roof]:.0%}{' of copies' if len(shares) > 1 and roof == COPY else ''}"
    if peaks is None:
        return ""
    return f"{peaks.milliseconds(row['flops'], row['bytes']) / Samples.from_fields(row).median:.0%}"


def against(contenders: Mapping[str, Row]) -> str:
    """How many times faster ours is than the fastest contender that is not ours."""
    value = advantage(contenders)
    return "" if value is None else f"{value:.2f}x {best_other(contenders)}"


def notes(rows: list[Row]) -> list[str]:
    """Who did not take part and what failed."""
    lines = [f"* {line}" for line in missing(rows)]
    return ["\n".join(["## Not in the tables", "", *lines])] if lines else []


def origins(rows: list[Row]) -> str:
    """Machine, commit, versions and command of every run in the report."""
    lines = ["## Where the numbers come from", ""]
    for run in runs_of(rows):
        known = facts([row for row in rows if run_of(row) == run])
        lines += [
            f"* {known['date']}: `{known['command']}`, commit {known['commit']}",
            f"  * {known['machine']}",
            f"  * {known['versions']}; settings: {known['settings']}",
            f"  * roofs: {known['roofs']}",
            f"  * samples: {known['samples']}",
        ]
    lines += [
        "",
        f"Other processes disturbed {disturbed_share(rows):.0%} of the samples: medians leave those out where five "
        "others remain. Times are medians over interleaved rounds, ratios medians of the ratios within a round.",
    ]
    return "\n".join(lines)
