"""Planted bugs: each is reported by name, with its source line, block and thread, in every schedule."""

from __future__ import annotations

import re

import numpy as np
import pytest

from .conftest import Choose
from .machine import Machine, array, line_of, machine

FILE = "threads.cuh"
VALUES = 64 * 4


def is_named(report: str, kind: str, *marks: str, file: str = FILE) -> None:
    """The report begins with the bug's kind and place, which is one of the marked lines; it names block and thread."""
    found = re.fullmatch(r"(.+?): (.+?) at (\S+), block (\(\d+, \d+, \d+\)), thread (\(\d+, \d+, \d+\)): (.+)", report)
    assert found, report
    assert found[2] == kind, report
    assert found[3] in [line_of(file, mark) for mark in marks], report


def reversed_(chosen: Machine, bug: int) -> str:
    x, y = array(np.arange(64), np.float32), array(np.zeros(64), np.float32)
    return chosen.report(f"reversed<{bug}>", 1, 64, x, y, shared=VALUES)


RACE = "data race (missing barrier)"


def test_missing_barrier(checked: Choose) -> None:
    report = reversed_(checked(FILE), 1)
    assert RACE in report
    assert line_of(FILE, "missing-barrier") in report


@pytest.mark.parametrize(
    ("bug", "kind", "mark", "detail"),
    [
        (5, "out of bounds", "shared-past-end", "read of 4 bytes, 0 bytes past the end of shared memory (256 bytes)"),
        (6, "out of bounds", "shared-index", "index 64 of an array of type 'float"),
        (7, "out of bounds", "global-write", "write of 4 bytes, 0 bytes past the end of argument 1 (256 bytes)"),
        (8, "out of bounds", "global-read", "read of 4 bytes, 4 bytes before the start of argument 0 (256 bytes)"),
        (9, "misaligned access", "misaligned", "4 more than a multiple of 8"),
    ],
)
def test_bad_accesses(checked: Choose, bug: int, kind: str, mark: str, detail: str) -> None:
    report = reversed_(checked(FILE), bug)
    is_named(report, kind, mark)
    assert detail in report


def test_barrier_that_some_threads_never_reach(emulate: Choose) -> None:
    report = reversed_(emulate(FILE), 2)
    is_named(report, "divergent barrier", "divergent-exited")
    assert "of 64 threads are at __syncthreads" in report
    assert "has returned from the kernel" in report


def test_barriers_on_different_lines(emulate: Choose) -> None:
    report = reversed_(emulate(FILE), 3)
    assert "divergent barrier" in report
    assert line_of(FILE, "divergent-first") in report
    assert line_of(FILE, "divergent-second") in report


def test_syncwarp_does_not_order_warps(checked: Choose) -> None:
    report = reversed_(checked(FILE), 4)
    assert line_of(FILE, "syncwarp-across-warps") in report
    assert RACE in report


def test_uninitialised_shared_memory(checked: Choose) -> None:
    x, y = array(np.zeros(64), np.float32), array(np.zeros(1), np.float32)
    is_named(
        checked(FILE).report("row_sum<1>", 1, 32, x, y, shared=VALUES), "uninitialised shared memory", "uninitialised"
    )


def test_uninitialised_shared_memory_is_nan(plain: Choose) -> None:
    x, y = array(np.zeros(64), np.float32), array(np.zeros(1), np.float32)
    plain(FILE).launch("row_sum<1>", 1, 32, x, y, shared=VALUES)
    assert np.isnan(y[0])


def test_missing_syncwarp(checked: Choose) -> None:
    x, y = array(np.arange(64), np.float32), array(np.zeros(64), np.float32)
    report = checked(FILE).report("rotated<1>", 1, 64, x, y, np.int32(3), shared=VALUES)
    assert RACE in report
    assert line_of(FILE, "missing-syncwarp") in report


def test_write_past_shared_memory_without_the_checker(plain: Choose) -> None:
    report = reversed_(plain(FILE), 6)
    assert "out of bounds" in report
    assert "shared memory" in report


def test_mask_without_the_caller(emulate: Choose) -> None:
    report = emulate(FILE).report("warp_masks<1>", 1, 64, array(np.zeros(64), np.int32))
    is_named(report, "wrong warp mask", "mask-without-caller")


def test_trap(emulate: Choose) -> None:
    report = emulate(FILE).report("warp_masks<5>", 1, 64, array(np.zeros(64), np.int32))
    is_named(report, "trap", "trap")
    assert "thread (7, 0, 0)" in report


