"""ONNX files: what we write runs in ONNX Runtime with our numbers, and comes back as a module with the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import nn

from .onnx_networks import IMAGE, NETWORKS, Apply

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def turned(array: np.ndarray) -> np.ndarray:
    """An image as ONNX has it"""
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2)) if array.ndim == 4 else array


def results(network: nn.Module, x: np.ndarray) -> list[np.ndarray]:
    with cnn.no_grad():
        value = network(cnn.Tensor(x))
    return [t.numpy() for t in (value if isinstance(value, tuple) else (value,))]


def run(path: Path, x: np.ndarray) -> list[np.ndarray]:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    return list(runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, {"input": x}))


def batch_of(shape: tuple[int, ...], batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, *shape[1:])).astype(np.float32)


def close(ours: list[np.ndarray], theirs: list[np.ndarray], tolerance: float = 1e-5) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * float(np.abs(b).max()))


# ---- there and back


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_runs_in_onnx_runtime_and_comes_back(tmp_path: Path, name: str) -> None:
    build, shape = NETWORKS[name]
    model = build().eval()
    path = tmp_path / "model.onnx"
    cnn.onnx.export(model, shape, path)
    again = cnn.onnx.load(path)
    for batch in (1, 3):
        x = batch_of(shape, batch)
        ours = results(model, x)
        close([turned(y) for y in ours], run(path, turned(x)))
        close(ours, results(again, x))


@pytest.mark.parametrize("name", ["conv and relu", "batch_norm", "squeeze and excitation", "tokens", "group_norm"])
def test_nhwc_files_and_fixed_batches(tmp_path: Path, name: str) -> None:
    build, shape = NETWORKS[name]
    model, path = build().eval(), tmp_path / "model.onnx"
    x = batch_of(shape, 2)
    cnn.onnx.export(model, x, path, layout="NHWC", dynamic_batch=False, output_name="logits")
    graph = onnx.load(path).graph
    assert [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim] == list(x.shape)
    assert [output.name for output in graph.output] == ["logits"]
    ours = results(model, x)
    close(ours, run(path, x))
    close(ours, results(cnn.onnx.load(path, layout="NHWC"), x))


def test_a_file_says_what_it_takes(tmp_path: Path) -> None:
    cnn.onnx.export(nn.Conv2d(3, 5, 3), (1, 8, 6, 3), tmp_path / "m.onnx", input_name="image")
    graph = onnx.load(tmp_path / "m.onnx").graph
    (given,), (made,) = graph.input, graph.output
    assert given.name == "image"
    assert [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim] == ["batch", 3, 8, 6]
    assert [d.dim_param or d.dim_value for d in made.type.tensor_type.shape.dim] == ["batch", 5, 6, 4]
    assert [i.name for i in graph.initializer] == ["weight", "bias"]
    assert list(graph.initializer[0].dims) == [5, 3, 3, 3]
    weight = onnx.numpy_helper.to_array(graph.initializer[0])
    assert weight.flags.c_contiguous


def kinds(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_networks_of_convolutions_have_no_transpositions(tmp_path: Path) -> None:
    def block(x: cnn.Tensor, a: nn.Module, b: nn.Module) -> cnn.Tensor:
        y = F.concatenate([a(x), x], -1)
        y = F.max_pool2d(F.silu(y) * y.mean((1, 2), keepdims=True) + 1.0, 2)
        return F.global_avg_pool2d(F.softmax(b(y[:, 1:]), -1))

    model = Apply(block, a=nn.Conv2d(4, 6, 3, padding=1), b=nn.Conv2d(10, 3, 1))
    cnn.onnx.export(model, IMAGE, tmp_path / "m.onnx")
    assert "Transpose" not in kinds(tmp_path / "m.onnx")
    flat = nn.Sequential(nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(72, 5))
    cnn.onnx.export(flat, IMAGE, tmp_path / "m.onnx")
    assert kinds(tmp_path / "m.onnx") == ["Conv", "Transpose", "Reshape", "Gemm"]
    flat = nn.Sequential(nn.Conv2d(4, 3, 3), nn.Flatten("CHW"), nn.Linear(72, 5))
    cnn.onnx.export(flat, IMAGE, tmp_path / "m.onnx")
    assert kinds(tmp_path / "m.onnx") == ["Conv", "Reshape", "Gemm"]


def test_a_file_is_read_without_needless_transpositions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)
    model = nn.Sequential(*body, nn.Flatten(), nn.Linear(36, 5))
    cnn.onnx.export(model, IMAGE, tmp_path / "m.onnx")
    again = cnn.onnx.load(tmp_path / "m.onnx")
    monkeypatch.setattr("cnnengine.onnx.network.F.permute", None)  # nothing is moved, the flatten of H, W, C included
    again(cnn.Tensor(batch_of(IMAGE, 2)))


# ---- modes, weights, training


def test_a_model_stays_as_it_was(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.Dropout(0.5))
    model[0].eval()
    before = {name: t.numpy().copy() for name, t in model.state_dict().items()}
    cnn.onnx.export(model, IMAGE, tmp_path / "m.onnx")
    assert [m.training for m in model] == [False, True, True]
    for name, t in model.state_dict().items():
        np.testing.assert_array_equal(t.numpy(), before[name])


def test_a_frozen_model_is_exported(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU()).freeze()
    x = batch_of(IMAGE, 2)
    model(cnn.Tensor(x))  # which packs its weight
    cnn.onnx.export(model, IMAGE, tmp_path / "m.onnx")
    assert [i.name for i in onnx.load(tmp_path / "m.onnx").graph.initializer] == ["0.weight", "0.bias"]
    close([turned(y) for y in results(model, x)], run(tmp_path / "m.onnx", turned(x)))


def test_weights_have_their_names_and_can_be_trained(tmp_path: Path) -> None:
    model = nn.Sequential({"stem": nn.Conv2d(4, 6, 3), "norm": nn.BatchNorm2d(6), "pool": nn.GlobalAvgPool2d()})
    head = nn.Sequential({"body": model, "head": nn.Linear(6, 3)})
    cnn.onnx.export(head, IMAGE, tmp_path / "m.onnx")
    again = cnn.onnx.load(tmp_path / "m.onnx")
    own = head.state_dict()
    assert {name: t.shape for name, t in again.state_dict().items()} == {
        name: t.shape for name, t in own.items() if "num_batches" not in name
    }
    for name, t in again.state_dict().items():
        np.testing.assert_array_equal(t.numpy(), own[name].numpy())
    assert [name for name, _ in again.named_buffers()] == ["body.norm.running_mean", "body.norm.running_var"]
    x, labels = cnn.Tensor(batch_of(IMAGE, 8)), np.arange(8) % 3
    for network in (head, again):
        network.train()
        optimizer = cnn.optim.SGD(network.parameters(), lr=0.1)
        F.cross_entropy(network(x), labels).backward()
        optimizer.step()
    for name, t in again.state_dict().items():
        np.testing.assert_allclose(t.numpy(), own[name].numpy(), rtol=1e-5, atol=1e-6, err_msg=name)
    assert not np.allclose(again.state_dict()["body.norm.running_mean"].numpy(), 0)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "mobilevit_s"])
def test_whole_networks(tmp_path: Path, name: str) -> None:
    model = cnn.models.create(name, num_classes=10).eval()
    rng = np.random.default_rng(3)
    for buffer, tensor in model.named_buffers():  # statistics other than those of a network that has seen nothing
        if buffer.endswith("running_mean"):
            tensor.data[...] = rng.normal(0, 0.1, tensor.shape)
        elif buffer.endswith("running_var"):
            tensor.data[...] = rng.uniform(0.5, 1.5, tensor.shape)
    path, x = tmp_path / "m.onnx", batch_of((1, 64, 64, 3), 2)
    cnn.onnx.export(model, (1, 64, 64, 3), path)
    again = cnn.onnx.load(path)
    ours = results(model, x)
    close(ours, run(path, turned(x)))
    close(ours, results(again, x))
    if name != "mobilevit_s":
        assert "Transpose" not in kinds(path)
    trained = {n for n, _ in model.named_parameters()}
    assert {n for n, _ in again.named_parameters()} == trained
    again.train()
    F.cross_entropy(again(cnn.Tensor(x)), np.array([1, 2])).backward()
    assert all(p.grad is not None and np.isfinite(p.grad.numpy()).all() for p in again.parameters())
