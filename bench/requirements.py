"""What the CPU backend set out to reach, beside what a run measured: requirement | wanted | measured | holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bench.bench_conv2d import PREPARED, WITHOUT_WINOGRAD
from bench.contenders.networks import CPU_GRAPH
from bench.layers import CONV2D, GROUPED, Conv2dLayer
from bench.line import Line
from bench.requirements_networks import network_lines
from cnnengine.report.roofs import COPY, MULTIPLY_ADDS
from cnnengine.report.rows import (
    CALL_LIMIT_MICROSECONDS,
    PAST_THE_CACHES,
    Contenders,
    Row,
    advantage,
    by_case,
    copy_rate,
    geometric_mean,
    is_torch,
    ours_of,
    share_of_mixture,
    share_of_roof,
    shares_of_roofs,
)
from cnnengine.report.samples import Samples

FORWARD, BACKWARD_INPUT, BACKWARD_WEIGHT = "conv2d_forward", "conv2d_backward_input", "conv2d_backward_weight"
PASSES = (FORWARD, BACKWARD_INPUT, BACKWARD_WEIGHT)
LAYERS = {layer.name: layer for layer in CONV2D if layer not in GROUPED}
# operations whose passes over memory are all that they cost
AT_MEMORY_SPEED = (
    "max_pool2d_forward",
    "max_pool2d_backward",
    "relu_forward",
    "relu_backward",
    "batch_norm_train_forward",
    "batch_norm_train_backward",
    "sgd",
)


@dataclass(frozen=True)
class Entry:
    """One pass of one layer."""

    layer: Conv2dLayer
    operation: str
    contenders: Contenders

    @property
    def name(self) -> str:
        return f"{self.operation.removeprefix('conv2d_')} {self.layer.name}"

    def ratio(self, ours: str | None = None) -> float | None:
        return advantage(self.contenders, is_torch, ours if ours in self.contenders else None)


def requirements_table(rows: list[Row]) -> list[str]:
    """A Markdown section, or nothing where the rows are not of a CPU run against PyTorch."""
    lines = [*operation_lines(rows), *network_lines(rows)]
    head = ["## Requirements", "", "| requirement | wanted | measured | holds |", "|---|---|---|---|"]
    return ["\n".join([*head, *(line.cells() for line in lines)])] if lines else []


def operation_lines(rows: list[Row]) -> list[Line]:
    """Of single operations, LeNet-5 and Python's cost; nothing where no convolutions were timed beside PyTorch."""
    tables = {
        operation: cases
        for (suite, operation, device, dtype), cases in by_case(rows).items()
        if (device, dtype) == ("cpu", "float32") and suite != "networks"
    }
    if FORWARD not in tables or not any(is_torch(name) for c in tables[FORWARD].values() for name in c):
        return []
    entries = [
        Entry(LAYERS[case], operation, contenders)
        for operation in PASSES
        for case, contenders in tables.get(operation, {}).items()
        if case in LAYERS
    ]
    roofs = peaks(entries, copy_rate(rows))
    return [*convolution(entries), *roofs, *memory_speed(tables), *accuracy(rows), *lenet5_and_calls(tables)]


