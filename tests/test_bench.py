"""The benchmarks run: every race once, small, on every backend that is here; no time is asserted anywhere."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench import against, emulator_vs_gpu, predicted, report, requirements, run, summary
from bench.contenders import numpy_im2col
from bench.interleave import SMOKE, PinnedThreads, race
from bench.layers import ACTIVATION, CONV2D, POOL, shrink
from bench.peaks import cpu_peaks, roofs
from bench.provenance import provenance
from bench.suite import SUITES, races
from bench.task import Prepared, Task, check_agreement
from bench.worker import Worker
from cnnengine import backends
from cnnengine.backends.contract import IDENTITY
from cnnengine.report import markdown
from cnnengine.report.roofs import COPY, MIXTURE, MULTIPLY_ADDS, Peaks
from cnnengine.report.rows import by_case, share_of_mixture, share_of_roof
from cnnengine.report.samples import Samples, ratio
from cnnengine.shapes import conv2d_shape

from .lines import ROOT

REASONS = backends.available()
needs_native = pytest.mark.skipif(
    REASONS["native"] is not None, reason=f"backend native is absent: {REASONS['native']}"
)


@pytest.mark.parametrize("suite", SUITES)
def test_every_race_runs_and_its_contenders_agree(suite: str) -> None:
    entries = races(suite, smoke=True)
    assert entries
    for entry in entries:
        for contender in entry.build(entry.names).values():
            contender()
        assert all(len(reason) > 10 for reason in entry.absent.values())


def test_pytest_benchmark_runs_the_suites() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "bench/bench_activation.py",
        "--smoke",
        "--benchmark-disable",
        "-k",
        "native",
    ]
    done = subprocess.run([*command, "-p", "no:cacheprovider"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 5), done.stdout[-3000:]  # 5: there is no native backend here
    assert "failed" not in done.stdout


def test_layers_are_declared_once() -> None:
    names = [layer.name for layer in (*CONV2D, *POOL, *ACTIVATION)]
    assert len(set(names)) == len(names)
    for layer in CONV2D:
        small = shrink(layer).shape
        assert small.N == 1
        assert small.P >= 1
        assert (small.R, small.stride_h, small.pad_h) == (layer.kernel, layer.stride, layer.padding)


@pytest.mark.parametrize(
    ("x", "w", "options"),
    [
        ((2, 9, 8, 6), (4, 3, 2, 3), {"stride": (2, 1), "padding": (1, 2), "groups": 2}),
        ((1, 11, 10, 4), (4, 3, 3, 1), {"dilation": (2, 3), "padding": 2, "groups": 4}),
        ((2, 7, 7, 5), (3, 2, 2, 5), {"stride": 3}),
        ((1, 6, 6, 3), (8, 3, 3, 3), {"padding": "same", "stride": 2}),
        ((2, 7, 9, 3), (5, 3, 2, 3), {"padding": ((0, 2), (1, 0))}),
        ((2, 8, 6, 4), (5, 3, 3, 4), {"padding": 1, "dilation": 2}),
        ((1, 5, 5, 2), (3, 1, 1, 2), {"padding": 1}),
    ],
)
def test_numpy_baseline_is_right(
    x: tuple[int, ...], w: tuple[int, ...], options: dict[str, Any], rng: np.random.Generator
) -> None:
    shape = conv2d_shape(x, w, **options)
    ax, aw, ady = (rng.standard_normal(s, np.float32) for s in (shape.x, shape.w, shape.y))
    oracle = backends.get("numpy")
    y, dx, dw = np.empty_like(ady), np.empty_like(ax), np.empty_like(aw)
    oracle.conv2d_forward(shape, ax, aw, y, IDENTITY, None)
    oracle.conv2d_backward_input(shape, ady, aw, dx, None)
    oracle.conv2d_backward_weight(shape, ax, ady, dw, None)
    np.testing.assert_allclose(numpy_im2col.conv2d_forward(shape, ax, aw), y, atol=1e-5)
    np.testing.assert_allclose(numpy_im2col.conv2d_backward_input(shape, ady, aw), dx, atol=1e-5)
    np.testing.assert_allclose(numpy_im2col.conv2d_backward_weight(shape, ax, ady), dw, atol=1e-4)


@pytest.mark.parametrize("wrong", [2.0, np.nan])
def test_a_wrong_contender_is_not_timed(wrong: float) -> None:
    task = Task("relu_forward", "planted", lambda rng: {}, ours={}, torch={})
    good = Prepared(lambda: np.ones((1, 2, 2, 3)), np.asarray)
    bad = Prepared(lambda: np.full((1, 2, 2, 3), wrong), np.asarray)
    with pytest.raises(ArithmeticError, match="bad differs from good"):
        check_agreement(task, {"good": good, "bad": bad})


def test_a_contender_that_breaks_is_left_out_unless_it_is_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    task = Task("relu_forward", "planted", lambda rng: {}, ours={}, torch={})
    good = Prepared(lambda: np.ones((1, 2, 2, 3)), np.asarray)
    broken = Prepared(lambda: 1 // 0, np.asarray)
    assert check_agreement(task, {"good": good, "broken": broken}) == {"good": good}
    assert "broken: no relu_forward planted float32: ZeroDivisionError" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        check_agreement(task, {"broken": broken, "good": good})


def test_rounds_are_interleaved_and_every_sample_kept() -> None:
    calls: list[str] = []
    samples = race({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, SMOKE)
    assert {name: len(s.milliseconds) for name, s in samples.items()} == {"a": 1, "b": 1}
    assert set(calls) == {"a", "b"}
    assert all(v > 0 for s in samples.values() for v in s.milliseconds)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not tell a thread's cores")
def test_threads_are_pinned_apart_and_let_go() -> None:
    before, release = os.sched_getaffinity(0), threading.Event()
    worker = threading.Thread(target=release.wait)
    worker.start()
    try:
        with PinnedThreads() as pins:
            pins.settle()
            if len(before) > 1:
                assert os.sched_getaffinity(0) == {min(before)}
                assert min(before) not in os.sched_getaffinity(worker.native_id or 0)
        assert os.sched_getaffinity(0) == os.sched_getaffinity(worker.native_id or 0) == before
    finally:
        release.set()
        worker.join()


def test_ratio_is_within_rounds_and_prefers_undisturbed_ones() -> None:
    ours = Samples(1, [1.0, 2.0, 1.0, 4.0, 1.0, 100.0], [False] * 5 + [True])
    theirs = Samples(1, [2.0, 4.0, 2.0, 8.0, 2.0, 1.0], [False] * 6)
    assert ratio(theirs, ours) == 2.0  # the machine's pace changed fourfold meanwhile
    few = Samples(1, [1.0, 1.0], [True, False])
    assert ratio(Samples(1, [3.0, 5.0], [False, False]), few) == 4.0


def test_samples_survive_the_file() -> None:
    s = Samples(3, [1.5, 2.5, 3.5], [False, True, False])
    assert Samples.from_fields(json.loads(json.dumps(s.fields()))) == s
    assert s.quartiles == (2.0, 3.0)


def test_roofline() -> None:
    peaks = Peaks(gflops=100.0, gbps=10.0, how="given")
    assert peaks.milliseconds(flops=10**9, nbytes=1) == pytest.approx(10.0)
    assert peaks.milliseconds(flops=1, nbytes=10**9) == pytest.approx(100.0)
    measured = cpu_peaks(seconds=0.01, repeats=1, copy_bytes=1 << 20)
    assert measured.gflops > 0.1
    assert measured.gbps > 0.1


def test_roofs_of_a_race() -> None:
    if not roofs(None, 1 << 20):
        pytest.skip("no C compiler")
    assert [r.name for r in roofs(None, 1 << 20)] == [MULTIPLY_ADDS]
    assert [r.name for r in roofs((1, 1), 1 << 20)] == [COPY]
    for streams in ((2, 1), (1, 4), (1, 0)):
        copy, mixture = roofs(streams, 1 << 20)
        assert (copy.name, mixture.name) == (COPY, MIXTURE)
        assert all(0 < r.sample(1)[0] < 1 for r in (copy, mixture))  # seconds for 2 MB


def test_a_share_of_the_copy_rate_is_a_median_over_rounds() -> None:
    """Where the memory's rate halves for three rounds of five, the best copy against the best of ours says nothing."""
    head = {"calls": 1, "disturbed": [], "bytes": 100, "flops": 0}
    contenders = {
        "native": {**head, "milliseconds": [2.5, 2.5, 2.5, 2.5, 2.5]},
        COPY: {**head, "milliseconds": [2.0, 2.0, 2.0, 1.0, 1.0]},
        MIXTURE: {**head, "milliseconds": [2.25, 2.25, 2.25, 1.5, 1.5]},
    }
    assert share_of_roof(contenders, "native") == pytest.approx(0.8)
    assert share_of_mixture(contenders, "native") == pytest.approx(0.9)
    del contenders[MIXTURE]
    assert share_of_mixture(contenders, "native") == pytest.approx(0.8)
    assert share_of_mixture({"native": contenders["native"]}, "native") is None


