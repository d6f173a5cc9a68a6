"""Clusters: blocks that run together, their barrier, each other's shared memory and multicast; planted bugs by name."""

from __future__ import annotations

import numpy as np
import pytest

from cnnengine.errors import KernelError

from .conftest import Choose
from .machine import Machine, array, line_of
from .test_bugs import RACE, is_named
from .test_im2col import column

FILE = "clusters.cuh"
EXCHANGED = 32 * 4 + 16  # bytes of the struct Exchanged, and so on
SIGNALLED = 8 * 32 * 4 + 16
TILE = 8 * 1024 + 1024


@pytest.mark.parametrize(("grid", "cluster"), [((6, 1, 1), (3, 1, 1)), ((4, 4, 2), (2, 1, 2)), ((2, 6, 1), (1, 2, 1))])
def test_ranks(emulate: Choose, grid: tuple[int, int, int], cluster: tuple[int, int, int]) -> None:
    """x first, then y, then z, within the cluster."""
    y = array(np.zeros((*grid[::-1], 2)), np.int32)
    emulate(FILE).launch("ranks", grid, 33, y, cluster=cluster)
    k, j, i = np.indices(grid[::-1])
    ranks = i % cluster[0] + cluster[0] * (j % cluster[1] + cluster[1] * (k % cluster[2]))
    np.testing.assert_array_equal(y[..., 0], ranks)
    np.testing.assert_array_equal(y[..., 1], np.prod(cluster))


def test_a_launch_without_clusters(emulate: Choose) -> None:
    y = array(np.full((5, 2), -1), np.int32)
    emulate(FILE).launch("ranks", 5, 33, y)
    np.testing.assert_array_equal(y, [[0, 1]] * 5)


@pytest.mark.parametrize(
    ("grid", "cluster", "message"),
    [
        ((18, 1, 1), (9, 1, 1), r"a cluster of \(9, 1, 1\) blocks: 1 to 8 are expected"),
        ((5, 2, 1), (2, 1, 1), r"a grid of \(5, 2, 1\) blocks is no multiple of the cluster's \(2, 1, 1\)"),
        ((4, 2, 1), (1, 1, 2), r"a grid of \(4, 2, 1\) blocks is no multiple of the cluster's \(1, 1, 2\)"),
    ],
)
def test_bad_launches(plain: Choose, grid: tuple[int, int, int], cluster: tuple[int, int, int], message: str) -> None:
    with pytest.raises(KernelError, match="ranks: bad launch: " + message):
        plain(FILE).launch("ranks", grid, 32, array(np.zeros(99), np.int32), cluster=cluster)


def exchanged(chosen: Machine, bug: int, cluster: int = 2) -> np.ndarray:
    y = array(np.full((2 * cluster, 32), -1), np.int32)
    chosen.launch(f"exchanged<{bug}>", 2 * cluster, 32, y, shared=EXCHANGED, cluster=cluster)
    return y


@pytest.mark.parametrize("cluster", [1, 2, 3, 8])
def test_shared_memory_of_the_next_block(emulate: Choose, cluster: int) -> None:
    ranks = np.arange(2 * cluster) % cluster
    expected = 1000 * ((ranks + 1) % cluster)[:, None] + np.arange(32)
    np.testing.assert_array_equal(exchanged(emulate(FILE), 0, cluster), expected)


def exchanged_report(chosen: Machine, bug: int) -> str:
    with pytest.raises(KernelError) as raised:
        exchanged(chosen, bug)
    return str(raised.value)


def test_missing_cluster_barrier(checked: Choose) -> None:
    report = exchanged_report(checked(FILE), 1)
    is_named(report, RACE, "exchanged-read", file=FILE)
    assert line_of(FILE, "exchanged-write") in report
    assert "the read of shared memory of block" in report


def test_block_that_ends_while_others_read_its_memory(checked: Choose) -> None:
    report = exchanged_report(checked(FILE), 2)
    is_named(report, "cluster misuse", "exchanged-read", file=FILE)
    assert "a read reaches the shared memory of block" in report
    assert "whose threads have all returned" in report


def test_read_past_the_end_of_another_blocks_memory(checked: Choose) -> None:
    report = exchanged_report(checked(FILE), 7)
    is_named(report, "out of bounds", "exchanged-read", file=FILE)
    assert "past the end of shared memory (144 bytes)" in report


