"""Nodes that together are one function here: GELU by the error function, and x * sigmoid(x)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import sqrt

import numpy as np

from .network import Node
from .read_arrays import computed


def simplified(nodes: list[Node], constants: Mapping[str, np.ndarray], outputs: Iterable[str]) -> list[Node]:
    """The nodes with one in place of each group; those whose results are then unused are still there."""
    graph = _Graph(nodes, constants)
    made: dict[str, Node] = {}  # by what it makes
    for node in nodes:
        found = graph.gelu(node) if node.kind == "Erf" else graph.silu(node) if node.kind == "Sigmoid" else None
        if found is not None:
            kind, source, last = found
            function = computed(kind)
            assert function is not None
            made[last.outputs[0]] = replace(last, kind=kind, function=function, inputs=(source,), attributes={})
    return [made.get(node.outputs[0], node) for node in nodes]


class _Graph:
    def __init__(self, nodes: list[Node], constants: Mapping[str, np.ndarray]) -> None:
        self.constants = constants
        self.makers = {name: node for node in nodes for name in node.outputs}
        self.users: dict[str, list[Node]] = defaultdict(list)
        for node in nodes:
            for name in node.inputs:
                self.users[name].append(node)

    def number(self, name: str) -> float | None:
        """The only element of a constant."""
        value = self.constants.get(name)
        return float(value.reshape(())) if value is not None and value.size == 1 else None

    def with_number(self, node: Node | None, kinds: dict[str, float]) -> str | None:
        """The other operand of a node that is (kind: value) with a constant of that value."""
        if node is None or node.kind not in kinds or len(node.inputs) != 2:
            return None
        a, b = node.inputs
        for other, name in ((a, b), (b, a)) if node.kind != "Div" else ((a, b),):
            value = self.number(name)
            if value is not None and abs(value - kinds[node.kind]) < 1e-4 * abs(kinds[node.kind]):
                return other
        return None

    def only_user(self, name: str) -> Node | None:
        users = self.users[name]
        return users[0] if len(users) == 1 else None

    def silu(self, sigmoid: Node) -> tuple[str, str, Node] | None:
        """x * sigmoid(x)"""
        product = self.only_user(sigmoid.outputs[0])
        if product is None or product.kind != "Mul" or sigmoid.inputs[0] not in product.inputs:
            return None
        return "Silu", sigmoid.inputs[0], product

    def gelu(self, erf: Node) -> tuple[str, str, Node] | None:
        """x * (1 + erf(x / sqrt(2))) * 0.5, the factors in any order"""
        source = self.with_number(self.makers.get(erf.inputs[0]), {"Div": sqrt(2), "Mul": 1 / sqrt(2)})
        plus = self.only_user(erf.outputs[0])
        if source is None or self.with_number(plus, {"Add": 1.0}) is None or plus is None:
            return None
        first = self.only_user(plus.outputs[0])
        if first is None or first.kind != "Mul":
            return None
        other = next((name for name in first.inputs if name != plus.outputs[0]), "")
        half = {"Mul": 0.5, "Div": 2.0}
        if self.with_number(self.makers.get(other), half) == source:
            return "Gelu", source, first
        second = self.only_user(first.outputs[0])
        if second is None:
            return None
        if other == source and self.with_number(second, half) == first.outputs[0]:
            return "Gelu", source, second
        if self.with_number(first, half) == plus.outputs[0] and second.kind == "Mul" and source in second.inputs:
            return "Gelu", source, second
        return None
