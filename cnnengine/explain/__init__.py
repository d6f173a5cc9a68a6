"""What a network sees, and what of it decides: feature maps, filters, maps of importance, and how far to trust them."""

from .cam import grad_cam, grad_cam_plus_plus, resized, score_cam
from .faithfulness import area, deletion, displaced, insertion
from .gradients import completeness, guided_backprop, heat, integrated_gradients, saliency, smooth_grad
from .layers import Place, feature_maps, filters, last_maps, places, stages
from .maximise import activation_maximisation
from .methods import METHODS, explain
from .occlusion import occlusion
from .pictures import coloured, overlay, scaled, signed
from .rollout import attention_rollout
from .sanity import cascading_randomisation, rank_correlation
from .sheet import Row, sheet

__all__ = [
    "METHODS",
    "Place",
    "Row",
    "activation_maximisation",
    "area",
    "attention_rollout",
    "cascading_randomisation",
    "coloured",
    "completeness",
    "deletion",
    "displaced",
    "explain",
    "feature_maps",
    "filters",
    "grad_cam",
    "grad_cam_plus_plus",
    "guided_backprop",
    "heat",
    "insertion",
    "integrated_gradients",
    "last_maps",
    "occlusion",
    "overlay",
    "places",
    "rank_correlation",
    "resized",
    "saliency",
    "scaled",
    "score_cam",
    "sheet",
    "signed",
    "smooth_grad",
    "stages",
]
