"""``cnn.cuda.graph`` on the emulator: replays are the step itself, bit for bit. test_launch.py has it on a driver."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import nn
from cnnengine.cuda.arena import ALIGNMENT, Arena, Layout

from .test_launch import needs_compiler

OPTIMIZERS: dict[str, Callable[[Any], cnn.optim.Optimizer]] = {
    "sgd": lambda p: cnn.optim.SGD(p, lr=0.1),
    "momentum": lambda p: cnn.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "adam": lambda p: cnn.optim.Adam(p, lr=0.1),
    "adamw": lambda p: cnn.optim.AdamW(p, lr=0.1),
    "rmsprop_tf": lambda p: cnn.optim.RMSpropTF(p, lr=0.1, momentum=0.9),
    "lamb": lambda p: cnn.optim.LAMB(p, lr=0.1),
}
COMPOSED = ("rmsprop_tf", "lamb")  # their steps have intermediate results, which lie in the arena
Step = Callable[..., Any]


@pytest.fixture
def emulator() -> Iterator[None]:
    with cnn.use_backend("emulator"):
        yield


def batches(count: int, size: int = 4) -> list[tuple[cnn.Tensor, np.ndarray]]:
    rng = np.random.default_rng(3)
    images = [rng.standard_normal((size, 8, 8, 1)).astype("float32") for _ in range(count)]
    return [(cnn.Tensor(x), rng.integers(0, 10, size)) for x in images]


class Training:
    """LeNet-5's layers, small, with batch norm and dropout, and a step that trains them."""

    def __init__(self, optimizer: str = "momentum", clear: bool = True) -> None:
        cnn.manual_seed(0)
        layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.25)
        self.model = nn.Sequential(*layers, nn.Linear(36, 10))
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.clear = clear

    def step(self, x: cnn.Tensor, labels: Any) -> cnn.Tensor:
        if self.clear:
            self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(x), labels)
        loss.backward()
        self.optimizer.step()
        return loss

    def state(self) -> list[np.ndarray]:
        tensors = [*self.model.parameters(), *self.model.buffers()]
        gradients = [p.grad.numpy() for p in self.model.parameters() if p.grad is not None]
        kept = self.optimizer.state_dict()
        arrays = [a for name in self.optimizer.keeps for a in kept[name] if a is not None]
        return [np.array(a) for a in [*(t.numpy() for t in tensors), *gradients, *arrays]] + [
            np.array([t.version[0] for t in tensors]),
            np.array(kept.get("steps", [])),
            np.array(cnn.random.get_state()["dropout"]),
        ]


def same(plain: list[np.ndarray], replayed: list[np.ndarray]) -> None:
    for a, b in zip(plain, replayed, strict=True):
        np.testing.assert_array_equal(a, b)


@needs_compiler
@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_by_graph_is_training(optimizer: str) -> None:
    """Parameters, gradients, running statistics, states, counts of steps, of changes and of dropouts."""
    results = []
    for captured in (False, True):
        training, losses = Training(optimizer), []
        step: Step = cnn.cuda.graph(training.step) if captured else training.step
        for i, (x, labels) in enumerate(batches(5)):
            training.optimizer.lr = 0.1 / (i + 1)
            losses.append(step(x, labels).numpy().copy())
        results.append([*losses, *training.state()])
    same(*results)


@needs_compiler
@pytest.mark.usefixtures("emulator")
def test_replays_read_nothing_stale_and_stay_in_place() -> None:
    """Whatever the arena held, results are the same; every result lies where it lay."""
    results = []
    for spoiled in (False, True):
        training = Training()
        step = cnn.cuda.graph(training.step)
        given = batches(5)
        for x, labels in given[:2]:
            loss = step(x, labels)
        places = [p.grad.data.ctypes.data for p in training.model.parameters() if p.grad is not None]
        (found,) = step._found.values()
        for x, labels in given[2:]:
            if spoiled:
                for address, nbytes in found.capture.arena.pieces:  # type: ignore[union-attr]
                    holder = type("Piece", (), {"__array_interface__": _interface(address, nbytes)})()
                    np.asarray(holder).fill(0xFF)
            assert step(x, labels) is loss
        assert places == [p.grad.data.ctypes.data for p in training.model.parameters() if p.grad is not None]
        results.append([loss.numpy().copy(), *training.state()])
    same(*results)


