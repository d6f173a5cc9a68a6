"""An inspection in words and tables, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from ..jit.counters import Counts
from .inspection import Inspection, Kernel
from .measured import Measured
from .roofline import Bound
from .source_text import line_of

NAMES = 6  # of instructions that a line lists
SOURCE = 48  # characters of a source line


def text(found: Inspection) -> str:
    """The whole report."""
    return "\n".join(_lines(found))


def _lines(found: Inspection) -> Iterator[str]:
    p = found.problem
    yield str(p)
    algorithm = f", algorithm {found.algorithm}" if found.algorithm else ""
    yield f"set {found.set}, {found.arch}{algorithm}"
    yield f"{number(p.flops)}FLOP, {number(p.nbytes)}B at least, {p.intensity:.2f} FLOPs a byte"
    if found.bound:
        yield from _bound(found.bound)
    if found.measured:
        yield from _measured(found.measured)
    for index, kernel in enumerate(found.kernels, 1):
        yield ""
        yield from _kernel(index, kernel)
    if found.emulated:
        yield ""
        yield from _counters(found)
    if found.missing:
        yield ""
        yield "missing"
        for what, why in found.missing.items():
            yield f"  {what}: {' '.join(why.split())}"


def number(value: float) -> str:
    """With a decimal prefix: 1.85 G."""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.4g} {prefix}"
    return f"{value:.4g} "


def _bound(b: Bound) -> Iterator[str]:
    rounds = "" if b.rounds is None else f", {_time(b.rounds)} in whole blocks"
    yield (
        f"{b.gpu}: {b.peak:.4g} TFLOP/s, ridge at {b.ridge:.1f} FLOPs a byte; {_time(b.arithmetic)} by"
        f" arithmetic{rounds}, {_time(b.memory)} by memory"
    )
    yield f"bound by {b.bound}: no faster than {_time(b.predicted)}"


def _measured(m: Measured) -> Iterator[str]:
    yield (
        f"measured on {m.device}: {_time(m.milliseconds)} (median of {len(m.samples)}, {_time(m.samples[0])} to"
        f" {_time(m.samples[-1])}), {m.gbps:.4g} GB/s, {m.gflops:.4g} GFLOP/s"
    )
    for kernel, counters in m.ncu.items():
        yield f"  ncu, {kernel}: " + ", ".join(f"{name} {value:.0f}" for name, value in counters.items())
    if m.without_ncu:
        yield f"  no counters: {m.without_ncu}"


def _time(milliseconds: float) -> str:
    return f"{milliseconds:.3g} ms" if milliseconds >= 0.1 else f"{1e3 * milliseconds:.3g} us"


def _kernel(index: int, k: Kernel) -> Iterator[str]:
    yield f"kernel {index}: {k.expression}"
    if k.grid and k.block:
        cluster = f", clusters of {'x'.join(map(str, k.cluster))}" if k.cluster else ""
        yield f"  {k.file}; grid {_size(k.grid)}, block {_size(k.block)}{cluster}"
    else:
        yield f"  instruction set {k.file}"
    if k.registers is not None:
        yield (
            f"  {k.registers} registers, {k.spill_bytes} bytes spilled, {k.static_shared} + {k.dynamic_shared} bytes of"
            " shared memory (static + dynamic)"
        )
    if o := k.occupancy:
        by = ", ".join(f"{name} {count}" for name, count in o.by.items())
        waves = "" if k.waves is None else f"; {k.waves:.2f} waves"
        yield (
            f"  occupancy {o.share:.0%}: {o.blocks} blocks, {o.warps} warps a multiprocessor, limited by"
            f" {' and '.join(o.limiters)} (blocks by {by}){waves}"
        )
    if code := k.code:
        yield f"  {code.instructions} instructions: " + ", ".join(f"{n} {kind}" for kind, n in code.mix.items())
        yield f"  most are {_most(code.names)}"
        if code.loop:
            yield f"  main loop, {sum(code.loop.values())}: {_most(code.loop)}"


def _most(names: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in list(names.items())[:NAMES])


def _size(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size)).removesuffix(" x 1").removesuffix(" x 1")


def _counters(found: Inspection) -> Iterator[str]:
    e = found.emulated
    assert e is not None
    yield f"counted by the emulator, {'on the whole call' if e.whole else 'on a smaller call: ' + e.what}"
    yield f"  ran {', '.join(e.kernels)}" + (f"; {e.differs}" if e.differs else "")
    code = {place: n for k in found.kernels if k.code for place, n in k.code.by_line.items()}
    yield (
        f"  {'line':34}{'global':>9}{'sectors':>9}{'each':>6}{'shared':>9}{'wavefr.':>9}{'confl.':>8}{'branches':>9}"
        f"{'diverg.':>8}{'barriers':>9}{'mma':>7}{'SASS':>6}  source"
    )
    for place, counts in e.counters.lines.items():
        if _only_goes_round(counts):
            continue
        yield f"  {place:34}{_row(counts)}{code.get(place) or '':>6}  {line_of(place)[:SOURCE]}".rstrip()
    total = e.counters.total
    yield f"  {'all':34}{_row(total)}"
    products = total.mma.requests + total.wgmma.requests
    if products:
        adds = total.mma.multiply_adds + total.wgmma.multiply_adds
        yield f"  {products} tensor core instructions, {number(adds)}multiply-adds"
    if moved := total.bulk_load.nbytes + total.bulk_store.nbytes:
        yield f"  {number(moved)}B by TMA"
    yield (
        "  global, shared, branches, barriers: instructions of a warp; each: sectors of 32 bytes a global instruction;"
        " confl.: wavefronts beyond the least; lines with uniform branches alone are left out"
    )


def _only_goes_round(counts: Counts) -> bool:
    """Whether nothing happens on a line but branches that no warp parts at."""
    return counts == Counts(branch=counts.branch) and not counts.branch.divergent


def _row(counts: Counts) -> str:
    reached = (counts.global_load, counts.global_store, counts.global_atomic, counts.global_copy)
    requests, sectors = sum(part.requests for part in reached), counts.global_sectors
    parts = (counts.shared_load, counts.shared_store, counts.shared_copy, counts.ldmatrix, counts.stmatrix)
    shared = sum(part.requests for part in parts)
    barriers = counts.block_barrier.requests + counts.named_barrier.requests + counts.warp_barrier.requests
    each = f"{sectors / requests:.2f}" if requests else ""
    cells = (
        (requests, 9), (sectors, 9), (each, 6), (shared, 9), (counts.wavefronts, 9),
        (counts.conflicts if shared else "", 8), (counts.branch.requests, 9),
        (counts.branch.divergent if counts.branch.requests else "", 8), (barriers, 9),
        (counts.mma.requests + counts.wgmma.requests, 7),
    )  # fmt: skip
    return "".join(f"{cell if cell != 0 or width in (6, 8) else '':>{width}}" for cell, width in cells)
