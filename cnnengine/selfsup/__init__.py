"""Learning without labels: SimCLR, rotation prediction, a masked autoencoder; and how good what they learn is."""

from .encoder import encoder, features, headless
from .label_curves import Curves, curves
from .losses import normalized, nt_xent
from .masked import MaskedAutoencoder, PatchEncoder
from .pretraining import METHODS, Pretraining, make_task, pretrain
from .probe import k_nearest, labelled_share, linear_probe
from .tasks import Rotation, SimCLR, Task
from .views import TwoViews

__all__ = [
    "METHODS",
    "Curves",
    "MaskedAutoencoder",
    "PatchEncoder",
    "Pretraining",
    "Rotation",
    "SimCLR",
    "Task",
    "TwoViews",
    "curves",
    "encoder",
    "features",
    "headless",
    "k_nearest",
    "labelled_share",
    "linear_probe",
    "make_task",
    "normalized",
    "nt_xent",
    "pretrain",
]
