"""Two outputs of a filter with three taps from four products instead of six: Winograd's F(2, 3), by hand.

    python examples/ladder/winograd.py

S. Winograd, Arithmetic Complexity of Computations, 1980; for images: A. Lavin and S. Gray, Fast Algorithms for
Convolutional Neural Networks, 2016, section 4.1.
"""

import numpy as np

INPUT = np.array([10.0, 20.0, 30.0, 10.0])
FILTER = np.array([1.0, 0.0, -1.0])

B = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])  # B^T of the paper
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
A = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])  # A^T of the paper


def line() -> None:
    """One line of pixels, one line of the filter."""
    plain = np.array([sum(INPUT[q + s] * FILTER[s] for s in range(3)) for q in range(2)])
    u, v = G @ FILTER, B @ INPUT  # sums and halves: no product
    m = u * v
    print(f"input {INPUT}, filter {FILTER}")
    print(f"as written, 6 products: {plain}")
    print(f"transformed: filter {u}, input {v}")
    print(f"their 4 products: {m}")
    print(f"sums of these: {A @ m}")
    if not np.array_equal(A @ m, plain):
        raise SystemExit("they differ")


def square() -> None:
    """The same along both axes: a tile of 2 x 2 outputs of a 3 x 3 filter, from 4 x 4 inputs."""
    rng = np.random.default_rng(0)
    d, g = rng.integers(0, 50, (4, 4)), rng.integers(-3, 4, (3, 3))
    plain = np.array([[(d[p : p + 3, q : q + 3] * g).sum() for q in range(2)] for p in range(2)])
    u, v = G @ g @ G.T, B @ d @ B.T
    y = A @ (u * v) @ A.T
    if not np.array_equal(y, plain):
        raise SystemExit("they differ")
    print(f"2 x 2 outputs, 3 x 3 taps: {plain.size * g.size} products as written, {u.size} by Winograd, equal results")


if __name__ == "__main__":
    line()
    square()