def _interface(address: int, nbytes: int) -> dict[str, Any]:
    return {"version": 3, "data": (address, False), "shape": (nbytes,), "typestr": "|u1"}


@needs_compiler
@pytest.mark.usefixtures("emulator")
def test_blocks_of_the_arena_are_used_again() -> None:
    """A chain of ReLUs without gradients takes two activations, however long it is."""

    def chain(x: cnn.Tensor) -> cnn.Tensor:
        for _ in range(20):
            x = F.relu(x)
        return x

    graph, x = cnn.cuda.graph(chain), cnn.Tensor(np.ones((64, 64), np.float32))
    for _ in range(3):
        y = graph(x)
    np.testing.assert_array_equal(y.numpy(), 1)
    assert graph.arena_bytes == 2 * x.data.nbytes
    assert graph.nodes == 20
    assert repr(graph) == "Graph(chain: 1 captures, 20 nodes, arena 0.0 MB)"


@needs_compiler
@pytest.mark.usefixtures("emulator")
def test_states_of_optimizers_lie_outside_the_arena() -> None:
    sizes = []
    for name, make in OPTIMIZERS.items():
        if name in COMPOSED:
            continue
        w = cnn.Tensor(np.ones((64, 64), np.float32), requires_grad=True)

        def step(x: cnn.Tensor, w: cnn.Tensor = w, optimizer: Any = make([w])) -> None:  # noqa: B008
            optimizer.zero_grad()
            F.linear(x, w).sum().backward()
            optimizer.step()

        graph, x = cnn.cuda.graph(step), cnn.Tensor(np.ones((1, 64), np.float32))
        graph(x), graph(x)
        sizes.append(graph.arena_bytes)
    assert len(set(sizes)) == 1, sizes
    assert w.data.nbytes <= sizes[0] < 1.5 * w.data.nbytes, "the gradient, and little beside it"


@needs_compiler
@pytest.mark.usefixtures("emulator")
def test_a_state_that_the_first_run_did_not_make() -> None:
    w, v = (cnn.Tensor([1.0], requires_grad=True) for _ in range(2))
    optimizer, used = cnn.optim.Adam([w, v]), [w]

    def step(x: cnn.Tensor) -> None:
        optimizer.zero_grad()
        F.sum(x * used[0]).backward()
        optimizer.step()

    graph, x = cnn.cuda.graph(step), cnn.Tensor([3.0])
    graph(x)
    used[:] = [v]
    with pytest.raises(RuntimeError, match="an optimizer's state is missing that the step's first run had"):
        graph(x)


@needs_compiler
@pytest.mark.usefixtures("emulator")
def test_each_kind_of_arguments_is_captured_for_itself() -> None:
    """Another batch size, another constant, no_grad; results of one are not touched by another."""
    results = []
    for captured in (False, True):
        training = Training()
        step: Step = cnn.cuda.graph(training.step) if captured else training.step
        for (x, labels), (y, few) in zip(batches(4), batches(4, 3), strict=True):
            step(x, labels)
            step(y, few)
        results.append(training.state())
        if captured:
            assert step.captures == 2  # type: ignore[attr-defined]
    same(*results)
    graph = cnn.cuda.graph(lambda x, factor, labels: (x * factor, {"labels": [labels]}, None))
    x = cnn.Tensor([1.0, 2.0])
    for factor in (2.0, 3.0, 2.0, 3.0, 2.0, 3.0):
        y, other, none = graph(x, factor, np.arange(2))
        assert y.numpy().tolist() == [factor, 2 * factor]
        assert none is None
        assert other["labels"][0].tolist() == [0, 1]
    assert graph.captures == 2
    with cnn.no_grad():
        graph(x, 2.0, np.arange(2))
    assert len(graph._found) == 3


@needs_compiler
@pytest.mark.usefixtures("emulator")
def test_gradients_that_the_step_does_not_clear_add_up() -> None:
    results = []
    for captured in (False, True):
        training = Training("sgd", clear=False)
        step: Step = cnn.cuda.graph(training.step) if captured else training.step
        for x, labels in batches(4):
            step(x, labels)
        results.append(training.state())
    same(*results)
    training.optimizer.zero_grad()
    with pytest.raises(RuntimeError, match=r"adds to the gradient of a parameter .* was cleared or replaced since"):
        step(x, labels)


