"""The native backend's threads: results do not depend on their number, forks and concurrent callers are safe."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from cnnengine import backends
from cnnengine.backends.contract import IDENTITY
from cnnengine.backends.native import get_num_threads, set_num_threads
from cnnengine.shapes import Conv2dShape, conv2d_shape, gemm_shape, norm_shape, pool2d_shape, reduce_shape

from .lines import ROOT

_native = pytest.importorskip("cnnengine._native", reason="the native extension is not built")

BACKEND = backends.get("native")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    count = get_num_threads()
    yield
    set_num_threads(count)


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


CONVOLUTIONS = {
    "few_channels": conv2d_shape((8, 28, 28, 1), (6, 5, 5, 1), 1, 2),
    "padded": conv2d_shape((4, 15, 14, 40), (70, 3, 3, 40), 1, 1),
    "strided": conv2d_shape((3, 17, 16, 24), (33, 3, 3, 24), 2, 1),
    "grouped": conv2d_shape((2, 20, 20, 32), (48, 3, 3, 8), 1, 1, 1, 4),
    "depthwise": conv2d_shape((4, 20, 21, 40), (40, 5, 5, 1), 1, 2, 1, 40),
    "long_sums": conv2d_shape((1, 7, 7, 512), (64, 3, 3, 512), 1, 1),
}


def convolution(shape: Conv2dShape, verb: str) -> Callable[[], np.ndarray]:
    x, w, y = values(*shape.x), values(*shape.w, seed=1), values(*shape.y, seed=2)

    def run() -> np.ndarray:
        if verb == "forward":
            out = np.empty(shape.y, np.float32)
            BACKEND.conv2d_forward(shape, x, w, out, IDENTITY, None)
        elif verb == "backward_input":
            out = np.empty(shape.x, np.float32)
            BACKEND.conv2d_backward_input(shape, y, w, out, None)
        else:
            out = np.empty(shape.w, np.float32)
            BACKEND.conv2d_backward_weight(shape, x, y, out, None)
        return out

    return run


def gemm(transpose_a: bool, transpose_b: bool) -> Callable[[], np.ndarray]:
    shape = gemm_shape(2, 150, 130, 700, transpose_a, transpose_b, False, False)
    a, b = values(2 * 150 * 700), values(2 * 700 * 130, seed=1)

    def run() -> np.ndarray:
        out = np.empty((2, 150, 130), np.float32)
        BACKEND.gemm(shape, a, b, out, IDENTITY)
        return out

    return run


def sums(outer: int, reduced: int, inner: int) -> Callable[[], np.ndarray]:
    x = values(outer, reduced, inner)

    def run() -> np.ndarray:
        out = np.empty((outer, inner), np.float32)
        BACKEND.reduce("sum", reduce_shape(outer, reduced, inner), x, out)
        return out

    return run


def pooling_gradient() -> np.ndarray:
    shape = pool2d_shape("max_pool2d", (8, 31, 33, 20), 3, 2, 1)
    x, y, index = values(*shape.x), np.empty(shape.y, np.float32), np.empty(shape.y, np.uint8)
    BACKEND.pool2d_forward("max", shape, x, y, index)
    dx = np.empty(shape.x, np.float32)
    BACKEND.pool2d_backward("max", shape, values(*shape.y, seed=1), index, dx)
    return dx


def norm(N: int, L: int, G: int, D: int) -> Callable[[], np.ndarray]:
    shape = norm_shape(N, L, G, D)
    x, dy, gain = values(*shape.x), values(*shape.x, seed=1), values(shape.channels, seed=2)

    def run() -> np.ndarray:
        y, dx, mean, variance = (np.empty(s, np.float32) for s in (shape.x, shape.x, *(shape.statistics,) * 2))
        BACKEND.norm_forward(shape, x, gain, gain, None, y, mean, variance, 1e-5, "relu")
        dgain, doffset = np.empty_like(gain), np.empty_like(gain)
        BACKEND.norm_backward(shape, x, gain, mean, variance, y, dy, dx, dgain, doffset, None, 1e-5, "relu")
        return np.concatenate([a.reshape(-1) for a in (y, mean, variance, dx, dgain, doffset)])

    return run


RUNS: dict[str, Callable[[], np.ndarray]] = {
    **{
        f"conv2d_{verb}-{name}": convolution(shape, verb)
        for name, shape in CONVOLUTIONS.items()
        for verb in ("forward", "backward_input", "backward_weight")
    },
    "gemm": gemm(False, False),
    "gemm_transposed_a": gemm(True, False),
    "gemm_transposed_b": gemm(False, True),
    "column_sums": sums(1, 50_000, 6),
    "row_sums": sums(700, 1000, 1),
    "batch_norm": norm(1, 7001, 24, 1),
    "layer_norm": norm(3001, 1, 1, 65),
    "group_norm": norm(3, 999, 4, 8),
    "max_pool2d_backward": pooling_gradient,
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_results_do_not_depend_on_the_number_of_threads(run: Callable[[], np.ndarray]) -> None:
    set_num_threads(1)
    expected = run().tobytes()
    for count in (2, 3, 5):
        set_num_threads(count)
        for _ in range(3):
            assert run().tobytes() == expected, f"{count} threads changed the result"


def test_numbers_of_threads() -> None:
    set_num_threads(3)
    assert get_num_threads() == 3
    for wrong in (0, -1, 100_000):
        with pytest.raises(ValueError, match=r"set_num_threads: expected 1 to 256 threads, received"):
            set_num_threads(wrong)
    assert get_num_threads() == 3


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"CNNENGINE_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}, "3"),
        ({"CNNENGINE_NUM_THREADS": "", "OMP_NUM_THREADS": "5"}, "5"),
        ({"CNNENGINE_NUM_THREADS": "", "OMP_NUM_THREADS": "4,2"}, "4"),
    ],
    ids=["own", "openmp", "openmp_list"],
)
def test_environment_sets_the_number(environment: dict[str, str], expected: str) -> None:
    code = "from cnnengine import _native; print(_native.get_num_threads())"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == expected, done.stderr


def test_wrong_number_in_the_environment_makes_the_backend_unavailable() -> None:
    code = "import cnnengine as cnn; print(cnn.backends.available()['native'])"
    environment = {**os.environ, "CNNENGINE_NUM_THREADS": "many"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    reason = "CNNENGINE_NUM_THREADS must be a number of threads from 1 to 256, received 'many'"
    assert reason in done.stdout, done.stderr


def _in_child(run: Callable[[], np.ndarray], expected: bytes, results: multiprocessing.Queue) -> None:
    try:
        results.put([run().tobytes() == expected for _ in range(3)])
    except BaseException as error:
        results.put(repr(error))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 on: this fork is safe
def test_forked_children_compute() -> None:
    set_num_threads(2)
    run = convolution(CONVOLUTIONS["padded"], "forward")
    expected = run().tobytes()  # the parent's pool is running now
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    children = [context.Process(target=_in_child, args=(run, expected, results)) for _ in range(2)]
    for child in children:
        child.start()
    assert run().tobytes() == expected
    answers = [results.get(timeout=60) for _ in children]
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert answers == [[True] * 3] * 2


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 on: this fork is safe
def test_fork_while_another_thread_computes() -> None:
    set_num_threads(2)
    run = convolution(CONVOLUTIONS["padded"], "forward")
    expected = run().tobytes()
    stop = threading.Event()

    def compute() -> None:
        while not stop.is_set():
            run()

    worker = threading.Thread(target=compute)
    worker.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                os._exit(0 if run().tobytes() == expected else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        worker.join(60)


def test_python_threads_may_call_at_once() -> None:
    set_num_threads(2)
    names = ["conv2d_forward-padded", "conv2d_backward_weight-few_channels", "gemm", "column_sums"]
    expected = {name: RUNS[name]().tobytes() for name in names}
    wrong: list[str] = []

    def compute(name: str) -> None:
        wrong.extend(name for _ in range(20) if RUNS[name]().tobytes() != expected[name])

    workers = [threading.Thread(target=compute, args=(name,)) for name in names]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert not worker.is_alive()
    assert not wrong


def test_number_of_threads_may_change_while_another_thread_computes() -> None:
    expected = RUNS["gemm"]().tobytes()
    wrong: list[int] = []

    def compute() -> None:
        wrong.extend(i for i in range(30) if RUNS["gemm"]().tobytes() != expected)

    worker = threading.Thread(target=compute)
    worker.start()
    while worker.is_alive():
        for count in (1, 4, 2):
            set_num_threads(count)
    worker.join()
    assert not wrong


QUERIES = ("conv2d_can", "conv2d_chosen", "conv2d_packed_size")  # of shapes: these take no time


def test_every_verb_releases_the_interpreter_lock() -> None:
    """Every function of the extension that calls a kernel has released the lock before."""
    bodies = re.split(r"^}$", (ROOT / "csrc/cpu/module.cpp").read_text(), flags=re.MULTILINE)
    kernel = re.compile(r"kernels->(\w+)\(")
    seen = 0
    for body in bodies:
        for call in kernel.finditer(body):
            if call[1] not in QUERIES:
                seen += 1
                assert "Unlocked unlocked;" in body[: call.start()], f"{call[1]} runs with the interpreter locked"
    assert seen >= 18


@pytest.mark.parametrize(
    "run", [RUNS["gemm"], RUNS["conv2d_forward-padded"], RUNS["row_sums"]], ids=["gemm", "conv2d", "reduce"]
)
def test_python_goes_on_while_a_kernel_runs(run: Callable[[], np.ndarray]) -> None:
    """Another thread gets its turn while this one does nothing but call kernels; without switches by the interpreter it
    can do so only where a kernel has released the lock. When depends on the system, which has other threads to run."""
    turns, stop = [0], threading.Event()

    def other() -> None:
        while not stop.is_set():
            turns[0] += 1
            time.sleep(0)  # gives the lock back

    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)
    worker = threading.Thread(target=other)
    worker.start()
    try:
        before, end = turns[0], time.perf_counter() + 3
        while turns[0] == before and time.perf_counter() < end:
            run()
        assert turns[0] > before
    finally:
        stop.set()
        worker.join(60)
        sys.setswitchinterval(interval)


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="the system does not list threads' times")
def test_no_other_library_s_threads_work_beside_ours() -> None:
    """NumPy's BLAS, whose idle threads would hold cores, is never called: with one thread of ours no other runs."""
    code = """
import os, time
import numpy as np
import cnnengine as cnn, cnnengine.functional as F

def others():
    ticks = {}
    for task in os.listdir("/proc/self/task"):
        if int(task) != os.getpid():
            with open(f"/proc/self/task/{task}/stat") as file:
                ticks[task] = sum(map(int, file.read().rsplit(")", 1)[1].split()[11:13]))
    return sum(ticks.values())

cnn.set_backend("native")
cnn.set_num_threads(THREADS)
model = cnn.models.lenet5()
optimizer = cnn.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
x, labels = cnn.Tensor(np.ones((64, 28, 28, 1), np.float32)), np.zeros(64, int)
before, start = others(), time.process_time()
while time.process_time() - start < 1.0:
    optimizer.zero_grad()
    F.cross_entropy(model(x), labels).backward()
    optimizer.step()
    (x.reshape(64, 784) @ cnn.Tensor(np.ones((784, 30), np.float32))).sum()
print(others() - before)
"""
    ticks = []
    for threads in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code.replace("THREADS", threads)], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        ticks.append(int(done.stdout))
    assert ticks[0] <= 2, "hundredths of a second that other threads worked"
    assert ticks[1] > 2, "ours are seen"


def test_the_module_names_its_instruction_set() -> None:
    assert _native.isa() in _native.isas()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads cannot be placed here")
def test_woken_threads_may_run_anywhere() -> None:
    """A sleeper is kept off its waker's CPU until it runs, and no longer."""
    set_num_threads(3)
    x = values(1 << 20)
    for _ in range(3):
        BACKEND.activation_forward("relu", x, np.empty_like(x), 0.0)
        time.sleep(0.02)  # the workers fall asleep
    tasks = [int(task) for task in os.listdir("/proc/self/task")]
    assert len(tasks) >= 3
    for task in tasks:
        assert os.sched_getaffinity(task) == os.sched_getaffinity(0)
