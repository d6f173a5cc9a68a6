"""Dropout by Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3), which
gives any element its random word from its index alone: the mask is the same on every backend, for any launch, and the
backward pass makes it again instead of storing it.

Shapes: x, y (count,), y may be x; state (2,) = seed and offset, on the device.
Element i takes word i % 4 of the counter (i // 4, offset) under the key seed; it is kept, times scale, where that word
is at least the threshold.
Rungs: ``direct`` alone, one thread a counter, so four elements.
Roofline: 20 multiplications a counter are 5 an element, little beside its traffic of 8 bytes.

All words are uint64 that hold 32 bits, masked where they could hold more: Python's integers never wrap in the
simulator, and Numba makes float64 of uint64 with int64, so every constant is a uint64 too.
"""

import numpy as np
from numba import cuda, float32, uint64

from .common import THREADS, ZERO, blocks

LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)
MULTIPLIER_0 = np.uint64(0xD2511F53)
MULTIPLIER_1 = np.uint64(0xCD9E8D57)
WEYL_0 = np.uint64(0x9E3779B9)
WEYL_1 = np.uint64(0xBB67AE85)


@cuda.jit(device=True, inline="always")
def philox(seed, low, high):
    """four random words for the key ``seed`` and the 128-bit counter (low, high)"""
    key_0 = seed & LOW
    key_1 = seed >> HALF
    word_0 = low & LOW
    word_1 = low >> HALF
    word_2 = high & LOW
    word_3 = high >> HALF
    for _ in range(10):
        product_0 = MULTIPLIER_0 * word_0  # 32 bits times 32 bits fit 64
        product_1 = MULTIPLIER_1 * word_2
        word_0 = (product_1 >> HALF) ^ word_1 ^ key_0
        word_1 = product_1 & LOW
        word_2 = (product_0 >> HALF) ^ word_3 ^ key_1
        word_3 = product_0 & LOW
        key_0 = (key_0 + WEYL_0) & LOW
        key_1 = (key_1 + WEYL_1) & LOW
    return word_0, word_1, word_2, word_3


@cuda.jit
def dropout_direct(x, y, threshold, scale, state):
    counter = cuda.grid(1)  # [0, ceil(count / 4))
    if 4 * counter >= y.size:
        return
    words = philox(state[0], uint64(counter), state[1])
    for i in range(4):
        index = 4 * counter + i
        if index < y.size:
            y[index] = x[index] * scale if words[i] >= threshold else ZERO


def dropout(launch, x, y, threshold, scale, state, block=THREADS):
    flat = y.reshape(-1)
    numbers = np.uint64(threshold), np.float32(scale), state
    launch(dropout_direct, blocks(flat.size, 4 * block), block, x.reshape(-1), launch.out(flat), *numbers)


SIGNATURES = [(dropout_direct, (float32[::1], float32[::1], uint64, float32, uint64[::1]))]