@needs_compiler
@pytest.mark.usefixtures("emulator")
def test_gradients_that_are_cleared_outside() -> None:
    results = []
    for captured in (False, True):
        training = Training("sgd", clear=False)
        step: Step = cnn.cuda.graph(training.step) if captured else training.step
        for x, labels in batches(4):
            training.optimizer.zero_grad()
            step(x, labels)
        results.append(training.state())
    same(*results)
    with pytest.raises(RuntimeError, match=r"at the capture a parameter .* had no gradient before the step"):
        step(x, labels)


@needs_compiler
@pytest.mark.usefixtures("emulator")
def test_autocast_within_the_step() -> None:
    """The casts of parameters are part of the step: each replay casts what they are then."""
    results = []
    for captured in (False, True):
        cnn.manual_seed(0)
        layer = nn.Linear(6, 4)
        optimizer = cnn.optim.SGD(layer.parameters(), lr=0.5)

        def train(x: cnn.Tensor, labels: Any, layer: Any = layer, optimizer: Any = optimizer) -> cnn.Tensor:
            with cnn.amp.autocast("bfloat16"):
                loss = F.cross_entropy(layer(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        step: Step = cnn.cuda.graph(train) if captured else train
        x, labels = cnn.Tensor(np.linspace(-1, 1, 18, dtype="float32").reshape(3, 6)), np.array([0, 1, 3], np.int32)
        results.append([step(x, labels).numpy().copy() for _ in range(4)] + [layer.weight.numpy().copy()])
    same(*results)


@needs_compiler
@pytest.mark.usefixtures("emulator")
def test_changes_of_shape_within_the_step() -> None:
    """Slices, joins, transposed and shared gradients: what NumPy does beside the verbs is captured, too."""
    results = []
    for captured in (False, True):
        w = cnn.Tensor(np.arange(12, dtype="float32").reshape(3, 4), requires_grad=True)

        def compute(x: cnn.Tensor, w: Any = w) -> cnn.Tensor:
            w.grad = None
            y = F.concatenate([w[:, 1:3], x[1:, :2] * 2.0], 0)
            z = (y.permute(1, 0) @ y + y.reshape(2, -1)[:, :2]).sum()
            (z + w.sum()).backward()
            return z

        step: Step = cnn.cuda.graph(compute) if captured else compute
        values = []
        for i in range(4):
            z = step(cnn.Tensor(np.full((3, 4), i, "float32")))
            values += [z.numpy().copy(), w.grad.numpy().copy()]  # type: ignore[union-attr]
        results.append(values)
    same(*results)


def scaled(x: cnn.Tensor) -> None:
    w = cnn.Tensor([1.0], requires_grad=True)
    scaler = cnn.amp.GradScaler()
    scaler.scale(F.sum(w * x)).backward()
    scaler.step(cnn.optim.SGD([w], lr=0.1))


@needs_compiler
@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda x: float(F.sum(x)), r"a result is read on the host \(float\(tensor\)"),
        (lambda x: x if F.sum(x) else -x, "read on the host"),
        (lambda x: F.sum(x).numpy(), "read on the host"),
        (scaled, "GradScaler.step in a step of cnn.cuda.graph: it looks for infinities"),
        (lambda x: cnn.cuda.graph(F.relu)(x), "a graph is called in the step of another"),
    ],
)
def test_what_cannot_be_captured_is_refused_in_the_first_run(step: Step, message: str) -> None:
    with pytest.raises(cnn.Unsupported, match=message):
        cnn.cuda.graph(step)(cnn.Tensor([3.0]))


@needs_compiler
@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda x: x.argmax(), "argmax in a step of cnn.cuda.graph on the emulator"),
        (lambda x: x[np.array([0, 0])], "an index that is no slice"),
        (lambda x: F.cross_entropy(x.reshape(1, 2), np.array([0]), label_smoothing=0.1), "cross_entropy with weights"),
    ],
)
def test_what_numpy_computes_is_refused_at_the_capture(step: Step, message: str) -> None:
    graph, x = cnn.cuda.graph(step), cnn.Tensor([3.0, 4.0])
    graph(x)
    with pytest.raises(cnn.Unsupported, match=message):
        graph(x)


