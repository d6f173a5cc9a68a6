"""LeNet-5 in the form that is trained today: ReLU and max-pooling where the paper has tanh and averages.

LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition, Proc. IEEE 86 (1998).
"""

from __future__ import annotations

from .. import nn
from .registry import register


@register(image=(28, 28, 1))
def lenet5(num_classes: int = 10, *, flatten: str = "HWC") -> nn.Sequential:
    """Images (N, 28, 28, 1) -> logits (N, num_classes); 61,706 parameters for 10 classes.

    ``flatten`` is the order behind the last pooling: "CHW" takes weights that PyTorch trained (see ``nn.Flatten``).
    """
    return nn.Sequential(
        {
            "conv1": nn.Conv2d(1, 6, 5, padding=2),  # (N, 28, 28, 1) -> (N, 28, 28, 6)
            "relu1": nn.ReLU(),
            "pool1": nn.MaxPool2d(2),  # (N, 14, 14, 6)
            "conv2": nn.Conv2d(6, 16, 5),  # (N, 10, 10, 16)
            "relu2": nn.ReLU(),
            "pool2": nn.MaxPool2d(2),  # (N, 5, 5, 16)
            "flatten": nn.Flatten(flatten),  # (N, 400)
            "linear1": nn.Linear(400, 120),
            "relu3": nn.ReLU(),
            "linear2": nn.Linear(120, 84),
            "relu4": nn.ReLU(),
            "linear3": nn.Linear(84, num_classes),
        }
    )