def convolution(entries: list[Entry]) -> list[Line]:
    def is_depthwise(e: Entry) -> bool:
        return e.layer.groups > 1

    def is_first(e: Entry) -> bool:
        return e.layer.C <= 3

    def is_3x3(e: Entry) -> bool:
        return e.layer.kernel == 3 and e.layer.stride == 1 and e.layer.groups == 1 and e.layer.C >= 64

    def without(e: Entry) -> bool:
        weight_of_depthwise = is_depthwise(e) and e.operation == BACKWARD_WEIGHT
        return not weight_of_depthwise and not (is_first(e) and e.operation == BACKWARD_INPUT)

    def passes(which: str) -> Callable[[Entry], bool]:
        return lambda e: is_3x3(e) and e.operation == which

    plain = f"native {WITHOUT_WINOGRAD}"
    return [
        mean("convolution, all layers and passes", entries, 1.5, 0.9),
        mean(
            "the same without Winograd, depthwise wgrad, first-layer dgrad", filter(without, entries), 1.2, ours=plain
        ),
        mean("3x3 stride 1, C >= 64, forward", filter(passes(FORWARD), entries), 2.0, 1.6),
        mean("3x3 stride 1, C >= 64, dgrad", filter(passes(BACKWARD_INPUT), entries), 2.0, 1.6),
        mean("3x3 stride 1, C >= 64, wgrad", filter(passes(BACKWARD_WEIGHT), entries), 1.3),
        mean("depthwise wgrad", (e for e in entries if is_depthwise(e) and e.operation == BACKWARD_WEIGHT), 5.0),
        mean("LeNet-5's layers, three passes", (e for e in entries if e.layer.network == "LeNet-5"), 2.0),
        mean("first layers, three passes", filter(is_first, entries), 1.5),
    ]


def mean(
    requirement: str, entries: Iterable[Entry], wanted: float, slowest: float | None = None, ours: str | None = None
) -> Line:
    """The geometric mean against PyTorch's better layout, and the slowest entry."""
    ratios = {e.name: r for e in entries if (r := e.ratio(ours)) is not None}
    goal = f"mean >= {wanted:g}x" + (f", each >= {slowest:g}x" if slowest else "")
    if not ratios:
        return Line(requirement, goal, "", None)
    least = min(ratios, key=lambda name: ratios[name])
    value = geometric_mean(ratios.values())
    holds = value >= wanted and (slowest is None or ratios[least] >= slowest)
    measured = f"{value:.2f}x of {len(ratios)}; slowest {ratios[least]:.2f}x ({least})"
    return Line(requirement, goal, measured, holds)


def peaks(entries: list[Entry], gbps: float | None) -> list[Line]:
    """Forward without Winograd as a share of the multiply-add peak, weights prepared where that was timed. 1x1 of few
    channels may be bound by memory: there the roofline counts, with copies at ``gbps``."""
    dense = [e for e in entries if e.operation == FORWARD and e.layer.groups == 1]
    return [
        least_share("3x3 forward without Winograd", [e for e in dense if e.layer.kernel == 3], 0.8),
        least_share("1x1 forward, C >= 512", [e for e in dense if e.layer.kernel == 1 and e.layer.C >= 512], 0.8),
        lower_roof("1x1 forward, the others", [e for e in dense if e.layer.kernel == 1 and e.layer.C < 512], 0.7, gbps),
    ]


def without_winograd(e: Entry) -> str | None:
    """The contender that a share of the peak is about."""
    names = (f"native {WITHOUT_WINOGRAD} {PREPARED}", f"native {WITHOUT_WINOGRAD}", f"native {PREPARED}", "native")
    return next((n for n in names if n in e.contenders), None)


def least_share(requirement: str, entries: list[Entry], wanted: float) -> Line:
    named = [(e, name) for e in entries if (name := without_winograd(e)) is not None]
    shares = {e.layer.name: share_of_roof(e.contenders, name) for e, name in named}
    return least(requirement, {n: s for n, s in shares.items() if s is not None}, wanted, "of the multiply-add peak")


def lower_roof(requirement: str, entries: list[Entry], wanted: float, gbps: float | None) -> Line:
    """The least share of the roofline, beside both roofs' shares."""
    goal = f"each >= {wanted:.0%} of the lower roof, multiply-adds or copies"
    named = [(e, name) for e in entries if (name := without_winograd(e)) is not None]
    found = {e.layer.name: shares_of_roofs(e.contenders, name, gbps) for e, name in named}
    found = {name: shares for name, shares in found.items() if shares}
    if not found:
        return Line(requirement, goal, "", None)
    low = min(found, key=lambda name: max(found[name].values()))
    ordered = sorted(found[low].items(), key=lambda share: -share[1])
    roofs = {MULTIPLY_ADDS: "the multiply-add peak", COPY: "the copy rate"}
    measured = ", ".join(f"{share:.0%} of {roofs[roof]}" for roof, share in ordered)
    return Line(requirement, goal, f"{measured} ({low})", ordered[0][1] >= wanted)


