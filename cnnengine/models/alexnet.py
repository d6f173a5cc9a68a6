"""AlexNet: the network of the 2012 paper, and the one-tower variant that torchvision has weights for.

Krizhevsky, Sutskever, Hinton: ImageNet classification with deep convolutional neural networks, NIPS 2012. One tower:
Krizhevsky, One weird trick for parallelizing convolutional neural networks, arXiv 1404.5997.
"""

from __future__ import annotations

from .. import nn
from .registry import register


@register(image=(224, 224, 3))
def alexnet(num_classes: int = 1000, *, dropout: float = 0.5) -> nn.Sequential:
    """Images (N, H, W, 3), 63 pixels and more -> logits (N, num_classes); 61,100,840 parameters for 1000 classes.

    The one-tower variant, with torchvision's names: its checkpoints load by ``cnn.load_torch``.
    """
    features = nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),  # (N, 224, 224, 3) -> (N, 55, 55, 64)
        nn.ReLU(),
        nn.MaxPool2d(3, 2),  # (N, 27, 27, 64)
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),  # (N, 13, 13, 192)
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),  # (N, 6, 6, 256)
    )
    classifier = nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(256 * 6 * 6, 4096),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Linear(4096, num_classes),
    )
    return nn.Sequential(
        {
            "features": features,
            "avgpool": nn.AdaptiveAvgPool2d(6),
            "flatten": nn.Flatten("CHW"),  # as the published weights of the first linear layer were trained
            "classifier": classifier,
        }
    )