def test_lanes_at_different_collectives(emulate: Choose) -> None:
    report = emulate(FILE).report("warp_masks<2>", 1, 64, array(np.zeros(64), np.int32))
    assert "divergent barrier" in report
    assert line_of(FILE, "divergent-warp-first") in report
    assert line_of(FILE, "divergent-warp-second") in report


def test_deadlock_names_who_waits_where(emulate: Choose) -> None:
    report = emulate(FILE).report("warp_masks<4>", 1, 64, array(np.zeros(64), np.int32))
    assert "deadlock" in report
    assert f"threads 3, 35: waiting for __syncthreads at {line_of(FILE, 'deadlock-block')}" in report
    assert f"waiting for __syncwarp at {line_of(FILE, 'deadlock-warp')}" in report
    assert "threads 0-2, 4-34, 36-63" in report


def piped(chosen: Machine, bug: int) -> str:
    x, y = array(np.arange(7 * 32), np.float32), array(np.zeros(7 * 32), np.float32)
    return chosen.report(f"piped<{bug}>", 1, 64, x, y, np.int32(7), shared=256)


def test_missing_empty_barrier(checked: Choose) -> None:
    """The producer runs ahead: its second arrival completes the consumer's barrier, or it overwrites what is read."""
    report = piped(checked(FILE), 1)
    assert RACE in report or "deadlock" in report
    assert FILE in report


def test_named_barrier_with_two_counts(emulate: Choose) -> None:
    report = piped(emulate(FILE), 2)
    assert "named barrier misuse" in report or "deadlock" in report
    assert FILE in report


def test_missing_atomic(checked: Choose) -> None:
    x, bins = array(np.zeros(256), np.int32), array(np.zeros(1), np.int32)
    report = checked(FILE).report("histogram<1>", 2, 64, x, bins, np.int32(256))
    is_named(report, RACE, "missing-atomic")
    assert "argument 1, byte 0" in report


def test_missing_atomic_between_blocks(checked: Choose) -> None:
    x, bins = array(np.zeros(4), np.int32), array(np.zeros(1), np.int32)
    report = checked(FILE).report("histogram<1>", 4, 1, x, bins, np.int32(4))
    is_named(report, RACE, "missing-atomic")
    assert "of block (0, 0, 0)" in report


def test_missing_threadfence(checked: Choose) -> None:
    x, partial = array(np.ones(32 * 3), np.float32), array(np.zeros(3), np.float32)
    ticket, y = array(np.zeros(1), np.uint32), array(np.zeros(1), np.float32)
    report = checked(FILE).report("last_block_sum<1>", 3, 32, x, partial, ticket, y, shared=VALUES)
    is_named(report, RACE, "missing-threadfence")


@pytest.mark.parametrize("cores", [1, 2])
def test_polling_in_vain(cores: int) -> None:
    """Only time tells it from polling for a block on another core."""
    chosen = machine(FILE)
    chosen.module.configure(0, cores)
    flags, y = array(np.zeros(4), np.uint32), array(np.zeros(1), np.float32)
    is_named(chosen.report("chained<1>", 4, 32, flags, y), "deadlock", "polled-in-vain")


@pytest.mark.parametrize(
    ("bug", "kind", "mark", "detail"),
    [
        (1, "undefined behaviour", "overflow", "a signed multiplication overflows"),
        (2, "undefined behaviour", "division", "an integer division by zero"),
        (3, "out of bounds", "local-index", "index 4 of an array of type 'float"),
    ],
)
def test_arithmetic(checked: Choose, bug: int, kind: str, mark: str, detail: str) -> None:
    x, y = array([1 << 20, 1 << 20, 0, 4], np.int32), array(np.zeros(1), np.int64)
    report = checked(FILE).report(f"arithmetic<{bug}>", 1, 1, x, y)
    is_named(report, kind, mark)
    assert detail in report


def test_wide_products_are_not_reported(checked: Choose) -> None:
    x, y = array([1 << 20, 1 << 20, 0, 4], np.int32), array(np.zeros(1), np.int64)
    checked(FILE).launch("arithmetic<0>", 1, 1, x, y)
    assert y[0] == 1 << 40


def test_the_first_failing_block_is_reported(emulate: Choose) -> None:
    x, y = array(np.arange(64), np.float32), array(np.zeros(64), np.float32)
    report = emulate(FILE).report("reversed<2>", (2, 3), 64, x, y, shared=VALUES)
    assert "block (0, 0, 0)" in report or "block (1, 0, 0)" in report