@pytest.mark.parametrize(
    ("bug", "mark", "detail"),
    [
        (3, "exchanged-peer", "block 2 of a cluster of 2"),
        (4, "wait-first", "barrier.cluster.wait of a thread that has not arrived at the cluster's barrier"),
        (5, "exchanged-arrive", "arrives at the cluster's barrier again without barrier.cluster.wait"),
    ],
)
def test_cluster_misuse(emulate: Choose, bug: int, mark: str, detail: str) -> None:
    report = exchanged_report(emulate(FILE), bug)
    is_named(report, "cluster misuse", mark, file=FILE)
    assert detail in report


def test_deadlock_names_the_blocks(emulate: Choose) -> None:
    report = exchanged_report(emulate(FILE), 6)
    assert "deadlock" in report
    wait = f"waiting for barrier.cluster.wait at {line_of(FILE, 'exchanged-wait')}"
    for cluster in (0, 2):  # whichever came first
        if f"block ({cluster}, 0, 0), threads 0-31: {wait}" in report:
            assert f"block ({cluster + 1}, 0, 0), threads 0-4, 6-31: {wait}" in report
            assert f"block ({cluster + 1}, 0, 0), threads 5: waiting for parity 0 of an mbarrier" in report
            return
    raise AssertionError(report)


def test_threads_that_returned_are_not_waited_for(emulate: Choose) -> None:
    y = array(np.zeros((4, 32)), np.int32)
    emulate(FILE).launch("returned_early", 4, 32, y, cluster=4)
    np.testing.assert_array_equal(y, [[1, 0] * 16] * 4)


def signalled(chosen: Machine, bug: int, cluster: int = 3) -> np.ndarray:
    y = array(np.full((cluster, 32), -1), np.int32)
    chosen.launch(f"signalled<{bug}>", cluster, 32, y, shared=SIGNALLED, cluster=cluster)
    return y


def signalled_report(chosen: Machine, bug: int) -> str:
    with pytest.raises(KernelError) as raised:
        signalled(chosen, bug)
    return str(raised.value)


@pytest.mark.parametrize("cluster", [1, 3, 8])
def test_remote_arrivals(emulate: Choose, cluster: int) -> None:
    expected = 100 * np.arange(cluster)[:, None] + np.arange(32)
    np.testing.assert_array_equal(signalled(emulate(FILE), 0, cluster), expected)


def test_arrival_before_the_initialisation(checked: Choose) -> None:
    """Where the barrier happens to be initialised in time, the checker sees that nothing says so."""
    report = signalled_report(checked(FILE), 1)
    is_named(report, RACE, "signalled-arrive", file=FILE)
    assert line_of(FILE, "signalled-init") in report


def test_missing_wait_for_remote_arrivals(checked: Choose) -> None:
    report = signalled_report(checked(FILE), 2)
    assert report.startswith(f"signalled<2>: {RACE}") or "uninitialised shared memory" in report, report
    assert line_of(FILE, "signalled-read") in report


@pytest.mark.parametrize(
    ("bug", "kind", "detail"),
    [
        (3, "cluster misuse", "block 3 of a cluster of 3"),
        (4, "cluster misuse", "a remote mbarrier.arrive reaches the shared memory of block (0, 0, 0), whose threads"),
    ],
)
def test_arrivals_at_the_wrong_block(emulate: Choose, bug: int, kind: str, detail: str) -> None:
    report = signalled_report(emulate(FILE), bug)
    is_named(report, kind, "signalled-arrive", file=FILE)
    assert detail in report


def parts(chosen: Machine, blocks: int, bug: int, steps: int = 5) -> tuple[np.ndarray, np.ndarray]:
    x = array(np.arange(steps * blocks * 8 * 32), np.float32).reshape(-1, 32)
    y = array(np.full((2 * blocks, *x.shape), -1), np.float32)
    held, shared = chosen.tensor_map(x, (8, 32)), 2 * blocks * 1024 + 128
    kernel = f"parts<{blocks}, {bug}>"
    chosen.launch(kernel, 2 * blocks, 64, held, y, np.int32(steps), shared=shared, also=(x,), cluster=blocks)
    return y, np.broadcast_to(x, y.shape)


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_parts(emulate: Choose, blocks: int) -> None:
    np.testing.assert_array_equal(*parts(emulate(FILE), blocks, 0))


