"""Images of bytes to floating-point numbers about 0.

Shapes: x, y (count,), whose channels are neighbours; factor, offset (C,).
Element i of channel c = i % C becomes x * factor[c] + offset[c].
Rungs: one thread an element, of several a block apart.
Roofline: reads 1 byte an element and writes 4.
"""

from numba import cuda, float32, uint8

from .common import ELEMENTS_PER_BLOCK, ELEMENTS_PER_THREAD, THREADS, blocks


@cuda.jit
def normalize_images(x, factor, offset, y):
    first = cuda.blockIdx.x * ELEMENTS_PER_BLOCK + cuda.threadIdx.x
    for i in range(ELEMENTS_PER_THREAD):
        index = first + i * THREADS
        if index < y.size:
            c = index % factor.size
            y[index] = float32(x[index]) * factor[c] + offset[c]


def normalize(launch, x, factor, offset, y):
    flat = y.reshape(-1)
    launch(
        normalize_images,
        blocks(flat.size, ELEMENTS_PER_BLOCK),
        THREADS,
        x.reshape(-1),
        factor,
        offset,
        launch.out(flat),
    )


SIGNATURES = [(normalize_images, (uint8[::1], float32[::1], float32[::1], float32[::1]))]
