"""Sum or maximum of the middle axis: y[o, i] = x[o, 0, i] op x[o, 1, i] op ...

Shapes: x (outer, reduced, inner), y (outer, inner).
Rungs: ``tree`` alone. A block is ``lanes`` threads along inner (neighbours in memory) by ``rows`` along reduced, powers
of two; it takes one o, ``lanes`` columns i and ``chunk`` elements of the reduced axis. Each thread adds every rows-th
element, then the block adds its threads pairwise in shared memory: 256 partial results, 128, 64, ...
Where that gives too few blocks to fill a GPU, ``splits`` blocks share a column: they write (outer, splits, inner),
which the same kernel reduces once more. Who adds what follows from the shape alone: the same bits every time.
Roofline: 4 bytes read for one operation: bound by memory. (1, 802816, 64), a bias gradient, is 205 MB: 0.043 ms at
4.8 TB/s.
The maximum of elements with a NaN among them is NaN, as NumPy's.
"""

from numba import cuda, float32, int32

from .common import MINUS_INFINITY, SIMULATED, THREADS, ZERO, ReduceShape, blocks, ints, tree_block

SUM, MAX = range(2)
REDUCE = {"sum": SUM, "max": MAX}
LANES = 4 if SIMULATED else 32  # at most: a warp reads 32 * 4 B = one line of 128 B
ENOUGH_BLOCKS = 4 if SIMULATED else 512  # about 4 for each SM of a large GPU


@cuda.jit(device=True, inline="always")
def combine(op, a, b):
    if op == SUM:
        return a + b
    return a if a > b or a != a else b  # a != a: a is NaN and wins; a NaN in b wins, since a > NaN is false


@cuda.jit
def reduce_tree(op, x, y, chunk, splits, shape):
    partial = cuda.shared.array(THREADS, float32)  # [row of the block][lane]
    lanes = cuda.blockDim.x
    tiles = (shape.inner + lanes - 1) // lanes
    i = cuda.blockIdx.x % tiles * lanes + cuda.threadIdx.x
    split = cuda.blockIdx.x // tiles % splits
    o = cuda.blockIdx.x // tiles // splits  # [0, outer)

    result = ZERO if op == SUM else MINUS_INFINITY
    if i < shape.inner:  # threads beyond keep the neutral element and take part in the barriers
        for j in range(split * chunk + cuda.threadIdx.y, min((split + 1) * chunk, shape.reduced), cuda.blockDim.y):
            result = combine(op, result, x[o, j, i])

    mine = cuda.threadIdx.y * lanes + cuda.threadIdx.x  # [0, threads of the block)
    partial[mine] = result
    half = cuda.blockDim.y // 2
    while half > 0:
        cuda.syncthreads()
        if cuda.threadIdx.y < half:
            partial[mine] = combine(op, partial[mine], partial[mine + half * lanes])
        half //= 2
    if cuda.threadIdx.y == 0 and i < shape.inner:
        y[o, split, i] = partial[mine]


def reduce(launch, op, shape, x, y, block=THREADS):
    """``block``: threads, at most; who adds what, and so the last bits, depend on it."""
    threads = tree_block(block)
    x = x.reshape(shape.outer, shape.reduced, shape.inner)
    lanes = min(LANES, threads, 1 << (shape.inner - 1).bit_length())
    columns = shape.outer * blocks(shape.inner, lanes)
    least_chunk = 2 * threads  # a split with less to add costs more than it saves
    splits = min(max(ENOUGH_BLOCKS // columns, 1), max(shape.reduced // least_chunk, 1))
    chunk = blocks(shape.reduced, splits)
    splits = blocks(shape.reduced, chunk)  # none is empty
    rows = min(threads // lanes, 1 << (chunk - 1).bit_length())  # no more than there are elements
    block = (lanes, rows)
    op = launch.integer(REDUCE[op])
    y = y.reshape(shape.outer, 1, shape.inner)
    target = y if splits == 1 else launch.workspace((shape.outer, splits, shape.inner))
    numbers = launch.integer(chunk), launch.integer(splits), launch.ints(ReduceShape, shape)
    launch(reduce_tree, columns * splits, block, op, x, launch.out(target), *numbers)
    if splits > 1:
        again = launch.ints(ReduceShape, (shape.outer, splits, shape.inner))
        numbers = launch.integer(splits), launch.integer(1), again
        launch(reduce_tree, columns, block, op, target, launch.out(y), *numbers)


SIGNATURES = [(reduce_tree, (int32, float32[:, :, ::1], float32[:, :, ::1], int32, int32, ints(ReduceShape)))]
