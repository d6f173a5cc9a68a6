"""Networks, built from ``nn``."""

from .alexnet import alexnet, alexnet_2012
from .cifar_resnet import resnet20, resnet56
from .lenet1 import lenet1
from .lenet5 import lenet5
from .registry import create, names
from .resnet import resnet18, resnet34, resnet50, resnet101, resnet152
from .summary import summary
from .vgg import vgg11, vgg11_bn, vgg13, vgg13_bn, vgg16, vgg16_bn, vgg19, vgg19_bn

__all__ = [
    "alexnet",
    "alexnet_2012",
    "create",
    "lenet1",
    "lenet5",
    "names",
    "resnet18",
    "resnet20",
    "resnet34",
    "resnet50",
    "resnet56",
    "resnet101",
    "resnet152",
    "summary",
    "vgg11",
    "vgg11_bn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
]