def least(requirement: str, shares: dict[str, float], wanted: float, of: str) -> Line:
    goal = f"each >= {wanted:.0%} {of}"
    if not shares:
        return Line(requirement, goal, "", None)
    low = min(shares, key=lambda name: shares[name])
    return Line(requirement, goal, f"{shares[low]:.0%} ({low})", shares[low] >= wanted)


def memory_speed(tables: dict[str, dict[str, Contenders]]) -> list[Line]:
    """Each operation: every row against PyTorch's best, and on arrays past the caches the share of the copy rate, with
    that of the same mixture of reads and writes beside it."""
    lines = []
    for operation in AT_MEMORY_SPEED:
        cases = tables.get(operation, {})
        ratios = {case: r for case, c in cases.items() if (r := advantage(c, is_torch)) is not None}
        if ratios:
            low = min(ratios, key=lambda case: ratios[case])
            lines.append(Line(operation, "each >= 1x PyTorch", f"{ratios[low]:.2f}x ({low})", ratios[low] >= 1))
        else:
            lines.append(Line(operation, "each >= 1x PyTorch", "", None))
        shares = {}
        for case, contenders in cases.items():
            name = ours_of(contenders)
            share = None if name is None else share_of_roof(contenders, name)
            if name is not None and share is not None and contenders[name]["bytes"] >= PAST_THE_CACHES:
                mixture = share_of_mixture(contenders, name)
                shares[f"{case}; {mixture:.0%} of its reads and writes"] = share
        lines.append(least(f"{operation}, arrays past the caches", shares, 0.7, "of the copy rate"))
    return lines


def accuracy(rows: list[Row]) -> list[Line]:
    """Winograd's errors against a float64 sum over those of kernels without it (see accuracy.py)."""
    lines = []
    for suffix, kernel in (
        ("", "those of implicit_gemm, which it replaces"),
        ("_to_torch", "those of PyTorch channels_last"),
        ("_to_direct", "those of direct, whose chains of sums are short"),
    ):
        for field, label in (("rms_ratio", "rms error"), ("largest_ratio", "largest error")):
            name = field + suffix
            found = {f"{r['operation'].removeprefix('conv2d_')} {r['case']}": r[name] for r in rows if name in r}
            worst = max(found, key=lambda case, found=found: found[case]) if found else None
            measured = "" if worst is None else f"{found[worst]:.2f}x ({worst})"
            holds = None if worst is None else found[worst] <= 2
            lines.append(Line(f"Winograd, {label}", f"<= 2x {kernel}", measured, holds))
    return lines


def lenet5_and_calls(tables: dict[str, dict[str, Contenders]]) -> list[Line]:
    """LeNet-5 end to end and Python's cost an operation."""
    lines = []
    for operation, case in (("training step", "LeNet-5 batch 64"), ("inference", "LeNet-5 batch 1")):
        for ours, how in ((None, ""), (CPU_GRAPH, ", as a graph")):
            value = advantage(tables.get(operation, {}).get(case, {}), is_torch, ours)
            measured, verdict = ("", None) if value is None else (f"{value:.2f}x", value >= 3)
            lines.append(Line(f"{case}, {operation}{how}", ">= 3x PyTorch", measured, verdict))
    costs = {}
    for operation, cases in tables.items():
        for c in cases.values():
            if {"call", "kernel"} <= c.keys():
                costs[operation] = 1e3 * (
                    Samples.from_fields(c["call"]).median - Samples.from_fields(c["kernel"]).median
                )
    goal = f"each <= {CALL_LIMIT_MICROSECONDS:g} us"
    if not costs:
        return [*lines, Line("Python's cost an operation", goal, "", None)]
    most = max(costs, key=lambda name: costs[name])
    verdict = costs[most] <= CALL_LIMIT_MICROSECONDS
    return [*lines, Line("Python's cost an operation", goal, f"{costs[most]:.2f} us ({most})", verdict)]