def parts_report(chosen: Machine, bug: int) -> str:
    with pytest.raises(KernelError) as raised:
        parts(chosen, 2, bug)
    return str(raised.value)


def test_multicast_without_a_wait_for_empty_stages(emulate: Choose) -> None:
    report = parts_report(emulate(FILE), 1)
    is_named(report, "mbarrier misuse", "parts-expect", file=FILE)
    assert "one arrival too many" in report


def test_multicast_that_waits_for_its_own_block_only(checked: Choose) -> None:
    report = parts_report(checked(FILE), 2)
    kinds = (RACE, "missing wait for a bulk tensor copy")
    assert report.startswith(tuple(f"parts<2, 2>: {kind} at {line_of(FILE, 'parts-load')}" for kind in kinds)), report
    assert "shared memory of block" in report


def test_block_that_expects_no_bytes(emulate: Choose) -> None:
    report = parts_report(emulate(FILE), 3)
    assert "deadlock" in report
    assert line_of(FILE, "parts-wait") in report
    assert "1 of 1 arrivals and -2048 bytes missing" in report


def test_multicast_to_blocks_that_are_not_there(emulate: Choose) -> None:
    report = parts_report(emulate(FILE), 4)
    is_named(report, "cluster misuse", "parts-load", file=FILE)
    assert "multicast to the blocks of mask 0x8 in a cluster of 2" in report


def test_block_that_ends_while_others_signal_it(emulate: Choose) -> None:
    report = parts_report(emulate(FILE), 5)
    is_named(report, "cluster misuse", "parts-arrive", file=FILE)


X = np.arange(2 * 6 * 5 * 32).reshape(2, 6, 5, 32)


@pytest.mark.parametrize("mask", [0b1, 0b11, 0b100, 0b111])
@pytest.mark.parametrize("rank", [0, 3, 4])
def test_multicasts(emulate: Choose, rank: int, mask: int) -> None:
    x = array(X if rank != 3 else X[0], np.float16)
    chosen = emulate(FILE)
    if rank == 0:
        held = chosen.im2col_map(x, (-1, -1), (-1, -1), 32, 20)
        tile = column(x, (0, 1, -1), (0, 2), ((-1, -1), (-1, -1)), (1, 1), 20)
    else:
        held = chosen.tensor_map(x, (3, 2, 8) if rank == 3 else (2, 3, 2, 8))
        tile = x[2:5, 1:3, :8] if rank == 3 else x[:, 2:5, 1:3, :8]
    y = array(np.full((3, tile.nbytes), 7), np.uint8)
    kernel = f"multicast<{rank}, 0>"
    numbers = (np.int32(tile.nbytes), np.int32(mask))
    chosen.launch(kernel, 3, 32, held, y, *numbers, shared=TILE, also=(x,), cluster=3)
    for block in range(3):
        expected = np.ascontiguousarray(tile).view(np.uint8).reshape(-1) if mask >> block & 1 else 7
        np.testing.assert_array_equal(y[block], expected)


def multicast_report(chosen: Machine, bug: int) -> str:
    x = array(X[0], np.float16)
    y = array(np.zeros((2, 96)), np.uint8)
    held, numbers = chosen.tensor_map(x, (3, 2, 8)), (np.int32(96), np.int32(3))
    return chosen.report(f"multicast<3, {bug}>", 2, 32, held, y, *numbers, shared=TILE, also=(x,), cluster=2)


def test_multicast_to_a_barrier_that_may_not_be_initialised(checked: Choose) -> None:
    report = multicast_report(checked(FILE), 1)
    is_named(report, RACE, "multicast", file=FILE)
    assert "the read of shared memory of block (1, 0, 0)" in report


def test_block_that_ends_while_a_multicast_is_on_its_way(emulate: Choose) -> None:
    report = multicast_report(emulate(FILE), 2)
    is_named(report, "missing wait for a bulk tensor copy", "multicast", file=FILE)
    assert "block (1, 0, 0)" in report
    assert "the last thread of the block returned with a bulk tensor load in flight" in report