@needs_compiler
def test_where_there_is_no_graph() -> None:
    x = cnn.Tensor([3.0])
    for name in ("numpy", "native"):
        with cnn.use_backend(name), pytest.raises(cnn.Unsupported, match=f"backend '{name}' on device 'cpu' launches"):
            cnn.cuda.graph(F.relu)(x)
    with pytest.raises(TypeError, match="expected a function, received int"):
        cnn.cuda.graph(3)  # type: ignore[arg-type]
    with cnn.use_backend("emulator"):
        with cnn.amp.autocast("float16"), pytest.raises(cnn.Unsupported, match="enter it in the step instead"):
            cnn.cuda.graph(F.relu)(x)
        with pytest.raises(ValueError, match="an argument requires a gradient"):
            cnn.cuda.graph(F.relu)(cnn.Tensor([3.0], requires_grad=True))
        with pytest.raises(TypeError, match="arguments are Tensors, arrays or constants, received a list"):
            cnn.cuda.graph(F.relu)([3.0])
        w = cnn.Tensor([2.0], requires_grad=True)
        y = cnn.cuda.graph(lambda x: x * w)(x)
        with pytest.raises(RuntimeError, match="does not require a gradient"):
            y.backward()


@needs_compiler
@pytest.mark.usefixtures("emulator")
def test_what_changed_since_the_capture_is_named() -> None:
    training, ((x, labels), *_) = Training(), batches(1)
    step = cnn.cuda.graph(training.step)
    for _ in range(3):
        step(x, labels)
    before = training.state()
    training.optimizer.load_state_dict(training.optimizer.state_dict())
    with pytest.raises(RuntimeError, match="SGD: its states are not those of the captured step"):
        step(x, labels)
    same(before, training.state())
    step.reset()
    for _ in range(3):
        step(x, labels)
    weight = training.model[0].weight
    weight.data = weight.data.copy()
    with pytest.raises(RuntimeError, match=r"the data of a parameter \(4, 3, 3, 1\) is another array"):
        step(x, labels)


@needs_compiler
@pytest.mark.usefixtures("emulator")
def test_a_graph_that_is_dropped_gives_its_memory_back() -> None:
    graph, x = cnn.cuda.graph(F.relu), cnn.Tensor([3.0])
    graph(x), graph(x)
    gc.collect()
    (found,) = graph._found.values()
    arena = weakref.ref(found.capture.arena)  # type: ignore[union-attr]
    del found
    gc.disable()
    try:
        graph.reset()
        assert arena() is None
    finally:
        gc.enable()


def test_blocks_never_overlap() -> None:
    rng, layout = random.Random(5), Layout()
    held: dict[int, int] = {}
    most = 0
    for _ in range(3000):
        if held and rng.random() < 0.5:
            offset = rng.choice(list(held))
            layout.give_back(offset)
            del held[offset]
            continue
        nbytes = rng.choice((0, 1, 255, 256, 257, 5000, rng.randrange(100_000)))
        offset = layout.take(nbytes)
        assert offset % ALIGNMENT == 0
        for other, size in held.items():
            assert offset + max(nbytes, 1) <= other or other + max(size, 1) <= offset
        held[offset] = nbytes
        most = max(most, *(o + n for o, n in held.items()))
    assert most <= layout.peak < most + ALIGNMENT
    for offset in held:
        layout.give_back(offset)
    assert layout.take(layout.peak) == 0, "all gaps are one again"


def test_a_gap_that_fits_best_is_taken() -> None:
    layout = Layout()
    offsets = [layout.take(n) for n in (1024, 256, 512, 256, 256)]
    assert offsets == [0, 1024, 1280, 1792, 2048]
    layout.give_back(0)
    layout.give_back(1280)
    assert layout.take(300) == 1280
    assert layout.take(512) == 0
    assert layout.take(512) == 512
    layout.give_back(2048)
    assert layout.take(1) == 2048
    assert layout.peak == 2304


def test_an_arena_grows_where_it_was_measured_too_small() -> None:
    asked: list[int] = []

    def allocate(nbytes: int) -> tuple[int, Any]:
        asked.append(nbytes)
        return 4096 * len(asked), None

    arena = Arena(512, allocate)
    blocks = [arena.block(n) for n in (256, 300, 256)]
    assert [b.address for b in blocks] == [4096, 8192, 4096 + 256]
    assert asked == [512, 300]
    assert (arena.nbytes, arena.pieces) == (812, [(4096, 512), (8192, 300)])
    assert arena.holds(8192)
    assert not arena.holds(8192 + 300)
    del blocks[0]
    assert arena.block(100).address == 4096
