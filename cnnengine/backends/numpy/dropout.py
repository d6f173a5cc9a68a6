"""Dropout by Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3)."""

from __future__ import annotations

import numpy as np

from ..contract import Array

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85


def philox(seed: int, counter: np.ndarray, offset: int) -> np.ndarray:
    """Random words (n, 4) uint32 for key ``seed`` and the 128-bit counters (counter, offset); counter (n,) uint64."""
    c0, c1 = counter & _LOW, counter >> _HALF
    c2, c3 = np.full_like(c0, offset & 0xFFFFFFFF), np.full_like(c0, offset >> 32)
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        product0, product1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (product1 >> _HALF) ^ c1 ^ np.uint64(key[0]),
            product1 & _LOW,
            (product0 >> _HALF) ^ c3 ^ np.uint64(key[1]),
            product0 & _LOW,
        )
        key = [(k + w) & 0xFFFFFFFF for k, w in zip(key, _WEYL, strict=True)]
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


@np.errstate(all="ignore")
def dropout(x: Array, y: Array, threshold: int, scale: float, state: Array) -> None:
    blocks = np.arange(-(-x.size // 4), dtype=np.uint64)
    words = philox(int(state[0]), blocks, int(state[1])).reshape(-1)[: x.size].reshape(x.shape)
    factor = np.float32(scale).astype(np.promote_types(x.dtype, np.float32))
    y[...] = np.where(words >= np.uint32(threshold), x * factor, 0)
