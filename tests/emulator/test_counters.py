"""What the counters say of kernels whose cost can be reckoned by hand, in every schedule: exact numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnengine.errors import BackendUnavailable
from cnnengine.jit import host
from cnnengine.jit.counters import Accesses, Branches, Counters, Counts, Products, Requests

from .conftest import NO_COMPILER
from .machine import Machine, array, line_of, machine

FILE = "counters.cuh"
SHARED = (32 * 33 + 32) * 4  # bytes of the struct Floats
NO_GCC = NO_COMPILER is None and not host.can_count(host.compiler())

pytestmark = pytest.mark.skipif(NO_GCC, reason="the counters need g++")
Count = Callable[..., Counters]


@pytest.fixture
def count(schedule: int) -> Count:
    """Launches a kernel of the file; what it cost."""

    def launch(kernel: str, *arguments: Any, threads: int = 32, file: str = FILE, **options: Any) -> Counters:
        chosen = counting(file)
        chosen.module.configure(schedule, 2)
        chosen.launch(kernel, 1, threads, *arguments, **options)
        return chosen.module.take_counters()

    return launch


def counting(file: str) -> Machine:
    return machine(file, count=True)


def at(counters: Counters, mark: str, file: str = FILE) -> Counts:
    return counters.lines[line_of(file, mark)]


def floats(n: int = 4096) -> np.ndarray:
    return array(np.arange(n), np.float32)


# ---- global memory: 32 lanes, sectors of 32 bytes


@pytest.mark.parametrize(
    ("first", "step", "sectors", "ideal"),
    [
        (0, 1, 4, 4),  # 128 bytes side by side
        (1, 1, 5, 4),  # bytes 4 to 132
        (8, 1, 4, 4),  # bytes 32 to 160
        (0, 2, 8, 4),  # half of 256 bytes
        (0, 32, 32, 4),  # each lane its own
        (0, 0, 1, 1),  # all the same four bytes
        (31, -1, 4, 4),  # in descending order
    ],
)
def test_sectors_of_floats(count: Count, first: int, step: int, sectors: int, ideal: int) -> None:
    counters = count("strided", floats(), floats(), np.int32(first), np.int32(step))
    load = at(counters, "strided-load").global_load
    assert (load.requests, load.partial, load.lanes, load.nbytes) == (1, 0, 32, 128)
    assert (load.sectors, load.ideal_sectors, load.sizes) == (sectors, ideal, {4: 1})
    assert (load.sectors_per_request, load.efficiency) == (sectors, ideal / sectors)
    assert at(counters, "strided-store").global_store.sectors == 4
    assert counters.total.global_sectors == sectors + 4
    assert set(counters.lines) == {line_of(FILE, "strided-load"), line_of(FILE, "strided-store")}


@pytest.mark.parametrize(("offset", "sectors"), [(0, 16), (4, 17)])
def test_vectors_are_one_access(count: Count, offset: int, sectors: int) -> None:
    """Read and written whole; 4 floats, 16 bytes, further on they end in one sector more."""
    counters = count("vectors", floats()[offset:], floats())
    load, store = at(counters, "float4-load").global_load, at(counters, "float4-store").global_store
    assert (load.requests, load.sectors, load.ideal_sectors, load.sizes) == (1, sectors, 16, {16: 1})
    assert (store.requests, store.sectors, store.nbytes) == (1, 16, 512)


@pytest.mark.parametrize(("element", "nbytes"), [("float", 4), ("__half", 2), ("__nv_bfloat16", 2)])
def test_elements_are_one_access(count: Count, element: str, nbytes: int) -> None:
    """A 16-bit element is a class: what its functions return is seen being stored."""
    line = at(count(f"typed<{element}>", floats(), floats()), "typed")
    for one in (line.global_load, line.global_store):
        assert (one.requests, one.sectors, one.sizes) == (1, nbytes, {nbytes: 1})


# ---- shared memory: 32 banks of 4 bytes


@pytest.mark.parametrize(
    ("step", "wavefronts"),
    [(1, 1), (0, 1), (2, 2), (3, 1), (4, 4), (8, 8), (16, 16), (32, 32), (33, 1)],
)
def test_conflicts_of_words(count: Count, step: int, wavefronts: int) -> None:
    counters = count("shared_words", floats(), np.int32(step), shared=SHARED)
    store, load = at(counters, "shared-store").shared_store, at(counters, "shared-load").shared_load
    for one in (store, load):
        assert (one.requests, one.lanes, one.nbytes) == (1, 32, 128)
        assert (one.wavefronts, one.least_wavefronts, one.conflicts) == (wavefronts, 1, wavefronts - 1)
    assert counters.total.conflicts == 2 * (wavefronts - 1)
    assert counters.total.wavefronts == 2 * wavefronts


@pytest.mark.parametrize(("width", "conflicts"), [(32, 31), (33, 0)])
def test_padding_removes_conflicts(count: Count, width: int, conflicts: int) -> None:
    counters = count("columns", floats(), floats(), np.int32(width), shared=SHARED)
    assert at(counters, "rows").shared_store.conflicts == 0
    columns = at(counters, "columns").shared_load
    assert (columns.requests, columns.conflicts) == (32, 32 * conflicts)
    assert at(counters, "block-barrier").block_barrier == Requests(1, 0, 32)


@pytest.mark.parametrize(
    ("vector", "step", "wavefronts", "least"),
    [
        ("float2", 1, 2, 2),  # a half of the warp reads 128 bytes
        ("float2", 0, 2, 2),
        ("float2", 2, 4, 2),  # words 0, 1, 4, 5, ... 61: every second pair of banks, twice
        ("float2", 16, 32, 2),  # 16 lanes in two banks
        ("float4", 1, 4, 4),  # a quarter reads 128 bytes
        ("float4", 2, 8, 4),
        ("float4", 8, 32, 4),  # 8 lanes in four banks
    ],
)
def test_conflicts_of_vectors(count: Count, vector: str, step: int, wavefronts: int, least: int) -> None:
    counters = count(f"shared_vectors<{vector}>", floats(), np.int32(step), shared=SHARED)
    load = at(counters, "shared-vector").shared_load
    assert (load.requests, load.wavefronts, load.least_wavefronts) == (1, wavefronts, least)


@pytest.mark.parametrize(
    ("width", "swizzled", "wavefronts"),
    [
        (128, 0, 32),  # the eight rows of a matrix lie in the same four banks
        (128, 1, 4),
        (144, 0, 4),  # padded by 16 bytes
        (64, 0, 16),  # rows 0, 2, 4, 6 in the same banks
    ],
)
def test_ldmatrix_and_stmatrix(count: Count, width: int, swizzled: int, wavefronts: int) -> None:
    counters = count("matrices", floats(), np.int32(width), np.int32(swizzled), shared=SHARED)
    for one in (at(counters, "ldmatrix").ldmatrix, at(counters, "stmatrix").stmatrix):
        assert (one.requests, one.lanes, one.nbytes) == (1, 32, 512)
        assert (one.wavefronts, one.least_wavefronts) == (wavefronts, 4)


# ---- copies and products


@pytest.mark.parametrize(
    ("copied", "width", "sectors", "wavefronts"), [(32, 16, 16, 4), (20, 16, 10, 4), (32, 32, 16, 8)]
)
def test_copies(count: Count, copied: int, width: int, sectors: int, wavefronts: int) -> None:
    counters = count("copies", floats(), floats(), np.int32(copied), np.int32(width), shared=SHARED)
    read, written = at(counters, "cp.async").global_copy, at(counters, "cp.async").shared_copy
    assert (read.requests, read.partial, read.lanes, read.sectors) == (1, int(copied < 32), copied, sectors)
    assert (written.requests, written.lanes, written.nbytes) == (1, 32, 512)
    assert (written.wavefronts, written.least_wavefronts) == (wavefronts, 4)


def test_mma(count: Count) -> None:
    assert at(count("product", floats()), "mma").mma == Products(1, 0, 32, multiply_adds=16 * 8 * 16)


def test_bulk_copies_and_wgmma(count: Count) -> None:
    """Five steps of 64: two boxes of 64 x 64 halves and four products of four warps each."""
    file, steps = "asynchronous.cuh", 5
    a, b = (array(np.ones((64, 64 * steps)), np.float16) for _ in range(2))
    maps = [counting(file).tensor_map(v, (64, 64), swizzle=3) for v in (a, b)]
    shared = 4 * 64 * 64 * 2 + 1024
    counters = count("ring<0>", *maps, floats(), np.int32(steps), threads=160, shared=shared, file=file)
    total = counters.total
    assert total.bulk_load == Accesses(2 * steps, 2 * steps, 2 * steps, 2 * steps * 8192, Counter({8192: 2 * steps}))
    assert total.wgmma == Products(16 * steps, 0, 16 * 32 * steps, multiply_adds=64 * 64 * 64 * steps)
    assert at(counters, "full-wait", file).mbarrier_wait == Requests(4 * steps, 0, 128 * steps)
    assert total.mbarrier_wait.requests == 4 * steps + steps - 2, "the first two stages are empty"


def test_bulk_stores(count: Count) -> None:
    file, tensor = "asynchronous.cuh", array(np.zeros((10, 40)), np.float32)
    encoded = counting(file).tensor_map(tensor, (8, 32))
    counters = count("stored<0>", encoded, np.int32(0), np.int32(0), shared=17 * 1024, file=file)
    assert at(counters, "store", file).bulk_store == Accesses(1, 1, 1, 1024, Counter({1024: 1}))


# ---- what is matched


def test_lanes_that_do_not_take_part(count: Count) -> None:
    counters = count("diverging", floats(), floats(), np.int32(20))
    branch = at(counters, "branch").global_load
    assert (branch.requests, branch.partial, branch.lanes, branch.sectors) == (1, 1, 20, 3)
    trips = at(counters, "trips").global_load  # 32 lanes once, 24 twice, 16 three times, 8 four times
    assert (trips.requests, trips.partial, trips.lanes) == (4, 3, 32 + 24 + 16 + 8)
    assert trips.sectors == 4 + 5 + 5 + 5  # elements 0 to 31, 2 to 32, 4 to 33, 6 to 34
    for mark in ("together", "result"):
        line = at(counters, mark)
        both = (line.global_load, line.global_store)
        assert sum(one.requests for one in both) == 1
        assert sum(one.partial for one in both) == 0


def test_a_warp_that_is_not_whole(count: Count) -> None:
    """40 threads: 8 lanes are all that the second warp has."""
    load = at(count("strided", floats(), floats(), np.int32(0), np.int32(1), threads=40), "strided-load").global_load
    assert (load.requests, load.partial, load.lanes, load.sectors) == (2, 0, 40, 5)


def test_barriers(count: Count) -> None:
    """Of two warps, three rounds; an atomic's lanes go to one place."""
    counters = count("barriers", array([0], np.int32), floats(), threads=64)
    assert at(counters, "every-block").block_barrier == Requests(6, 0, 192)
    assert at(counters, "every-exchange").warp_exchange == Requests(6, 0, 192)
    assert at(counters, "every-named").named_barrier == Requests(6, 0, 192)
    atomic = at(counters, "every-atomic").global_atomic
    assert (atomic.requests, atomic.lanes, atomic.sectors) == (2, 64, 2)
    syncwarp = at(count("shared_words", floats(), np.int32(1), shared=SHARED), "warp-barrier").warp_barrier
    assert syncwarp == Requests(1, 0, 32)


