"""``cnnengine explain``: pictures of what a network sees in an image, and of what decides."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import explain as explaining
from ..autograd import no_grad
from ..backends.registry import NAMES, use_backend
from ..data.dataset import normalize
from ..errors import Unsupported
from ..explain import figures
from ..functional import softmax
from ..tensor import Tensor
from ..training.predict import Classifier
from .common import UsageError, default_backend, positive
from .predict import trained

SHEETS = ("feature_maps", "filters", "activation_maximisation")  # what draws other pictures than one map
ALL = "all"
DISPLACED = 5  # random places of a map that it is compared with
COMPLETE, STEPS = "integrated_gradients", 64


def add(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "explain",
        help="draw what a network sees in an image, and what decides",
        description="Draws which parts of an image speak for a class, by one of many methods or all of them; or the"
        " feature maps of the layers, their filters, and images that their units answer to most. Writes a picture.",
    )
    parser.set_defaults(run=_explain)
    parser.add_argument("model", metavar="MODEL", help="a run folder, a .safetensors file of one, or a network's name")
    parser.add_argument("image", metavar="IMAGE", help="an image in a format Pillow reads")
    methods = (*explaining.METHODS, *SHEETS, ALL)
    parser.add_argument(
        "--method", choices=methods, default="grad_cam", metavar="M", help=f"{', '.join(methods)} (default: grad_cam)"
    )
    parser.add_argument(
        "--weights", metavar="FILE", help="of the network that MODEL names: .safetensors, or PyTorch's .pth"
    )
    parser.add_argument("--target", metavar="CLASS", help="its number or its name (default: the likeliest)")
    parser.add_argument(
        "--layer",
        action="append",
        metavar="NAME",
        help="of class activation maps, feature maps, filters and activation maximisation; with :in behind the name,"
        " what the layer is given; of the sheets several (default: the last feature maps, or a row for each size)",
    )
    parser.add_argument("--layers", action="store_true", help="list the layers with feature maps, and draw nothing")
    parser.add_argument(
        "--unit", action="append", type=int, metavar="N", help="of activation maximisation (default: the most active)"
    )
    parser.add_argument(
        "--steps",
        type=positive,
        metavar="N",
        help="of activation maximisation (default: 128) and integrated gradients (default: 64)",
    )
    parser.add_argument(
        "--channels", type=positive, metavar="N", help="of score_cam: the strongest N maps alone (default: all)"
    )
    parser.add_argument(
        "--measure", action="store_true", help="print the areas under the deletion and insertion curves"
    )
    parser.add_argument("--output", metavar="FILE", help="the picture (default: IMAGE-METHOD.png, in this folder)")
    parser.add_argument("--backend", choices=NAMES, help="default: the fastest that is here")


def _explain(arguments: argparse.Namespace) -> int:
    output = _output(arguments)
    with use_backend(arguments.backend or default_backend()) as kernels:
        classifier = trained(arguments.model, arguments.weights)
        classifier.model.to(kernels.device)
        picture = classifier.read(arguments.image)
        x = normalize(picture[np.newaxis], classifier.mean, classifier.std)
        try:
            if arguments.layers:
                for name, (P, Q, K) in explaining.places(classifier.model, x):
                    print(f"{P:4} x {Q:<4}{K:5} maps  {name}")
                return 0
            if arguments.method in SHEETS:
                page = _sheet(arguments, classifier, x)
            else:
                page = _maps(arguments, classifier, picture, x)
        except ValueError as error:
            raise UsageError(str(error)) from error
    page.save(output)
    print(f"written to {output}")
    return 0


def _output(arguments: argparse.Namespace) -> Path:
    """Where the picture goes. Raises UsageError for what Pillow cannot write, before anything is computed."""
    path = Path(arguments.output or f"{Path(arguments.image).stem}-{arguments.method}.png")
    format_ = Image.registered_extensions().get(path.suffix.lower())
    if format_ not in Image.SAVE:
        raise UsageError(f"--output: expected the name of a picture such as .png or .jpg, received {str(path)!r}")
    if not path.parent.is_dir():
        raise UsageError(f"--output: there is no folder {str(path.parent)!r}")
    return path


def _sheet(arguments: argparse.Namespace, classifier: Classifier, x: np.ndarray) -> Image.Image:
    model, layers = classifier.model, arguments.layer
    if arguments.method == "filters":
        if layers is not None and len(layers) > 1:
            raise UsageError(f"--layer: filters are drawn of one layer, received {', '.join(layers)}")
        return figures.filter_sheet(model, layers[0] if layers else None)
    if arguments.method == "feature_maps":
        return figures.hierarchy(model, x, layers)
    return figures.what_units_look_for(
        model,
        x,
        layers,
        units=arguments.unit,
        mean=classifier.mean,
        std=classifier.std,
        steps=arguments.steps or 128,
    )


def _maps(arguments: argparse.Namespace, classifier: Classifier, picture: np.ndarray, x: np.ndarray) -> Image.Image:
    """Explains the class by one method or all, prints what was found, and draws it."""
    target, probability = _target(arguments.target, classifier, x)
    name = classifier.classes[target]
    print(f"{arguments.image}: {100 * probability:.1f} %  {target}  {name}")
    layer = _one_layer(arguments.layer)
    every = arguments.method == ALL
    maps: dict[str, np.ndarray] = {}
    for method in explaining.METHODS if every else [arguments.method]:
        options: dict[str, Any] = {}
        if explaining.METHODS[method].takes_layer:
            options["layer"] = layer
        elif layer is not None and not every:
            raise UsageError(f"--layer: {method} looks at no single layer")
        if method == "score_cam":
            options["channels"] = arguments.channels
        if method == COMPLETE:
            options["steps"] = arguments.steps or STEPS
        try:
            maps[method] = explaining.explain(classifier.model, x, method, target, **options)
        except Unsupported as error:
            if not every:
                raise
            print(f"  left out: {error}")
    if arguments.measure:
        _measure(classifier, x, target, maps, arguments.steps or STEPS)
    heading = f"{Path(arguments.image).name}: {100 * probability:.1f} % {name}"
    return figures.explained(picture, maps, heading if every else f"{heading}; {arguments.method}")


def _one_layer(layers: Sequence[str] | None) -> str | None:
    if layers is not None and len(layers) > 1:
        raise UsageError(f"--layer: a map is drawn from one layer, received {', '.join(layers)}")
    return layers[0] if layers else None


def _target(text: str | None, classifier: Classifier, x: np.ndarray) -> tuple[int, float]:
    """The class that is meant, and its probability. Raises UsageError."""
    device = next(classifier.model.parameters()).device
    with no_grad():
        probability = softmax(classifier.model(Tensor(x).to(device))).numpy()[0]
    names = list(classifier.classes)
    if text is None:
        target = int(probability.argmax())
    elif text in names:
        target = names.index(text)
    elif text.isdecimal() and int(text) < len(names):
        target = int(text)
    else:
        near = [name for name in names if text.lower() in name.lower()][:3]
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise UsageError(f"--target: expected a class's name or a number below {len(names)}, received {text!r}{hint}")
    return target, float(probability[target])


def _measure(classifier: Classifier, x: np.ndarray, target: int, maps: dict[str, np.ndarray], steps: int) -> None:
    """Prints how faithful the maps are: areas under the curves, and what the same maps at random places reach."""
    print(f"{'':24}deletion (displaced)   insertion (displaced)   areas: of deletion low is good, of insertion high")
    for method, heat in maps.items():
        others = [explaining.displaced(heat, seed) for seed in range(DISPLACED)]
        cells = []
        for curve in (explaining.deletion, explaining.insertion):
            own, *rest = (explaining.area(curve(classifier.model, x, map_, target)) for map_ in (heat, *others))
            cells.append(f"{own:8.3f} ({np.mean(rest):9.3f})")
        print(f"  {method:22}" + "    ".join(cells))
    if COMPLETE in maps:
        attributions = explaining.integrated_gradients(classifier.model, x, target, steps=steps)
        total, difference = explaining.completeness(classifier.model, x, attributions, target)
        print(f"{COMPLETE} adds up to {total:.3f}, the logit differs from an empty image's by {difference:.3f}")