def test_predictions() -> None:
    """A 3x3 layer of 64 channels at 56: 12 rounds of tiles, bound by L2; 1x1: by memory; the page has both."""
    shape = conv2d_shape((64, 56, 56, 64), (64, 3, 3, 64), padding=1)
    p = predicted.predict(shape, "conv2d_forward")
    assert (p.rung, p.tile) == ("implicit_gemm_wgmma", "128 x 64 x 2")
    assert p.rounds == pytest.approx(64 * 56 * 56 / 128 / 132)
    assert p.arithmetic == pytest.approx(1e3 * 12 * 2 * 128 * 64 * 576 / (790e12 / 132))
    assert p.memory == pytest.approx(1e3 * 2 * (2 * 64 * 56 * 56 * 64 + 64 * 576) / 4.3e12)
    asked = 12 * 9 * (128 + 64 / 2) * 64 * 2  # rows of x, and half of the tile's filters, nine steps of 64
    assert p.l2 == pytest.approx(1e3 * asked / (8.3e12 / 132))
    assert p.total == pytest.approx(p.l2 + 2.5e-3)
    one = predicted.predict(conv2d_shape((64, 56, 56, 64), (256, 1, 1, 64)), "conv2d_forward")
    assert one.total == pytest.approx(one.memory + 2.5e-3)
    assert len(list(predicted.resnet50(1))) == 53
    assert sum(s.flops() for _, s in predicted.resnet50(1)) == pytest.approx(8.2e9, rel=0.02)
    assert predicted.tables() in (ROOT / "docs/kernels/conv2d-cuda.md").read_text(), "run bench/predicted.py --page"


