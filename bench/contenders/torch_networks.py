"""The networks in plain PyTorch, with our weights: what ours are raced against, and what is exported for the others."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

# network -> where it is defined for the tests: the module, and how it is built there for images of a side
KNOWN: dict[str, tuple[str, Callable[[Any, int], Any]]] = {
    "alexnet": ("alexnet", lambda module, side: module.AlexNet()),
    "coatnet_0": ("coatnet", lambda module, side: module.CoAtNet(False, image_size=side)),
    "efficientnet_b0": ("mobile", lambda module, side: module.EfficientNet("efficientnet_b0")),
    "efficientnet_lite0": ("mobile", lambda module, side: module.EfficientNetLite("efficientnet_lite0")),
    "mobilenet_v2": ("mobile", lambda module, side: module.MobileNetV2()),
    "mobilevit_s": ("mobilevit", lambda module, side: module.MobileViT()),
    "resnet18": ("resnet", lambda module, side: module.ResNet("resnet18")),
    "resnet20": ("resnet", lambda module, side: module.CifarResNet(3)),
    "resnet50": ("resnet", lambda module, side: module.ResNet("resnet50")),
    "vgg16": ("vgg", lambda module, side: module.VGG("vgg16")),
    "vit_tiny": ("vit", lambda module, side: module.VisionTransformer(192, 3, image_size=side)),
}


def reference(name: str, ours: Any, side: int) -> Any:
    """The network ``name`` for images of that side as a ``torch.nn.Module`` with the weights of ours, whose names are
    the same, made quick."""
    from .torch_quick import quick

    if name == "lenet5":
        made = lenet5()
    else:
        module, build = KNOWN[name]
        made = build(import_module(f"tests.torch_models.{module}"), side)
    made.load_state_dict(state_of(ours))
    return quick(made)


def state_of(ours: Any) -> dict[str, Any]:
    """Our ``state_dict`` as PyTorch lays it out: convolution weights (K, C, R, S)."""
    import torch

    state = {}
    for name, tensor in ours.state_dict().items():
        array = tensor.numpy()
        state[name] = torch.from_numpy(np.array(array.transpose(0, 3, 1, 2) if array.ndim == 4 else array))
    return state


def lenet5() -> Any:
    from torch import nn

    layers = {
        "conv1": nn.Conv2d(1, 6, 5, padding=2),
        "relu1": nn.ReLU(),
        "pool1": nn.MaxPool2d(2),
        "conv2": nn.Conv2d(6, 16, 5),
        "relu2": nn.ReLU(),
        "pool2": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "linear1": nn.Linear(400, 120),
        "relu3": nn.ReLU(),
        "linear2": nn.Linear(120, 84),
        "relu4": nn.ReLU(),
        "linear3": nn.Linear(84, 10),
    }
    model = nn.Sequential()
    for name, layer in layers.items():
        model.add_module(name, layer)
    return model


def exported(model: Any, images: Any) -> bytes:
    """The network as an ONNX file: "x" (N, C, H, W) -> "y" (N, classes), by the exporter that needs no onnxscript."""
    import torch

    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter is the older of two, and that sizes become constants
        torch.onnx.export(model.eval(), (images,), file, dynamo=False, input_names=["x"], output_names=["y"])
    return file.getvalue()
