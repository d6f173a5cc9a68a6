"""The networks by name: who builds each, and what images it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ..data.preprocessing import Preprocessing, default_preprocessing
from ..nn import Module

Builder = TypeVar("Builder", bound=Callable[..., Module])


@dataclass(frozen=True, slots=True)
class Entry:
    """A network: ``build(num_classes=..., **options)``, the (H, W, C) of the images it was designed for, and how a
    photograph becomes one; None for networks that do not take colour."""

    build: Callable[..., Module]
    image: tuple[int, int, int]
    preprocessing: Preprocessing | None


ENTRIES: dict[str, Entry] = {}


def register(
    image: tuple[int, int, int] = (224, 224, 3), preprocessing: Preprocessing | None = None
) -> Callable[[Builder], Builder]:
    """Decorates a builder: the network is then known by the function's name. Without ``preprocessing`` photographs are
    prepared as is usual for ImageNet."""
    if preprocessing is None and image[2] == 3:
        preprocessing = default_preprocessing(image)

    def decorate(build: Builder) -> Builder:
        name = build.__name__
        assert name not in ENTRIES, name
        ENTRIES[name] = Entry(build, image, preprocessing)
        return build

    return decorate


def names() -> tuple[str, ...]:
    """The names ``create`` knows."""
    return tuple(ENTRIES)


def entry(name: str) -> Entry:
    """The network of that name. Raises ValueError, listing the known ones."""
    if name not in ENTRIES:
        raise ValueError(f"there is no model {name!r}; there are {', '.join(sorted(ENTRIES))}")
    return ENTRIES[name]


def create(name: str, **options: Any) -> Module:
    """``create("resnet50", num_classes=10)`` is ``resnet50(num_classes=10)``, freshly initialised.

    Raises ValueError for a name that is not among ``names()``.
    """
    return entry(name).build(**options)
