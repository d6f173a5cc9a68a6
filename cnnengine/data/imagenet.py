"""ImageNet's classes."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def imagenet_classes() -> tuple[str, ...]:
    """The names of the 1,000 classes in the order of a network's outputs, each with its synonyms, as WordNet's."""
    lines = (Path(__file__).parent / "imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if not line.startswith("#"))
