"""Attention rollout: how far each patch of the image flows into what a network with attention reads in the end."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional as F
from ..autograd import no_grad
from ..errors import Unsupported
from ..nn import Module
from ._network import on_device, one_image, undisturbed


def attention_rollout(model: Module, x: Any) -> np.ndarray:
    """(P, Q), which adds up to 1: the share of each token in the result, from the last attention back to the first.

    Heads are averaged, and half of a block is its shortcut: r becomes r (A + I) / 2, A the softmax. With a class token
    r begins there; what it takes of itself at the first block belongs to no place and is left out. Without one, where
    the mean over the image is read, r begins equal. Where attention works on several sizes of the picture, as in
    CoAtNet and MobileViT, a token's share is spread evenly over those it was pooled from, and where it works apart on
    every second row and column, MobileViT's patches, each part goes its own way. It is the same for all classes. Raises
    Unsupported for a network without attention and where the tokens are no grid of the image's shape. Abnar and
    Zuidema, "Quantifying attention flow in transformers", arXiv 2005.00928, section 3; the ways through pooling are
    ours.
    """
    image = one_image("attention_rollout", x)
    with undisturbed(model), F.attention_weights() as found, no_grad():
        model(on_device(model, image))
    if not found:
        raise Unsupported("attention_rollout: this network has no attention whose weights could be rolled out")
    weights = [w.numpy().astype(np.float64).mean(1) for w in found]  # (parts, L, L)
    size = (image.shape[1], image.shape[2])
    sides = [grid(len(w), (w.shape[1], w.shape[2]), size) for w in weights]
    if sides[-1][2]:
        return _from_class_token(weights, sides)
    rows, columns, _ = sides[-1]
    share = np.full((rows, columns), 1 / (rows * columns))
    for w, (rows, columns, first) in zip(reversed(weights), reversed(sides), strict=True):
        if first:
            raise Unsupported("attention_rollout: a class token before blocks that have none")
        share = spread(share, (rows, columns))
        parts = by_place(share, len(w))  # (parts, L)
        parts = (np.einsum("pl,plm->pm", parts, w) + parts) / 2
        share = from_places(parts, (rows, columns))
    return share


def _from_class_token(weights: list[np.ndarray], sides: list[tuple[int, int, bool]]) -> np.ndarray:
    if len({w.shape for w in weights}) > 1:
        raise Unsupported("attention_rollout: a class token behind blocks of other tokens")
    share = np.zeros(weights[-1].shape[1])
    share[0] = 1
    for w in reversed(weights):
        share = (share @ w[0] + share) / 2
    rows, columns, _ = sides[0]
    places: np.ndarray = share[1:] / share[1:].sum()
    return places.reshape(rows, columns)


def grid(parts: int, scores: tuple[int, int], image: tuple[int, int]) -> tuple[int, int, bool]:
    """(rows, columns, whether a class token comes first) of the tokens of ``parts`` attentions (L, L) that lie apart,
    in the proportion of an image (H, W). Raises Unsupported."""
    apart, (height, width) = round(parts**0.5), image
    if apart * apart == parts and scores[0] == scores[1]:
        for first in (False, True) if parts == 1 else (False,):
            tokens = scores[0] - first
            rows = round((tokens * height / width) ** 0.5)
            if rows and tokens % rows == 0 and rows * width == tokens // rows * height:
                return rows * apart, tokens // rows * apart, first
    raise Unsupported(
        f"attention_rollout: {parts} attentions among {scores[1]} tokens are no grid over an image of"
        f" {image[0]} x {image[1]}"
    )


def spread(share: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Each token's share in equal parts over the tokens of a finer grid that it was pooled from. Raises Unsupported
    where that is no multiple."""
    rows, columns = size[0] // share.shape[0], size[1] // share.shape[1]
    if (share.shape[0] * rows, share.shape[1] * columns) != size:
        raise Unsupported(f"attention_rollout: tokens {size} that are pooled to {share.shape}, which does not divide")
    return np.kron(share, np.full((rows, columns), 1 / (rows * columns)))


def by_place(share: np.ndarray, parts: int) -> np.ndarray:
    """(rows, columns) as (parts, L): the tokens that have the same place in their patch."""
    apart, (rows, columns) = round(parts**0.5), share.shape
    split = share.reshape(rows // apart, apart, columns // apart, apart)
    return split.transpose(1, 3, 0, 2).reshape(parts, -1)


def from_places(parts: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """``by_place`` undone"""
    apart = round(len(parts) ** 0.5)
    split = parts.reshape(apart, apart, size[0] // apart, size[1] // apart)
    return split.transpose(2, 0, 3, 1).reshape(size)
