"""Turns results into a Markdown report with tables and a roofline plot.

python bench/report.py bench/results/*.jsonl --output report.md    # writes report.md and report-cpu.png
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.bench_overhead import LIMIT_MICROSECONDS
from bench.interleave import Samples
from bench.peaks import COPY, ROOFS, Peaks
from bench.requirements import requirements_table
from bench.rows import Contenders, Key, Row, advantage, best_other, by_case, ours_of, shares_of_roofs, shipped
from bench.summary import layers, replaced, summary
from cnnengine.backends.registry import NAMES


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="bench/report.py", description=(__doc__ or "").splitlines()[0])
    p.add_argument("results", nargs="+", type=Path, help="JSON lines that bench/run.py wrote")
    p.add_argument("--output", type=Path, required=True, help="the Markdown file; plots are written beside it")
    p.add_argument(
        "--summary", type=Path, metavar="PAGE", help="also put the short table between the marks of this page"
    )
    p.add_argument(
        "--layers", type=Path, metavar="PAGE", help="also put each convolution between the marks of this page"
    )
    options = p.parse_args(arguments)
    rows = [row for path in options.results for row in read(path)]
    text = "# Benchmark report\n\n" + "\n\n".join(sections(rows)) + "\n"
    devices = sorted({row["device"] for row in rows if row.get("flops") and "milliseconds" in row})
    pictures = {d: options.output.with_name(f"{options.output.stem}-{d}.png") for d in devices}
    text += "".join(f"\n![roofline]({picture.name})\n" for picture in pictures.values())
    options.output.write_text(text)  # before the plots, which take longer
    for device, picture in pictures.items():
        plot(rows, device, picture)
    for page, table in ((options.summary, summary), (options.layers, layers)):
        if page:
            page.write_text(replaced(page.read_text(), table(rows)))
    print(text)
    return 0


def read(path: Path) -> list[Row]:
    """The rows of one file. Raises ValueError naming the line that is no JSON."""
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: not a result row: {error}") from None
    return rows


def sections(rows: list[Row]) -> list[str]:
    """Headed Markdown tables, then what is absent or failed, then where the numbers come from."""
    tables = by_case(rows)
    peaks = {row["dtype"]: Peaks(row["gflops"], row["gbps"], row["how"]) for row in rows if row["suite"] == "peaks"}
    overhead = {key: cases for key, cases in tables.items() if key[0] == "overhead"}
    found = [overhead_table(overhead)] if overhead else []
    found += [race_table(key, cases, peaks.get(key[3])) for key, cases in tables.items() if key[0] != "overhead"]
    return [*found, *requirements_table(rows), *notes(rows), origins(rows)]


def overhead_table(tables: dict[Key, dict[str, Contenders]]) -> str:
    """Microseconds of Python per operation."""
    lines = [
        f"## Python cost per operation (limit {LIMIT_MICROSECONDS:g} us)",
        "",
        "| operation | call, us | kernel, us | Python, us | within the limit |",
        "|---|--:|--:|--:|---|",
    ]
    for (_, operation, _, _), cases in tables.items():
        for contenders in cases.values():
            call, kernel = (1e3 * Samples.from_fields(contenders[name]).median for name in ("call", "kernel"))
            verdict = "yes" if call - kernel <= LIMIT_MICROSECONDS else "**no**"
            lines.append(f"| {operation} | {call:.2f} | {kernel:.2f} | {call - kernel:.2f} | {verdict} |")
    return "\n".join(lines)


def race_table(key: Key, cases: dict[str, Contenders], peaks: Peaks | None) -> str:
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


def rate(contenders: Contenders) -> str:
    """What our best sample reached: GB/s where memory is the roof, else GFLOP/s."""
    name = ours_of(contenders)
    if name is None or not contenders[name]["bytes"]:
        return ""
    row = contenders[name]
    best = 1e-3 * Samples.from_fields(row).best
    if COPY in contenders:
        return f"{1e-9 * row['bytes'] / best:.1f} GB/s"
    return f"{1e-9 * row['flops'] / best:.0f} GFLOP/s"


def share(contenders: Contenders, peaks: Peaks | None) -> str:
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


def against(contenders: Contenders) -> str:
    """How many times faster ours is than the fastest contender that is not ours."""
    value = advantage(contenders)
    return "" if value is None else f"{value:.2f}x {best_other(contenders)}"


def notes(rows: Iterable[Row]) -> list[str]:
    """Who did not take part and what failed."""
    lines = dict.fromkeys(
        f"* {row['contender']} did not take part: {row['absent']}"
        if "absent" in row
        else f"* **failed**: {row['operation']}, {row['case']}, {row['dtype']}: {row['failed']}"
        for row in rows
        if "absent" in row or "failed" in row
    )
    return ["\n".join(["## Not in the tables", "", *lines])] if lines else []


def origins(rows: list[Row]) -> str:
    """Machine, commit, versions and command of every run in the report."""
    lines = ["## Where the numbers come from", ""]
    seen: dict[str, Row] = {f"{row['date']} {row['command']}": row for row in rows}
    for row in seen.values():
        commit = f"{(row['commit'] or 'unknown')[:12]}{' with uncommitted changes' if row['dirty'] else ''}"
        machine = (
            f"{row['cpu']}, {row['cores']} cores, {row['threads']} threads; GPU: {row['gpu'] or 'none'}; {row['os']}"
        )
        versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
        settings = ", ".join(f"{name}={value}" for name, value in row["settings"].items()) or "none"
        lines += [
            f"* {row['date']}: `{row['command']}`, commit {commit}",
            f"  * {machine}",
            f"  * Python {row['python']}, {versions}; settings: {settings}",
        ]
    for row in (row for row in rows if row["suite"] == "peaks"):
        lines.append(f"  * roofline {row['dtype']}: {row['gflops']:.0f} GFLOP/s, {row['gbps']:.1f} GB/s ({row['how']})")
    lines += [
        "",
        f"Other processes disturbed {disturbed_share(rows):.0%} of the samples: medians leave those out where five "
        "others remain. Times are medians over interleaved rounds, ratios medians of the ratios within a round.",
    ]
    return "\n".join(lines)


def disturbed_share(rows: list[Row]) -> float:
    timed = [row for row in rows if "milliseconds" in row]
    samples = sum(len(row["milliseconds"]) for row in timed)
    return sum(len(row["disturbed"]) for row in timed) / samples if samples else 0.0


def plot(rows: list[Row], device: str, path: Path) -> None:
    """Work per second over work per byte, with the roof that the run measured."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    timed = [
        row
        for row in rows
        if row.get("flops") and "milliseconds" in row and row["device"] == device and row["contender"] not in ROOFS
    ]
    figure, axes = plt.subplots(figsize=(9, 6))
    for roof in (row for row in rows if row["suite"] == "peaks" and row["dtype"] in {r["dtype"] for r in timed}):
        intensity = np.logspace(-2, 3, 200)
        axes.plot(intensity, np.minimum(roof["gflops"], intensity * roof["gbps"]), "k-", linewidth=1)
        axes.annotate(f"{roof['gflops']:.0f} GFLOP/s {roof['dtype']}", (300, roof["gflops"]), ha="right", va="bottom")
    for name in dict.fromkeys(row["contender"] for row in timed):
        points = [row for row in timed if row["contender"] == name]
        x = [row["flops"] / row["bytes"] for row in points]
        y = [row["flops"] / Samples.from_fields(row).median * 1e-6 for row in points]
        ours = name.split()[0] in NAMES
        axes.scatter(x, y, label=name, s=30 if ours else 14, marker="o" if ours else "x", linewidths=1)
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte of least traffic", ylabel="GFLOP/s")
    axes.set_title(f"Roofline ({device})")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=130, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
