"""ONNX files of others, damaged ones, and what cannot be written or read: refused by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import nn

from .onnx_networks import IMAGE, Apply, apply

onnx = pytest.importorskip("onnx", reason="onnx is not installed")


def file_of(
    path: Path,
    nodes: list[Any],
    inputs: dict[str, tuple[int, ...]],
    outputs: tuple[str, ...] = ("y",),
    weights: dict[str, np.ndarray] | None = None,
    opset: int = 17,
    kind: int = 1,
) -> Path:
    """A model of these nodes"""
    helper = onnx.helper
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("elsewhere", 1)]
    made = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    for output in made.graph.output:  # whose rank a file has to say
        if not output.type.tensor_type.HasField("shape"):
            output.CopyFrom(helper.make_tensor_value_info(output.name, kind, [None] * 4))
    path.write_bytes(made.SerializeToString())
    return path


def node(kind: str, inputs: str, outputs: str = "y", **attributes: Any) -> Any:
    return onnx.helper.make_node(kind, inputs.split(), outputs.split(), name=f"the {kind}", **attributes)


def computed(path: Path, *inputs: np.ndarray, **options: Any) -> np.ndarray:
    with cnn.no_grad():
        return np.asarray(cnn.onnx.load(path, **options)(*map(cnn.Tensor, inputs)).numpy())


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


# ---- operators that our own files do not have, against the specification's own evaluator


CASES: dict[str, tuple[list[Any], dict[str, np.ndarray], dict[str, np.ndarray]]] = {}


def case(name: str, nodes: list[Any], inputs: dict[str, np.ndarray], **weights: Any) -> None:
    CASES[name] = nodes, inputs, {key: np.asarray(value) for key, value in weights.items()}


X = {"x": floats(2, 4, 6, 5)}  # (N, C, H, W)
INT = np.int64
case("auto_pad", [node("Conv", "x w b", auto_pad="SAME_LOWER", strides=[2, 2])], X, w=floats(3, 4, 3, 2), b=floats(3))
case("auto_pad, upper", [node("Conv", "x w", auto_pad="SAME_UPPER", strides=[2, 1])], X, w=floats(3, 4, 2, 3))
case("auto_pad, valid", [node("Conv", "x w", auto_pad="VALID")], X, w=floats(3, 4, 2, 3))
case("max_pool, uneven", [node("MaxPool", "x", kernel_shape=[3, 2], pads=[1, 0, 2, 1], strides=[2, 1])], X)
for counts in (0, 1):
    pads = {"kernel_shape": [3, 2], "pads": [1, 0, 2, 1], "count_include_pad": counts}
    case(f"average_pool, uneven, {counts}", [node("AveragePool", "x", **pads)], X)
case("hard_sigmoid", [node("HardSigmoid", "x", alpha=0.25, beta=0.4)], X)
case("clip", [node("Clip", "x lo hi")], X, lo=np.float32(-0.5), hi=np.float32(0.25))
case("clip, below", [node("Clip", "x lo")], X, lo=np.float32(0.1))
case("prelu", [node("PRelu", "x slope")], X, slope=floats(4, 1, 1))
ONE, HALF, TWO = (np.float32(n) for n in (1, 0.5, 2))
case("reciprocal", [node("Abs", "x", "a"), node("Add", "a one", "b"), node("Reciprocal", "b")], X, one=ONE)
case("sum of three", [node("Sum", "x x x")], X)
case("pow", [node("Mul", "x x", "s"), node("Pow", "s e")], X, e=np.float32(1.5))
case("square, root", [node("Pow", "x two", "s"), node("Pow", "s half")], X, two=TWO, half=HALF)
for reduction in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSumSquare"):
    case(reduction, [node(reduction, "x", axes=[1, 3], keepdims=0)], X)
case("ReduceMean of all", [node("ReduceMean", "x")], X)
case("ReduceSum, nothing", [node("ReduceSum", "x none", noop_with_empty_axes=1)], X, none=np.array([], INT))
case(
    "gemm", [node("Gemm", "a b c", transA=1, alpha=0.5, beta=2.0)], {"a": floats(4, 3)}, b=floats(4, 5), c=floats(3, 5)
)
case("gemm, a row", [node("Gemm", "a b c", transB=1)], {"a": floats(3, 4)}, b=floats(5, 4), c=floats(1, 5))
case("matmul, broadcast", [node("MatMul", "a b")], {"a": floats(2, 3, 4, 5), "b": floats(3, 5, 2)})
# as many images as channels: the specification's evaluator walks over one number where it should over the other
case("lrn, odd", [node("LRN", "x", size=3)], {"x": floats(5, 5, 2, 3)})
case("lrn", [node("LRN", "x", size=4, alpha=0.3, beta=0.6, bias=1.5)], {"x": floats(5, 5, 2, 3)})
case("depth to space", [node("DepthToSpace", "x", blocksize=2)], X)
case("depth to space, CRD", [node("DepthToSpace", "x", blocksize=2, mode="CRD")], X)
case("space to depth", [node("SpaceToDepth", "x", blocksize=2)], {"x": floats(2, 3, 4, 6)})
case("instance_norm", [node("InstanceNormalization", "x s b")], X, s=floats(4), b=floats(4))
case("transpose, reversed", [node("Transpose", "x", "t"), node("Relu", "t")], X)
case("squeeze", [node("ReduceMean", "x", "m", axes=[2]), node("Squeeze", "m a")], X, a=np.array([2], INT))
case("flatten", [node("Flatten", "x", axis=2)], X)
case("gather", [node("Gather", "x i", axis=1)], X, i=np.array([[0, -1], [2, 1]], INT))
case("gather, one", [node("Gather", "x i", axis=-1)], X, i=np.array(-2, INT))
case(
    "slice, backwards",
    [node("Slice", "x s e a t")],
    X,
    s=np.array([-1, 1], INT),
    e=np.array([np.iinfo(INT).min, 9], INT),
    a=np.array([1, 3], INT),
    t=np.array([-2, 2], INT),
)
case("expand", [node("Expand", "a shape")], {"a": floats(3, 1)}, shape=np.array([2, 3, 4], INT))
case("split", [node("Split", "x", "a y", axis=1)], X)
case("concat with a constant", [node("Concat", "x c", axis=1)], X, c=floats(2, 1, 6, 5))
case(
    "resize, factors",
    [node("Resize", "x r f", mode="linear")],
    X,
    r=np.array([], np.float32),
    f=np.array([1, 1, 2, 1.5], np.float32),
)
case(
    "a shape computed",
    [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Unsqueeze", "n first", "n1"),
        node("Concat", "n1 rest", "shape", axis=0),
        node("Reshape", "x shape"),
    ],
    X,
    zero=np.array(0, INT),
    first=np.array([0], INT),
    rest=np.array([-1], INT),
)
case(
    "a grid of constants",
    [
        node("ConstantOfShape", "shape", "c", value=onnx.helper.make_tensor("v", 1, [1], [2.0])),
        node("Range", "a b d", "r"),
        node("Add", "c r", "grid"),
        node("Cast", "grid", "g", to=1),
        node("Mul", "x g"),
    ],
    X,
    shape=np.array([6, 1], INT),
    a=np.float32(0),
    b=np.float32(5),
    d=np.float32(1),
)


@pytest.mark.parametrize("name", CASES)
def test_an_operator_computes_what_the_specification_says(tmp_path: Path, name: str) -> None:
    from onnx.reference import ReferenceEvaluator

    nodes, inputs, weights = CASES[name]
    path = file_of(tmp_path / "m.onnx", nodes, {key: value.shape for key, value in inputs.items()}, weights=weights)
    (expected,) = ReferenceEvaluator(str(path)).run(None, inputs)
    given = [np.ascontiguousarray(v.transpose(0, 2, 3, 1)) if v.ndim == 4 else v for v in inputs.values()]
    made = computed(path, *given, layout="NCHW")
    made = made.transpose(0, 3, 1, 2) if made.ndim == 4 else made
    assert made.shape == expected.shape
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-5)


def test_a_file_of_nhwc_images_is_known_by_its_sizes(tmp_path: Path) -> None:
    nodes = [
        node("Transpose", "x", "t", perm=[0, 3, 1, 2]),
        node("Conv", "t w", "c"),
        node("Transpose", "c", perm=[0, 2, 3, 1]),
    ]
    w, x = floats(5, 3, 1, 1), floats(2, 8, 6, 3)
    path = file_of(tmp_path / "m.onnx", nodes, {"x": (2, 8, 6, 3)}, weights={"w": w})
    np.testing.assert_allclose(computed(path, x), x @ w[:, :, 0, 0].T, rtol=1e-5, atol=1e-5)


# ---- files that PyTorch writes


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch's exporter, and within it
def test_files_of_pytorch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")

    class Network(torch.nn.Module):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            layers = torch.nn
            self.body = layers.Sequential(layers.Conv2d(3, 8, 3, 2, 1), layers.BatchNorm2d(8), layers.Hardswish())
            self.token, self.place = (layers.Parameter(torch.randn(1, n, 8)) for n in (1, 65))
            self.norm, self.qkv = layers.LayerNorm(8), layers.Linear(8, 24)
            self.mlp = layers.Sequential(layers.Linear(8, 16), layers.GELU(), layers.Linear(16, 8))

        def forward(self, x: Any) -> Any:
            x = self.body(x).flatten(2).transpose(1, 2)
            n, length, c = x.shape
            x = torch.cat([self.token.expand(n, -1, -1), x], 1) + self.place
            q, k, v = self.qkv(self.norm(x)).reshape(n, length + 1, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
            x = x + ((q @ k.transpose(-2, -1) * 0.5).softmax(-1) @ v).transpose(1, 2).reshape(n, length + 1, c)
            return self.mlp(x)[:, 0]

    torch.manual_seed(0)
    model, path = Network(), tmp_path / "m.onnx"
    model(torch.randn(4, 3, 16, 16))
    model.eval()
    x = torch.randn(3, 3, 16, 16)
    mode = torch.onnx.TrainingMode
    for opset, training in ((13, mode.EVAL), (17, mode.PRESERVE)):
        torch.onnx.export(
            model, (x[:2],), path, dynamo=False, opset_version=opset, training=training,
            input_names=["x"], dynamic_axes={"x": {0: "n"}}, do_constant_folding=training == mode.EVAL,
        )  # fmt: skip
        made = computed(path, np.ascontiguousarray(x.numpy().transpose(0, 2, 3, 1)))
        np.testing.assert_allclose(made, model(x).detach().numpy(), rtol=0, atol=1e-5)
        names = set(cnn.onnx.load(path).state_dict())
        own = set(model.state_dict()) - {"body.1.num_batches_tracked"}
        assert names == (own if training == mode.PRESERVE else {n for n in own if not n.startswith("body.1.")})


# ---- what is refused


def test_the_library_is_imported_only_where_it_is_needed() -> None:
    program = "import sys, cnnengine; assert cnnengine.onnx.load and 'onnx' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    for call in (lambda: cnn.onnx.load(tmp_path / "m"), lambda: cnn.onnx.export(nn.ReLU(), (1, 2), tmp_path / "m")):
        with pytest.raises(ImportError, match=r"install it with: pip install 'cnnengine\[onnx\]'"):
            call()


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (
            apply(lambda x: x + cnn.Tensor(x.numpy() * 2)),
            IMAGE,
            "operand of add, .* made outside cnnengine.functional",
        ),
        (apply(lambda x: cnn.Tensor(x.numpy() * 2)), IMAGE, "the model's output, .* made outside"),
        (apply(lambda x: F.dropout(x, 0.5, True)), IMAGE, r"output, .* made by F\.dropout, which has no counterpart"),
        (lambda: nn.BatchNorm2d(4, track_running_stats=False), IMAGE, "batch_norm by the batch's own statistics"),
        (apply(lambda x: F.local_response_norm(x, 2)), IMAGE, "local_response_norm of 2 channels"),
        (lambda: nn.AdaptiveMaxPool2d(5), IMAGE, "adaptive_max_pool2d of 8 x 6 to 5 x 5"),
        (
            apply(lambda x: F.matmul(x, x.T).reshape(x.shape[0], 1, -1)),
            (1, 6),
            "reshape from .* several sizes that vary",
        ),
        (apply(lambda x: F.relu(x) if x.shape[0] == 2 else x * 2.0), IMAGE, "does other things for another input"),
        (apply(lambda x: x[: x.shape[0] - 1]), IMAGE, "an axis that varies with the batch"),
        (apply(lambda x: x * float(x.shape[0])), IMAGE, "an operand of mul"),
        (apply(lambda x: x.shape), IMAGE, "the model returns a int; expected tensors"),
        (apply(lambda x: F.sum(x, x.shape[0] - 1)), IMAGE, "axis of sum depends on the batch"),
    ],
)
def test_what_cannot_be_written_is_named(tmp_path: Path, model: Any, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(cnn.Unsupported, match=message):
        cnn.onnx.export(model(), shape, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_export_checks_its_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="layout must be one of NCHW, NHWC, received 'HWC'"):
        cnn.onnx.export(nn.ReLU(), (1, 2), tmp_path / "m.onnx", layout="HWC")
    with pytest.raises(ValueError, match="expected the shape of an input"):
        cnn.onnx.export(nn.ReLU(), (0, 2), tmp_path / "m.onnx")
    with pytest.raises(OSError, match=r"m\.onnx"):
        cnn.onnx.export(nn.ReLU(), (1, 2), tmp_path / "nowhere" / "m.onnx")
    model = Apply(lambda x: F.add(x.reshape(x.shape[0], 1, 6), x.reshape(1, x.shape[0], 6)).reshape(-1, x.shape[0], 6))
    with pytest.raises(
        cnn.Unsupported, match=r"several sizes that vary with the batch; export with dynamic_batch=False"
    ):
        cnn.onnx.export(model, (2, 6), tmp_path / "m.onnx")
    cnn.onnx.export(model, (2, 6), tmp_path / "m.onnx", dynamic_batch=False)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Erf", "x")], "node 'the Erf': the operator Erf is not known"),
        ([node("NonZero", "x")], "node 'the NonZero': the operator NonZero is not known"),
        ([node("Swish", "x", domain="elsewhere")], "the operator elsewhere.Swish is not ONNX's own"),
    ],
)
def test_operators_that_are_not_known_are_named(tmp_path: Path, nodes: list[Any], message: str) -> None:
    path = file_of(tmp_path / "m.onnx", nodes, {"x": (1, 3, 4, 4)})
    with pytest.raises(cnn.Unsupported, match=message):
        cnn.onnx.load(path)


def test_what_cannot_be_computed_is_named(tmp_path: Path) -> None:
    for nodes, weights, message in (
        ([node("Conv", "x w")], {"w": floats(2, 3, 3)}, "Conv 'the Conv': its input has 3 axes"),
        ([node("Pad", "x p", mode="reflect")], {"p": np.array([0, 0, 1, 0, 0, 1])}, "mode 'reflect'"),
        ([node("Cast", "x", "i", to=7), node("Cast", "i", to=1)], {}, "Cast 'the Cast': images become int64"),
        ([node("Greater", "x x", "g"), node("Cast", "g", to=1)], {}, "Greater 'the Greater': is computed for sizes"),
    ):
        path = file_of(tmp_path / "m.onnx", nodes, {"x": (2, 3, 4)}, weights=weights)
        with pytest.raises(cnn.Unsupported, match=message):
            computed(path, floats(2, 3, 4))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = file_of(tmp_path / "m.onnx", [node("Relu", "x")], {"x": (2, 3)})
    whole = path.read_bytes()
    (tmp_path / "text.onnx").write_text("no protocol buffer at all")
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(cnn.DataError, match=r"nowhere\.onnx: cannot be read: no such file"):
        cnn.onnx.load(tmp_path / "nowhere.onnx")
    for name in ("text", "cut", "empty"):
        with pytest.raises(cnn.DataError, match=rf"{name}\.onnx: not a whole ONNX model"):
            cnn.onnx.load(tmp_path / f"{name}.onnx")
    file_of(path, [node("Relu", "x")], {"x": (2, 3)}, opset=9)
    with pytest.raises(cnn.Unsupported, match="has opset 9; 11 to 26 are read"):
        cnn.onnx.load(path)
    file_of(path, [node("Identity", "x")], {"x": (2, 3)}, kind=7)
    with pytest.raises(cnn.Unsupported, match="input 'x' is no floating-point array"):
        cnn.onnx.load(path)
    with pytest.raises(ValueError, match="layout must be one of NCHW, NHWC or None"):
        cnn.onnx.load(path, layout="HWC")


def test_a_network_checks_its_inputs(tmp_path: Path) -> None:
    network = cnn.onnx.load(file_of(tmp_path / "m.onnx", [node("Add", "a b")], {"a": (2, 3), "b": (2, 3)}))
    assert network.describe() == "Add                      a, b -> y"
    assert repr(network) == "Network(1 nodes, a, b -> y)"
    with pytest.raises(ValueError, match="takes a, b; received 1 inputs"):
        network(cnn.Tensor(floats(2, 3)))
    with pytest.raises(ValueError, match="input b must have 2 axes"):
        network(cnn.Tensor(floats(2, 3)), cnn.Tensor(floats(3)))
