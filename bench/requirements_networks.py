"""What whole networks set out to reach on the CPU, beside what a run of the suite ``networks`` measured."""

from __future__ import annotations

from bench.contenders.networks import CPU_GRAPH
from bench.line import Line
from cnnengine.report.rows import Contenders, Row, advantage, best_other, by_case, geometric_mean, is_torch

TRAINING = {  # case -> times PyTorch's best of both layouts and torch.compile
    "AlexNet batch 16": 1.3,
    "ResNet-18 batch 16": 1.3,
    "ResNet-50 batch 16": 1.3,
    "EfficientNet-B0 batch 16": 1.3,
    "CoAtNet-0 batch 16": 1.3,
    "ViT-Ti batch 16": 1.0,
}
EACH, MEAN = 0.9, 1.2  # of inference, times the best of PyTorch, ONNX Runtime and OpenVINO
APART = "LeNet-5 batch 1"  # not in the mean: a matter of calls, not of kernels
RESNET18 = 1.4


def network_lines(rows: list[Row]) -> list[Line]:
    """Nothing where the suite was not run in float32 on the CPU."""
    tables = by_case(rows)
    trained, run = (
        tables.get(("networks", operation, "cpu", "float32"), {}) for operation in ("training step", "inference")
    )
    if not trained and not run:
        return []
    return [*(training(case, wanted, trained) for case, wanted in TRAINING.items()), *inference(run)]


def training(case: str, wanted: float, tables: dict[str, Contenders]) -> Line:
    value, captured = (advantage(tables.get(case, {}), is_torch, ours) for ours in (None, CPU_GRAPH))
    measured = "" if value is None else f"{value:.2f}x {best_other(tables[case], is_torch)}"
    if captured is not None:
        measured += f", as a graph {captured:.2f}x"
    return Line(
        f"{case}, training step", f">= {wanted:g}x PyTorch", measured, None if value is None else value >= wanted
    )


def inference(tables: dict[str, Contenders]) -> list[Line]:
    ratios = {
        case: r for case, contenders in tables.items() if (r := advantage(contenders, ours=CPU_GRAPH)) is not None
    }
    each = Line("inference, fused, as a graph, every network", f"each >= {EACH:g}x the best of all", "", None)
    if ratios:
        low = min(ratios, key=lambda case: ratios[case])
        measured = f"{ratios[low]:.2f}x {best_other(tables[low])} ({low}), of {len(ratios)}"
        each = Line(each.requirement, each.wanted, measured, ratios[low] >= EACH)
    counted = [r for case, r in ratios.items() if case != APART]
    mean = geometric_mean(counted) if counted else None
    of_resnet18 = {case: r for case, r in ratios.items() if case.startswith("ResNet-18 ")}
    least = min(of_resnet18.values(), default=None)
    return [
        each,
        Line(
            f"inference, fused, as a graph, without {APART}",
            f"mean >= {MEAN:g}x the best of all",
            "" if mean is None else f"{mean:.2f}x of {len(counted)}",
            None if mean is None else mean >= MEAN,
        ),
        Line(
            "inference, fused, as a graph, ResNet-18",
            f"each >= {RESNET18:g}x the best of all",
            ", ".join(f"{r:.2f}x ({case})" for case, r in of_resnet18.items()),
            None if least is None else least >= RESNET18,
        ),
    ]
