"""A convolution is seven loops around one multiply-add. Runs them, counts, and compares with the oracle.

    python examples/ladder/seven_loops.py [--x 1,4,4,2] [--w 2,3,3,2]

The axes are those of the glossary: N images, P x Q outputs, K filters, R x S taps, C channels.
"""

import argparse

import numpy as np

import cnnengine as cnn
import cnnengine.functional as F


def seven_loops(x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, int]:
    """x (N, H, W, C) and w (K, R, S, C) to y (N, P, Q, K), and how many multiply-adds that took."""
    N, H, W, C = x.shape
    K, R, S, _ = w.shape
    P, Q = H - R + 1, W - S + 1
    y = np.zeros((N, P, Q, K))
    multiply_adds = 0
    for n in range(N):
        for p in range(P):
            for q in range(Q):
                for k in range(K):
                    for r in range(R):
                        for s in range(S):
                            for c in range(C):
                                y[n, p, q, k] += x[n, p + r, q + s, c] * w[k, r, s, c]
                                multiply_adds += 1
    return y, multiply_adds


def shape(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--x", type=shape, default=(1, 4, 4, 2), help="N,H,W,C")
    parser.add_argument("--w", type=shape, default=(2, 3, 3, 2), help="K,R,S,C")
    arguments = parser.parse_args()

    rng = np.random.default_rng(0)
    x = rng.integers(-9, 10, arguments.x).astype(np.float64)
    w = rng.integers(-9, 10, arguments.w).astype(np.float64)
    y, multiply_adds = seven_loops(x, w)
    with cnn.use_backend("numpy"):
        oracle = F.conv2d(cnn.Tensor(x), cnn.Tensor(w)).numpy()
    if not np.array_equal(y, oracle):
        raise SystemExit("the loops and the oracle differ")
    print(f"x {x.shape}, w {w.shape}, y {y.shape}: equal to the oracle")
    print(f"{y.size} outputs, {multiply_adds // y.size} multiply-adds each, {multiply_adds} in all")
    print(f"x is read {multiply_adds} times and has {x.size} elements: each {multiply_adds / x.size:.1f} times")
    print(f"w is read {multiply_adds} times and has {w.size} elements: each {multiply_adds / w.size:.1f} times")


if __name__ == "__main__":
    main()
