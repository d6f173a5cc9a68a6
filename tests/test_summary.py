"""The table of a model's layers, and the command that prints it."""

from __future__ import annotations

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import nn
from cnnengine.cli import main
from cnnengine.models.summary import Row, summary


class Attention(nn.Module):
    """Products that no layer below does: x (N, T, 4) -> softmax(x x^T) x through a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(np.zeros((1, 1, 4), np.float32))
        self.project = nn.Linear(4, 6, bias=False)

    def forward(self, x: cnn.Tensor) -> cnn.Tensor:
        scores = F.softmax(F.matmul(x, F.permute(x, (0, 2, 1))))
        return self.project(F.matmul(scores, x) + self.token)


def test_rows_and_totals() -> None:
    model = nn.Sequential({"conv": nn.Conv2d(3, 8, 3, 2, 1, groups=1), "act": nn.ReLU(), "head": nn.GlobalAvgPool2d()})
    table = summary(model, (2, 9, 9, 3))
    conv, act, head = table.rows
    assert conv == Row("conv", "Conv2d", (2, 5, 5, 8), 8 * 27 + 8, 2 * 25 * 8 * 27, 4 * 2 * 25 * 8)
    assert act == Row("act", "ReLU", (2, 5, 5, 8), 0, 0, 4 * 2 * 25 * 8)
    assert (head.output, head.macs, head.activations) == ((2, 8), 0, 4 * 16)
    assert (table.parameters, table.macs) == (224, 10_800)
    assert table.activations == sum(row.activations for row in table.rows)
    lines = str(table).splitlines()
    assert lines[0] == "Sequential (2, 9, 9, 3)"
    assert lines[3].split() == ["conv", "Conv2d", "(2,", "5,", "5,", "8)", "224", "10,800", "1.6", "kB"]
    assert lines[-3:] == [
        "parameters   224 (0.9 kB)",
        "MACs         10,800 (0.000 G)",
        f"activations  {table.activations / 1e3:.1f} kB",
    ]


def test_products_outside_layers_belong_to_the_module_that_makes_them() -> None:
    table = summary(Attention(), (2, 5, 4))
    assert [(row.name, row.kind, row.parameters, row.macs) for row in table.rows] == [
        ("", "Attention", 4, 2 * 2 * 5 * 5 * 4),
        ("project", "Linear", 24, 2 * 5 * 4 * 6),
    ]


def test_groups_count_less_and_shared_layers_each_time() -> None:
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False)
    table = summary(nn.Sequential(layer, layer), (1, 4, 4, 8))
    assert [(row.name, row.macs) for row in table.rows] == [("0", 2 * 16 * 8 * 9 * 2)]
    assert table.parameters == 8 * 9 * 2


def test_how_channels_are_summed_is_no_work() -> None:
    assert summary(nn.LocalResponseNorm(5), (1, 4, 4, 8)).macs == 0


def test_the_model_is_not_changed() -> None:
    model = cnn.models.lenet5()
    seen: list[str] = []
    model.conv1.register_forward_hook(lambda *_: seen.append("called"))
    before = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    table = summary(model, (1, 28, 28, 1))
    assert (table.parameters, table.macs) == (61_706, 416_520)
    assert model.training
    assert seen == []
    assert len(model.conv1._forward_hooks) == 1
    assert not model.conv2._forward_hooks
    for name, tensor in model.state_dict().items():
        assert (tensor.numpy() == before[name]).all()
    with cnn.no_grad():
        model.freeze()(cnn.Tensor(np.zeros((1, 28, 28, 1), np.float32)))
    assert summary(model, (1, 28, 28, 1)).macs == table.macs


def test_a_shape_that_does_not_fit_raises() -> None:
    with pytest.raises(ValueError, match="conv2d"):
        summary(cnn.models.lenet5(), (1, 28, 28, 3))


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", "resnet20", "--batch", "2", "--classes", "100"]) == 0
    out = capsys.readouterr().out
    assert "CifarResNet (2, 32, 32, 3)" in out
    assert f"parameters   {269_722 + 90 * 65:,} (" in out
    assert f"MACs         {2 * (40_551_040 + 90 * 64):,} (0.081 G)" in out
    assert main(["summary", "lenet5", "--image", "32,32,1"]) == 2
    assert "lenet5 does not take images (32, 32, 1): linear" in capsys.readouterr().err
    assert main(["summary", "lenet5", "--image", "32,32"]) == 2
    assert "expected three numbers H,W,C, received '32,32'" in capsys.readouterr().err
    assert main(["summary", "lenet5", "--batch", "0"]) == 2
    assert "must be at least 1, received 0" in capsys.readouterr().err