@pytest.mark.parametrize("warps", [1, 2])
def test_divergent_branches(count: Count, warps: int) -> None:
    """A loop of 1 to 4 trips is left by a quarter of the lanes after each of the first three; the last quarter leaves
    it as one. A nested loop begins anew in each of three rounds."""
    rounds = 3
    counters = count("branches", floats(), np.int32(20), np.int32(rounds), threads=32 * warps)
    divergent = {
        "by-lane": 1, "by-trips": 3, "nested": rounds, "one-of-two": rounds, "leaves": 1,
    }  # fmt: skip
    for mark, times in divergent.items():
        assert at(counters, mark).branch.divergent == warps * times, mark
    assert at(counters, "by-lane").branch == Branches(warps, 0, 32 * warps, divergent=warps)
    assert at(counters, "by-trips").branch.lanes == warps * (32 + 32 + 24 + 16 + 8)
    assert at(counters, "by-trips").branch.partial == warps * 3
    assert at(counters, "all-alike").branch == Branches(warps * (rounds + 1), 0, 32 * warps * (rounds + 1))
    assert at(counters, "by-warp").branch == (Branches(2, 0, 64) if warps == 2 else Branches()), "seen going one way"
    assert counters.total.branch.divergent == warps * sum(divergent.values())


def test_structs_that_are_no_vector(count: Count) -> None:
    """12 bytes are read as three words, 12 bytes apart: each touches all 12 sectors of the 384 bytes."""
    load = at(count("triples", floats(), floats()), "float3-load").global_load
    assert (load.requests, load.sizes, load.nbytes, load.sectors) == (3, {4: 3}, 384, 36)