def test_provenance_names_the_machine_and_nobodys_folders() -> None:
    record = provenance(threads=2)
    assert {"date", "command", "commit", "dirty", "cpu", "cores", "threads", "gpu", "versions"} <= record.keys()
    assert "numpy" in record["versions"]
    assert str(ROOT) not in json.dumps(record)


@needs_native
def test_run_then_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows_file, page = tmp_path / "rows.jsonl", tmp_path / "report.md"
    options = ["--only", "relu_forward lenet", "--smoke", "--seconds", "0", "--output", str(rows_file)]
    assert run.main(["activation", *options]) == 0
    rows = [json.loads(line) for line in rows_file.read_text().splitlines()]
    timed = [row for row in rows if "milliseconds" in row]
    assert {"native", "NumPy"} <= {row["contender"] for row in timed}
    assert all(len(row["milliseconds"]) >= 5 and row["command"] and row["cpu"] for row in timed)
    assert report.main([str(rows_file), "--output", str(page)]) == 0
    text = page.read_text()
    assert "| native, ms |" in text
    assert "Where the numbers come from" in text
    assert (tmp_path / "report-cpu.png").stat().st_size > 1000
    assert "relu_forward" in capsys.readouterr().out


@pytest.mark.skipif(REASONS["cuda"] is None, reason="there is a GPU here")
def test_run_without_a_gpu_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "rows.jsonl"
    assert run.main(["conv2d", "--device", "cuda", "--output", str(output)]) == 2
    assert str(REASONS["cuda"]) in capsys.readouterr().err
    assert not output.exists()


def test_report_says_what_is_absent_failed_or_over_the_limit() -> None:
    origin = provenance(2)
    head = {"suite": "overhead", "operation": "relu", "case": "1x1x1x1", "device": "cpu", "dtype": "float32"}
    head |= {"flops": 0, "bytes": 0}
    slow = {"milliseconds": [0.010], "disturbed": [], "calls": 1}
    quick = {"milliseconds": [0.001], "disturbed": [], "calls": 1}
    rows = [
        {**head, "contender": "call", **slow, **origin},
        {**head, "contender": "kernel", **quick, **origin},
        {**head, "contender": "PyTorch nhwc", "absent": "PyTorch is not installed", **origin},
        {**head, "contender": "all", "failed": "ArithmeticError: a differs from b", **origin},
    ]
    text = "\n".join(report.sections(rows))
    assert "| relu | 10.00 | 1.00 | 9.00 | **no** |" in text
    assert "PyTorch is not installed" in text
    assert "a differs from b" in text


