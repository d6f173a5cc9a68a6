"""Tables that pages quote: the README's, ours against the best of each library over all layers of an operation, and the
layers of the convolution one by one."""

from __future__ import annotations

from collections.abc import Callable

from bench.bench_conv2d import WITHOUT_WINOGRAD
from bench.requirements import LAYERS, PASSES
from cnnengine.report.rows import Contenders, Row, advantage, by_case, geometric_mean, is_torch, ours_of
from cnnengine.report.samples import Samples

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
SLOWEST = 8  # rows named below the table of layers


def summary(rows: list[Row]) -> str:
    """Markdown: one line an operation, the geometric mean over its cases of theirs / ours, and the range."""
    lines = [
        "| operation | cases | against PyTorch, better layout | against NumPy or ONNX Runtime |",
        "|---|--:|--:|--:|",
    ]
    for (suite, operation, _, dtype), cases in by_case(rows).items():
        if suite == "overhead" or dtype != "float32":
            continue
        torch = spread(cases, is_torch)
        runtime = spread(cases, lambda name: name == "ONNX Runtime")
        other = f"{runtime} ONNX Runtime" if runtime else spread(cases, lambda name: name == "NumPy")
        name = f"LeNet-5 {operation}" if suite == "lenet5" else f"`{operation}`"
        lines.append(f"| {name} | {len(cases)} | {torch} | {other} |")
    return "\n".join([*lines, "", *python_cost(rows), origin(rows)])


def layers(rows: list[Row]) -> str:
    """Markdown: each pass of each convolution on the CPU, milliseconds, and the slowest ratios."""
    lines = [
        "| layer | pass | ours | without Winograd | GFLOP/s | PyTorch NCHW | PyTorch channels_last | PyTorch / ours |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    tables, ratios = by_case(rows), {}
    for layer in LAYERS:
        for operation in PASSES:
            contenders = tables.get(("conv2d", operation, "cpu", "float32"), {}).get(layer, {})
            name, ratio = ours_of(contenders), advantage(contenders, is_torch)
            if name is None or ratio is None:
                continue
            which = operation.removeprefix("conv2d_")
            ratios[f"{layer} {which}"] = ratio
            median = Samples.from_fields(contenders[name]).median
            others = (f"{name} {WITHOUT_WINOGRAD}", "PyTorch nchw", "PyTorch nhwc")
            times = [f"{Samples.from_fields(contenders[n]).median:.3f}" if n in contenders else "" for n in others]
            rate = f"{contenders[name]['flops'] / median * 1e-6:.0f}"
            cells = (layer, which, f"{median:.3f}", times[0], rate, *times[1:], f"{ratio:.2f}")
            lines.append(f"| {' | '.join(cells)} |")
    if not ratios:
        raise ValueError("the rows have no convolution on the CPU against PyTorch")
    slowest = sorted(ratios.items(), key=lambda item: item[1])
    named = ", ".join(f"{name} {ratio:.2f}" for name, ratio in slowest[:SLOWEST])
    mean = f"Geometric mean {geometric_mean(ratios.values()):.2f}, best {slowest[-1][1]:.2f}; the slowest: {named}."
    return "\n".join([*lines, "", mean, "", origin(rows)])


def spread(cases: dict[str, Contenders], counts: Callable[[str], bool]) -> str:
    """ "1.20x (0.80 to 2.10)": the geometric mean, and the slowest and fastest case."""
    ratios = [r for contenders in cases.values() if (r := advantage(contenders, counts)) is not None]
    if not ratios:
        return ""
    mean = geometric_mean(ratios)
    return f"{mean:.2f}x" if len(ratios) == 1 else f"{mean:.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"


def python_cost(rows: list[Row]) -> list[str]:
    """What Python adds to a kernel, of the operations that the overhead suite times."""
    medians = {
        (row["operation"], row["contender"]): 1e3 * Samples.from_fields(row).median
        for row in rows
        if row["suite"] == "overhead" and "milliseconds" in row
    }
    costs = {op: value - medians[op, "kernel"] for (op, name), value in medians.items() if name == "call"}
    if not costs:
        return []
    each = ", ".join(f"{operation} {cost:.1f}" for operation, cost in costs.items())
    return [f"Python's cost an operation, in microseconds: {each}."]


def origin(rows: list[Row]) -> str:
    row = next(r for r in rows if "command" in r)
    versions = ", ".join(f"{n} {row['versions'][n]}" for n in ("torch", "numpy") if n in row["versions"])
    machine = f"{row['cpu']}, {row['cores']} cores" if row["gpu"] is None else f"{row['gpu']}"
    dirty = " with uncommitted changes" if row["dirty"] else ""
    return (
        "More than 1 is faster than theirs: the geometric mean over the cases (slowest to fastest)."
        f" {machine}; {versions}; `{row['command']}` at commit"
        f" {(row['commit'] or 'unknown')[:10]}{dirty}, {row['date'][:10]}."
    )


def replaced(page: str, table: str) -> str:
    """The page with the table between its two marks. Raises ValueError where a mark is missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page lacks the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"