def test_counters_add_up(count: Count) -> None:
    one = count("strided", floats(), floats(), np.int32(0), np.int32(2))
    chosen = counting(FILE)
    assert chosen.module.take_counters() == Counters(), "taken: they start again at zero"
    for _ in range(2):
        chosen.launch("strided", 3, 32, floats(), floats(), np.int32(0), np.int32(2))
    six = chosen.module.take_counters()
    assert six == one + one + one + one + one + one
    assert six.file(FILE) == six.total
    assert six.file("other.cuh") == Counts()


def test_the_table(count: Count) -> None:
    table = count("columns", floats(), floats(), np.int32(32), shared=SHARED).table()
    rows = [line.split() for line in table.splitlines()[1:]]
    assert [line_of(FILE, "columns"), "shared_load", "32", "1024", "992"] in rows
    assert [line_of(FILE, "rows"), "global_load", "32", "128", "4.00"] in rows


def test_a_failed_launch_counts_what_was_complete(count: Count) -> None:
    """The block that fails is abandoned with what its lanes were at."""
    chosen = counting(FILE)
    report = chosen.report("shared_words", 1, 32, floats(), np.int32(1), shared=4)
    assert "the kernel's shared memory is" in report
    assert chosen.module.take_counters() == Counters()
    assert at(count("shared_words", floats(), np.int32(1), shared=SHARED), "shared-load").shared_load.requests == 1


def test_what_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="was built without count=True"):
        machine(FILE).module.take_counters()
    wanted = host.KernelSource("cuda/platform.cuh", ())
    with pytest.raises(ValueError, match="a build has the race checker or the counters"):
        host.build(wanted, cache=tmp_path, race=True, count=True)
    monkeypatch.setattr(host, "_version", lambda _: "clang version 18")
    with pytest.raises(BackendUnavailable, match=r"count=True needs g\+\+"):
        host.build(wanted, cache=tmp_path, count=True)