def test_summary_takes_the_better_layout_and_the_geometric_mean() -> None:
    origin = provenance(2)
    times = {"native": (1.0, 1.0), "PyTorch nhwc": (2.0, 8.0), "PyTorch nchw": (4.0, 9.0), "NumPy": (10.0, 10.0)}
    head = {"suite": "conv2d", "operation": "conv2d_forward", "device": "cpu", "dtype": "float32", "calls": 1}
    rows = [
        {**head, "case": case, "contender": name, "milliseconds": [values[i]], "disturbed": [], **origin}
        for i, case in enumerate(("a", "b"))
        for name, values in times.items()
    ]
    table = summary.summary(rows)
    assert "| `conv2d_forward` | 2 | 4.00x (2.00 to 8.00) | 10.00x (10.00 to 10.00) |" in table
    page = f"top\n{summary.BEGIN}\nold\n{summary.END}\nbottom\n"
    assert summary.replaced(page, table) == page.replace("old", table)
    with pytest.raises(ValueError, match="lacks the marks"):
        summary.replaced("top", table)


def test_layers_are_listed_one_by_one_with_the_slowest_named() -> None:
    head = {"suite": "conv2d", "device": "cpu", "dtype": "float32", "calls": 1, "disturbed": [], "flops": 10**9}
    head |= provenance(2)
    times = {"native": 2.0, "native implicit_gemm": 4.0, "PyTorch nhwc": 3.0, "PyTorch nchw": 5.0}
    rows = [
        {**head, "operation": operation, "case": "r50 3x3 64>64 @56", "contender": name, "milliseconds": [scale * ms]}
        for operation, scale in (("conv2d_forward", 1.0), ("conv2d_backward_input", 2.0))
        for name, ms in times.items()
    ]
    rows[-1]["milliseconds"] = [4.0]
    table = summary.layers(rows)
    assert "| r50 3x3 64>64 @56 | forward | 2.000 | 4.000 | 500 | 5.000 | 3.000 | 1.50 |" in table
    assert "| r50 3x3 64>64 @56 | backward_input | 4.000 | 8.000 | 250 | 4.000 | 6.000 | 1.00 |" in table
    assert "Geometric mean 1.22, best 1.50; the slowest: r50 3x3 64>64 @56 backward_input 1.00, r50" in table
    with pytest.raises(ValueError, match="no convolution"):
        summary.layers(rows[:1])


@needs_native
def test_worker_answers() -> None:
    worker = Worker()
    listed = worker.answer({"list": "activation", "smoke": True})["races"]
    assert ["relu_forward", ACTIVATION[0].name] in listed
    assert worker.answer({"prepare": ["activation", 0], "smoke": True})["contender"] == "native"
    assert worker.answer({"sample": "native", "smoke": True})["milliseconds"] > 0
    assert worker.answer({"clear": True, "smoke": True}) == {}
    with pytest.raises(KeyError):
        worker.answer({"sample": "native", "smoke": True})


def test_two_commits_take_turns() -> None:
    asked: list[str] = []

    def side(name: str) -> Any:
        def ask(**request: Any) -> dict[str, Any]:
            asked.append(name)
            return {"milliseconds": {"here": 1.0, "there": 3.0}[name], "disturbed": False}

        return SimpleNamespace(root=Path(name), ask=ask)

    ready = {Path(name): {"calls": 1, "contender": "native"} for name in ("here", "there")}
    samples = against.take_turns(side("here"), side("there"), ready, seconds=0.0)
    assert ratio(samples[Path("there")], samples[Path("here")]) == 3.0
    rounds = [set(asked[i : i + 2]) for i in range(0, len(asked), 2)]
    assert len(rounds) >= 7
    assert all(r == {"here", "there"} for r in rounds)


def test_unknown_commit_is_named() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    with pytest.raises(SystemExit, match="git does not know the commit 'no-such-commit'"):
        against.main(["no-such-commit"])


