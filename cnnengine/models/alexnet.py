"""AlexNet: the network of the 2012 paper, and the one-tower variant that torchvision has weights for.

Krizhevsky, Sutskever, Hinton: ImageNet classification with deep convolutional neural networks, NIPS 2012. One tower:
Krizhevsky, One weird trick for parallelizing convolutional neural networks, arXiv 1404.5997.
"""

from __future__ import annotations

from .. import nn
from ..nn import init
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


@register(image=(227, 227, 3))
def alexnet_2012(num_classes: int = 1000, *, dropout: float = 0.5) -> nn.Sequential:
    """Images (N, 227, 227, 3) -> logits (N, num_classes); 60,965,224 parameters for 1000 classes.

    The network of the paper's figure 2: local response normalisation, and two groups where its two GPUs saw only their
    own halves. The paper says 224, which its first layer's 55 x 55 results do not fit. Weights and biases start as in
    its section 5.
    """
    model = nn.Sequential(
        {
            "conv1": nn.Conv2d(3, 96, 11, stride=4),  # (N, 227, 227, 3) -> (N, 55, 55, 96)
            "relu1": nn.ReLU(),
            "norm1": _response_norm(),
            "pool1": nn.MaxPool2d(3, 2),  # (N, 27, 27, 96)
            "conv2": nn.Conv2d(96, 256, 5, padding=2, groups=2),
            "relu2": nn.ReLU(),
            "norm2": _response_norm(),
            "pool2": nn.MaxPool2d(3, 2),  # (N, 13, 13, 256)
            "conv3": nn.Conv2d(256, 384, 3, padding=1),
            "relu3": nn.ReLU(),
            "conv4": nn.Conv2d(384, 384, 3, padding=1, groups=2),
            "relu4": nn.ReLU(),
            "conv5": nn.Conv2d(384, 256, 3, padding=1, groups=2),
            "relu5": nn.ReLU(),
            "pool5": nn.MaxPool2d(3, 2),  # (N, 6, 6, 256)
            "flatten": nn.Flatten("CHW"),
            "fc6": nn.Linear(256 * 6 * 6, 4096),
            "relu6": nn.ReLU(),
            "drop6": nn.Dropout(dropout),
            "fc7": nn.Linear(4096, 4096),
            "relu7": nn.ReLU(),
            "drop7": nn.Dropout(dropout),
            "fc8": nn.Linear(4096, num_classes),
        }
    )
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight = init.normal(layer.weight.shape, 0.01)
            positive = name in ("conv2", "conv4", "conv5", "fc6", "fc7")  # gives ReLUs something to begin with
            layer.bias = (init.ones if positive else init.zeros)(layer.bias.shape)
    return model


def _response_norm() -> nn.LocalResponseNorm:
    """Section 3.3's, n = 5, k = 2, beta = 0.75, alpha = 1e-4 for each of the 5 terms that the layer's own divides by"""
    return nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)
