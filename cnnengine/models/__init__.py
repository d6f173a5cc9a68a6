"""Networks, built from ``nn``."""

from .alexnet import alexnet, alexnet_2012
from .cifar_resnet import resnet20, resnet56
from .coatnet import coatnet_0, coatnet_0_rw
from .efficientnet import (
    efficientnet_b0,
    efficientnet_b1,
    efficientnet_b2,
    efficientnet_b3,
    efficientnet_b4,
    efficientnet_b5,
    efficientnet_b6,
    efficientnet_b7,
)
from .efficientnet_lite import (
    efficientnet_lite0,
    efficientnet_lite1,
    efficientnet_lite2,
    efficientnet_lite3,
    efficientnet_lite4,
)
from .lenet1 import lenet1
from .lenet5 import lenet5
from .mobilenet import mobilenet_v2
from .mobilevit import mobilevit_s
from .registry import create, names
from .resnet import resnet18, resnet34, resnet50, resnet101, resnet152
from .summary import summary
from .vgg import vgg11, vgg11_bn, vgg13, vgg13_bn, vgg16, vgg16_bn, vgg19, vgg19_bn
from .vit import vit_base, vit_small, vit_tiny

__all__ = [
    "alexnet",
    "alexnet_2012",
    "coatnet_0",
    "coatnet_0_rw",
    "create",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "efficientnet_b4",
    "efficientnet_b5",
    "efficientnet_b6",
    "efficientnet_b7",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "efficientnet_lite3",
    "efficientnet_lite4",
    "lenet1",
    "lenet5",
    "mobilenet_v2",
    "mobilevit_s",
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
    "vit_base",
    "vit_small",
    "vit_tiny",
]