@pytest.mark.skipif(REASONS["emulator"] is not None, reason=f"backend emulator is absent: {REASONS['emulator']}")
def test_backends_are_compared_verb_by_verb(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    output = tmp_path / "rows.jsonl"
    command = ["--first", "emulator", "--second", "numpy", "--few", "--output", str(output)]
    assert emulator_vs_gpu.main(command) == 0
    assert "0 differ" in capsys.readouterr().out
    assert len(output.read_text().splitlines()) > 10


def test_a_backend_that_differs_is_reported() -> None:
    values = iter([[np.zeros(3)], [np.ones(3)]])
    check = emulator_vs_gpu.Check("planted", "float32", lambda backend: next(values))
    oracle = backends.get("numpy")
    assert not emulator_vs_gpu.run(check, oracle, oracle)["agrees"]
    one_nan = np.array([np.nan, 1.0])
    assert emulator_vs_gpu.difference(one_nan, np.ones(2)) == float("inf")
    assert emulator_vs_gpu.difference(one_nan, one_nan) == 0.0


def test_order_is_the_same_for_the_same_seed() -> None:
    def order(seed: int) -> list[str]:
        asked: list[str] = []
        race({name: (lambda n=name: asked.append(n)) for name in "abcd"}, SMOKE, _FixedTimer(), seed)
        return asked

    assert order(3) == order(3)
    assert any(order(3) != order(seed) for seed in random.Random(0).sample(range(100), 5))


class _FixedTimer:
    name = "fixed"

    def calls(self, run: Any) -> int:
        return 1

    def seconds(self, run: Any, calls: int) -> float:
        return 1e-3


def test_a_layer_bound_by_memory_is_judged_by_the_copy_rate() -> None:
    """16>96 @112: 6.8 FLOP a byte. At 50 GB/s 342 GFLOP/s are the roof, not 1000"""
    layer = next(one for one in CONV2D if one.name == "eff 1x1 16>96 @112")
    s = layer.shape
    head = {"suite": "conv2d", "operation": "conv2d_forward", "case": layer.name, "device": "cpu", "dtype": "float32"}
    head |= {"calls": 1, "disturbed": [], "flops": s.flops(), "bytes": s.bytes()}
    milliseconds = 1e-6 * s.bytes() / (0.8 * 50)  # 0.8 of the copy rate
    rows = [
        {**head, "contender": name, "milliseconds": [ms]}
        for name, ms in (("native", milliseconds), ("PyTorch nhwc", 9))
    ]
    rows.append({**head, "contender": MULTIPLY_ADDS, "milliseconds": [1.0], "flops": 10**9})
    peak = {"suite": "peaks", "dtype": "float32", "gflops": 1000.0, "gbps": 50.0, "how": "given"}
    (table,) = requirements.requirements_table([peak, *rows])
    line = "| 1x1 forward, the others | each >= 70% of the lower roof, multiply-adds or copies |"
    assert f"{line} 80% of the copy rate, 27% of the multiply-add peak (eff 1x1 16>96 @112) | yes |" in table
    (table,) = requirements.requirements_table(rows)
    assert f"{line} 27% of the multiply-add peak (eff 1x1 16>96 @112) | **no** |" in table
    cases = by_case(rows)["conv2d", "conv2d_forward", "cpu", "float32"]
    assert markdown.share(cases[layer.name], Peaks(1000.0, 50.0, "given")) == "80% of copies"
    assert markdown.share(cases[layer.name], None) == "27%"


def test_requirements_are_read_off_the_rows() -> None:
    head = {"suite": "conv2d", "device": "cpu", "dtype": "float32", "calls": 1, "disturbed": [], "flops": 4 * 10**9}
    layer = next(one for one in CONV2D if one.name == "r50 3x3 64>64 @56")
    times = {"native": 1.0, "native implicit_gemm": 2.0, "PyTorch nhwc": 3.0, "PyTorch nchw": 9.0, MULTIPLY_ADDS: 2.0}
    rows = [
        {**head, "operation": "conv2d_forward", "case": layer.name, "contender": name, "milliseconds": [ms], "bytes": 1}
        for name, ms in times.items()
    ]
    rows[-1]["flops"] = 10**9
    ratios = {"rms_ratio": 2.5, "largest_ratio": 1.5, "rms_ratio_to_torch": 0.5}
    rows.append({**head, "operation": "conv2d_forward", "case": layer.name, **ratios})
    (table,) = requirements.requirements_table(rows)
    assert "all layers and passes | mean >= 1.5x, each >= 0.9x | 3.00x of 1; slowest 3.00x" in table
    assert "first-layer dgrad | mean >= 1.2x | 1.50x of 1" in table  # our other algorithm
    assert "| 3x3 forward without Winograd | each >= 80% of the multiply-add peak | 400% (r50 3x3 64>64 @56) |" in table
    replaced = "<= 2x those of implicit_gemm, which it replaces"
    assert f"rms error | {replaced} | 2.50x (forward r50 3x3 64>64 @56) | **no** |" in table
    assert f"largest error | {replaced} | 1.50x (forward r50 3x3 64>64 @56) | yes |" in table
    assert "rms error | <= 2x those of PyTorch channels_last | 0.50x" in table
    assert "largest error | <= 2x those of PyTorch channels_last |  | not measured |" in table
    assert "| sgd | each >= 1x PyTorch |  | not measured |" in table
    assert requirements.requirements_table([]) == []
