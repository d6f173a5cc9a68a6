"""What a network learns by where there are no labels: two views of a picture belong together."""

from __future__ import annotations

import numpy as np

from .. import functional as F
from ..functional.binary import sqrt
from ..tensor import Tensor

FAR = -1e9  # beside similarities in [-1, 1] / temperature: no probability is left
SMALL = 1e-12  # what is added to a squared length, so that 0 can be divided by it


def normalized(x: Tensor) -> Tensor:
    """Rows (N, D) scaled to length 1; a row of zeros stays one."""
    return x / sqrt((x * x).sum(axis=1, keepdims=True) + SMALL)


def nt_xent(z: Tensor, temperature: float = 0.5) -> Tensor:
    """The normalised temperature-scaled cross-entropy of z (2N, D), whose rows i and N + i are views of one picture.

    For each row, a softmax over its cosine similarity to all others but itself, divided by the temperature: the
    loss is -log of the share that its partner has, the mean over the 2N rows. Raises ValueError for an odd number of
    rows, fewer than 4, and a temperature that is not above 0.
    Chen, Kornblith, Norouzi, Hinton: A simple framework for contrastive learning of visual representations (SimCLR),
    ICML 2020, equation 1.
    """
    if z.ndim != 2 or z.shape[0] % 2 or z.shape[0] < 4:
        raise ValueError(f"nt_xent: z must be (2N, D) with N of at least 2, received {z.shape}")
    if not temperature > 0:
        raise ValueError(f"nt_xent: temperature must be above 0, received {temperature}")
    rows = z.shape[0]
    unit = normalized(z)
    similarity = (unit @ unit.T) * (1 / temperature)
    itself = Tensor(np.where(np.eye(rows, dtype=bool), FAR, 0.0).astype(z.dtype)).to(z.device)
    return F.cross_entropy(similarity + itself, np.roll(np.arange(rows), -(rows // 2)))
