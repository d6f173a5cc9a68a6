"""The native backend's blocks of memory are reused, never shared while a view lives, bounded, safe in threads and
forks."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import backends

pytest.importorskip("cnnengine._native", reason="the native extension is not built")

BACKEND = backends.get("native")
F32 = np.dtype("float32")
MB = 1 << 20


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    limit = cnn.memory_stats()["limit"]
    gc.collect()
    cnn.empty_cache()
    yield
    cnn.set_memory_limit(limit)
    cnn.empty_cache()


def floats(count: int) -> np.ndarray:
    return BACKEND.empty((count,), F32)


def address(a: np.ndarray) -> int:
    return int(a.__array_interface__["data"][0])


def test_arrays_are_ordinary_and_aligned() -> None:
    for shape in ((), (0,), (3,), (2, 0, 4), (7, 5), (256,), (64, 28, 28, 6), (np.int64(3), 700)):
        a = BACKEND.empty(shape, F32)
        assert type(a) is np.ndarray
        assert (a.shape, a.dtype) == (shape, F32)
        assert a.flags.c_contiguous
        assert a.flags.writeable
        assert a.flags.aligned
        a[...] = 1
        assert a.sum() == prod(shape)
        if a.nbytes >= 1024:
            assert address(a) % 64 == 0
    for dtype in ("uint8", "int32", np.float64, np.dtype(np.uint64)):
        assert BACKEND.empty((1000,), dtype).dtype == np.dtype(dtype)
    assert BACKEND.empty((1000,), object)[0] is None, "arrays of objects are NumPy's"


@pytest.mark.parametrize(
    ("shape", "error"),
    [((-1,), ValueError), ((2**40, 2**40), ValueError), ((2**50,), MemoryError), (5, TypeError), (("a",), TypeError)],
    ids=str,
)
def test_impossible_shapes_raise(shape: tuple[int, ...], error: type[Exception]) -> None:
    before = cnn.memory_stats()["in_use"]
    with pytest.raises(error):
        BACKEND.empty(shape, F32)
    assert cnn.memory_stats()["in_use"] == before


def test_the_block_given_back_last_is_taken_first() -> None:
    a, b = floats(5000), floats(5000)
    first, second = address(a), address(b)
    reuses = cnn.memory_stats()["reuses"]
    del a
    del b
    c, d = floats(5001), floats(5000)
    assert [address(c), address(d)] == [second, first]
    assert cnn.memory_stats()["reuses"] == reuses + 2


def test_a_block_is_used_as_long_as_a_view_lives() -> None:
    a = floats(10_000)
    a.fill(7)
    views = [a[5:9], a.reshape(100, 100).T, memoryview(a), np.from_dlpack(a), np.frombuffer(a, np.uint8)]
    where = address(a)
    del a
    while views:
        other = floats(10_000)
        assert address(other) != where
        other.fill(-1)
        view = views.pop()
        assert np.asarray(view).view(np.ndarray).tobytes()[:4] == np.float32(7).tobytes()
        del view, other
    assert where in {address(x) for x in [floats(10_000), floats(10_000)]}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 40_000)), min_size=1, max_size=60))
def test_living_arrays_never_overlap(steps: list[tuple[int, int]]) -> None:
    """Six names are assigned arrays of random sizes; each keeps its own contents until it is assigned again."""
    held: dict[int, tuple[np.ndarray, int]] = {}
    for stamp, (name, size) in enumerate(steps):
        a = floats(size)
        a.fill(stamp)
        held[name] = (a[: size // 2 + 1], stamp)
        del a
        for view, expected in held.values():
            assert (view == expected).all()
        spans = sorted((address(view), view.nbytes) for view, _ in held.values())
        assert all(a + n <= b for (a, n), (b, _) in pairwise(spans))


@given(st.integers(1024, 1 << 33))
def test_an_eighth_of_a_block_is_unused_at_most(nbytes: int) -> None:
    before = cnn.memory_stats()["in_use"]
    a = BACKEND.empty((nbytes,), np.uint8)  # untouched pages cost nothing
    taken = cnn.memory_stats()["in_use"] - before
    assert a.nbytes == nbytes <= taken <= nbytes + nbytes // 8 + 8


def test_pickles_and_copies_are_independent() -> None:
    a = floats(3000)
    a.fill(3)
    others = [pickle.loads(pickle.dumps(a)), copy.copy(a), copy.deepcopy(a), a.copy(), np.array(a)]
    where = address(a)
    a.fill(4)
    del a
    assert where == address(floats(3000))
    assert all((other == 3).all() for other in others)


def test_a_pooled_array_cannot_be_resized_in_place() -> None:
    a = floats(3000)
    with pytest.raises(ValueError, match="does not own its data"):
        a.resize(9000, refcheck=False)
    assert np.resize(a, 9000).shape == (9000,)


def test_the_limit_is_kept() -> None:
    cnn.set_memory_limit(64 * MB)
    held = [BACKEND.empty((MB,), np.uint8) for _ in range(40)]
    del held
    assert cnn.memory_stats()["cached"] == 40 * MB
    large = BACKEND.empty((48 * MB,), np.uint8)  # 24 of the 40 must go
    assert cnn.memory_stats()["cached"] == 16 * MB
    larger = BACKEND.empty((128 * MB,), np.uint8)  # more than the limit: served, and nothing is cached beside it
    stats = cnn.memory_stats()
    assert (stats["in_use"], stats["cached"]) == (176 * MB, 0)
    del larger
    assert cnn.memory_stats()["cached"] == 0, "larger than the limit: freed at once"
    del large
    assert cnn.memory_stats()["cached"] == 48 * MB
    cnn.set_memory_limit(47 * MB)
    assert cnn.memory_stats()["cached"] == 0
    cnn.set_memory_limit(0)
    held = [floats(MB)]
    del held
    assert cnn.memory_stats()["cached"] == 0
    with pytest.raises(ValueError, match="expected 0 bytes or more, received -1"):
        cnn.set_memory_limit(-1)


def test_what_was_given_back_longest_ago_goes_first() -> None:
    cnn.set_memory_limit(8 * MB)
    old, young = BACKEND.empty((3 * MB,), np.uint8), BACKEND.empty((4 * MB,), np.uint8)
    where = address(young)
    del old
    del young
    del_me = BACKEND.empty((2 * MB,), np.uint8)
    assert cnn.memory_stats()["cached"] == 4 * MB
    assert address(BACKEND.empty((4 * MB,), np.uint8)) == where
    del del_me


def test_empty_cache_gives_memory_back() -> None:
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    a = floats(64 * MB)
    a.fill(1)
    F.conv2d(cnn.Tensor(np.ones((8, 32, 32, 64), np.float32)), cnn.Tensor(np.ones((64, 3, 3, 64), np.float32)))
    stats = cnn.memory_stats()
    assert stats["in_use"] >= 256 * MB
    assert stats["scratch_weights"] > 0
    before = resident()
    del a
    assert resident() > before - 16 * MB, "cached, not freed"
    cnn.empty_cache()
    assert resident() < before - 250 * MB
    stats = cnn.memory_stats()
    assert (stats["cached"], stats["scratch_activations"], stats["scratch_weights"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("text", "expected"), [("0", "0"), ("1000", "1000"), ("3K", "3072"), ("500M", str(500 * MB)), ("2G", str(2 << 30))]
)
def test_environment_sets_the_limit(text: str, expected: str) -> None:
    code = "import cnnengine as cnn; print(cnn.memory_stats()['limit'])"
    environment = {**os.environ, "CNNENGINE_MEMORY_LIMIT": text}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == expected, done.stderr


@pytest.mark.parametrize("text", ["much", "-1", "1T", "99999999999G"])
def test_wrong_limit_in_the_environment_makes_the_backend_unavailable(text: str) -> None:
    code = "import cnnengine as cnn; print(cnn.backends.available()['native'])"
    environment = {**os.environ, "CNNENGINE_MEMORY_LIMIT": text}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert "CNNENGINE_MEMORY_LIMIT must be a number of bytes" in done.stdout, done.stderr
    assert f"received '{text}'" in done.stdout


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 on: this fork is safe
def test_arrays_survive_a_fork() -> None:
    a, cached = floats(100_000), floats(5000)
    a.fill(1)
    where = address(cached)
    del cached
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            floats(2000).fill(0)

    worker = threading.Thread(target=churn)  # forks happen while it holds the pool's lock, too
    worker.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                mine = floats(5000)
                right = (a == 1).all() and address(mine) == where
                mine.fill(9)
                a.fill(2)
                del mine
                os._exit(0 if right and (a == 2).all() else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert (a == 1).all()
    finally:
        stop.set()
        worker.join(60)


def test_threads_share_the_pool() -> None:
    wrong: list[int] = []

    def churn(stamp: int) -> None:
        held: list[np.ndarray] = []
        for i in range(3000):
            a = floats(256 + i % 7 * 300)
            a.fill(stamp)
            held.append(a)
            if len(held) > 5 and (held.pop(0) != stamp).any():
                wrong.append(stamp)

    workers = [threading.Thread(target=churn, args=(stamp,)) for stamp in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert not wrong


def test_a_thousand_training_steps_take_no_more_memory() -> None:
    cnn.manual_seed(0)
    model = cnn.nn.Sequential(
        cnn.nn.Conv2d(1, 8, 3, padding=1), cnn.nn.ReLU(), cnn.nn.MaxPool2d(2), cnn.nn.Flatten(), cnn.nn.Linear(392, 10)
    )
    optimizer = cnn.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images = np.random.default_rng(0).standard_normal((16, 14, 14, 1), dtype=np.float32)
    labels = np.arange(16) % 10

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(cnn.Tensor(images)), labels).backward()
        optimizer.step()

    with cnn.use_backend("native"):
        for _ in range(5):
            step()
        before = cnn.memory_stats()
        for _ in range(1000):
            step()
        after = cnn.memory_stats()
    steady = ("in_use", "cached", "peak", "allocations")
    assert {name: after[name] for name in steady} == {name: before[name] for name in steady}
    assert after["reuses"] >= before["reuses"] + 5000
    assert after["scratch_activations"] + after["scratch_weights"] < MB  # a worker takes its own with its first item


def test_results_lie_in_the_pool() -> None:
    """Outputs, gradients and the optimizer's state."""
    x = cnn.Tensor(np.ones((4, 16, 16, 8), np.float32), requires_grad=True)
    before = cnn.memory_stats()["in_use"]

    def arrays() -> int:
        return (cnn.memory_stats()["in_use"] - before) // x.data.nbytes

    with cnn.use_backend("native"):
        y = F.relu(x)
        assert arrays() == 1
        y.backward(np.ones(y.shape, np.float32))
        assert (x.grad is not None, arrays()) == (True, 2)
        optimizer = cnn.optim.SGD([x], lr=0.1, momentum=0.9)
        optimizer.step()
        assert (optimizer.lr, arrays()) == (0.1, 3)
