"""The layers of a network by name, and what is computed between them: feature maps, filters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from typing import Any, NamedTuple

import numpy as np

from ..autograd import no_grad
from ..nn import (
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    AvgPool2d,
    Conv2d,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    MaxPool2d,
    Module,
    RemovableHandle,
)
from ..tensor import Tensor
from ._network import on_device, one_image, undisturbed

GIVEN = ":in"  # behind a layer's name: not what it makes but what it is given
POOLS = (AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, GlobalAvgPool2d, GlobalMaxPool2d, MaxPool2d)
LISTED = 60  # names in an error; of more, those of the upper two levels
Hook = Callable[[Tensor], Tensor | None]


class Place(NamedTuple):
    """A place in a network where feature maps pass: its name, and their (P, Q, K)."""

    name: str
    shape: tuple[int, int, int]


def find(model: Module, name: str) -> Module:
    """The layer of that name, which may end in ":in". Raises ValueError with the valid names."""
    layers = {key: module for key, module in model.named_modules() if key}
    wanted = name.removesuffix(GIVEN)
    if wanted not in layers:
        near = get_close_matches(wanted, layers, 3)
        shown = list(layers) if len(layers) <= LISTED else [key for key in layers if key.count(".") < 2]
        text = f"; did you mean {' or '.join(near)}?" if near else "."
        below = "" if len(shown) == len(layers) else f", and {len(layers) - len(shown)} below these"
        raise ValueError(f"there is no layer {name!r}{text} There are {', '.join(shown)}{below}")
    return layers[wanted]


@contextmanager
def watching(model: Module, hooks: dict[str, Hook]) -> Iterator[None]:
    """Within the block each hook is called with the Tensor that passes at its place; what it returns replaces it.
    Raises ValueError for unknown names, and where something else than a Tensor passes."""
    found = [(name, find(model, name), hook) for name, hook in hooks.items()]
    with ExitStack() as stack:
        for name, module, hook in found:
            stack.enter_context(_attach(module, name, hook))
        yield


def _attach(module: Module, name: str, hook: Hook) -> RemovableHandle:
    def checked(value: Any) -> Tensor | None:
        if not isinstance(value, Tensor):
            raise ValueError(f"layer {name}: expected a Tensor to pass there, it is {type(value).__name__}")
        return hook(value)

    if name.endswith(GIVEN):

        def before(_: Module, inputs: tuple[Any, ...]) -> Any:
            changed = checked(inputs[0] if inputs else None)
            return None if changed is None else (changed, *inputs[1:])

        return module.register_forward_pre_hook(before)
    return module.register_forward_hook(lambda module, inputs, output: checked(output))


def feature_maps(model: Module, x: Any, layers: Sequence[str]) -> dict[str, np.ndarray]:
    """What passes at each of the named places for one image x (1, H, W, C): (P, Q, K) of a layer of pictures, (L, C) of
    one of tokens, (C,) of one of features.

    A name is a module's, as ``model.named_modules()`` has it; with ":in" behind it, what that module is given. Of a
    module that is called several times, the last. Raises ValueError for unknown names, listing the valid ones, and for
    layers that were not called.
    """
    image, caught = one_image("feature_maps", x), dict[str, np.ndarray]()

    def keep(name: str) -> Hook:
        return lambda value: caught.update({name: np.array(value.numpy()[0])})

    with undisturbed(model), watching(model, {name: keep(name) for name in layers}), no_grad():
        model(on_device(model, image))
    if missing := [name for name in layers if name not in caught]:
        raise ValueError(f"feature_maps: the network did not call {', '.join(missing)}")
    return {name: caught[name] for name in layers}


def filters(model: Module, layer: str | None = None) -> np.ndarray:
    """The weights (K, R, S, C/groups) of a Conv2d, by default the network's first. Raises ValueError for another layer,
    listing the convolutions."""
    known = {name: module for name, module in model.named_modules() if isinstance(module, Conv2d)}
    if layer is None and known:
        layer = next(iter(known))
    if layer not in known:
        names = ", ".join(known) or "none"
        raise ValueError(f"filters: {layer!r} is no convolution of this network; there are {names}")
    return np.array(known[layer].weight.numpy())


def places(model: Module, x: Any) -> list[Place]:
    """Where feature maps of more than one pixel pass for one image x (1, H, W, C), in the order of computing.

    Each has one name, that of the outermost module that makes it. What only functions have computed between two modules
    is named after the module that is given it, with ":in".
    """
    return _passing("places", model, x)[0]


def stages(model: Module, x: Any, *, of_modules: bool = False) -> list[str]:
    """Of each size of feature maps the last place: where a network is about to halve its picture. With ``of_modules``
    the last that a module makes, such as a norm's, whose activation only a function computes."""
    last: dict[tuple[int, int], str] = {}
    for place in places(model, x):
        if of_modules and place.name.endswith(GIVEN):
            continue
        last.pop(place.shape[:2], None)
        last[place.shape[:2]] = place.name
    return list(last.values())


def last_maps(model: Module, x: Any) -> str:
    """Where class activation maps are drawn from by default: what the last pooling is given, which in most networks
    are the last convolution's feature maps behind their activation; without a pooling the last place of all. Raises
    ValueError for a network without feature maps."""
    known, pooled = _passing("last_maps", model, x)
    if not known:
        raise ValueError("this network has no feature maps: none of its layers makes (N, P, Q, K) of several pixels")
    return pooled[-1] if pooled else known[-1].name


def _passing(what: str, model: Module, x: Any) -> tuple[list[Place], list[str]]:
    """All places, and the names of those that a pooling reads."""
    known: dict[int, Place] = {}
    pooled: list[int] = []
    held: list[Tensor] = []  # so that no two have the same id

    def note(name: str, module: Module, value: Any) -> None:
        if not isinstance(value, Tensor) or value.ndim != 4 or value.shape[1] * value.shape[2] == 1:
            return
        held.append(value)
        given = name.endswith(GIVEN)
        if given and isinstance(module, POOLS):
            pooled.append(id(value))
        if not given or id(value) not in known:
            known.pop(id(value), None)
            known[id(value)] = Place(name, (value.shape[1], value.shape[2], value.shape[3]))

    def before(name: str) -> Callable[[Module, tuple[Any, ...]], None]:
        return lambda module, inputs: note(name + GIVEN, module, inputs[0] if inputs else None)

    def behind(name: str) -> Callable[[Module, tuple[Any, ...], Any], None]:
        return lambda module, inputs, output: note(name, module, output)

    with undisturbed(model), ExitStack() as stack, no_grad():
        for name, module in model.named_modules():
            if name:
                stack.enter_context(module.register_forward_pre_hook(before(name)))
                stack.enter_context(module.register_forward_hook(behind(name)))
        start = on_device(model, one_image(what, x))
        model(start)
    known.pop(id(start), None)  # the image itself is no place
    return list(known.values()), [known[key].name for key in pooled if key in known]
