"""Images of bytes to floating-point numbers about 0.

Shapes: x, y (count,), whose channels are neighbours; factor, offset (C,).
Element i of channel c = i % C becomes x * factor[c] + offset[c].
Rungs: one thread an element, of several a block apart.
Roofline: reads 1 byte an element and writes 4.
"""

from numba import cuda, float32, uint8

from .common import ELEMENTS_PER_THREAD, THREADS, elementwise


@cuda.jit
def normalize_images(x, factor, offset, y):
    first = cuda.blockIdx.x * cuda.blockDim.x * ELEMENTS_PER_THREAD + cuda.threadIdx.x
    for i in range(ELEMENTS_PER_THREAD):
        index = first + i * cuda.blockDim.x
        if index < y.size:
            c = index % factor.size
            y[index] = float32(x[index]) * factor[c] + offset[c]


def normalize(launch, x, factor, offset, y, block=THREADS):
    flat = y.reshape(-1)
    args = x.reshape(-1), factor, offset, launch.out(flat)
    launch(normalize_images, *elementwise(flat.size, block), *args)


SIGNATURES = [(normalize_images, (uint8[::1], float32[::1], float32[::1], float32[::1]))]
