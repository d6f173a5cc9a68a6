"""Makes cnnengine/data/digits.npz, the embedded digits, from MNIST's four IDX files.

    python examples/make_digits.py --root data --out cnnengine/data/digits.npz

For each class 1,000 training rows are drawn from MNIST's training set and 200 test rows from its test set, without
replacement, by NumPy's PCG64 with seed 0; rows keep MNIST's order. The same files give the same bytes.
"""

import argparse

import numpy as np

from cnnengine import data

PER_CLASS = {"train": 1000, "test": 200}


def stratified(labels: np.ndarray, per_class: int, rng: np.random.Generator) -> np.ndarray:
    """The sorted indices of ``per_class`` rows of each class."""
    chosen = [rng.choice(np.flatnonzero(labels == c), per_class, replace=False) for c in range(10)]
    return np.sort(np.concatenate(chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="folder that holds MNIST/raw")
    parser.add_argument("--out", default="digits.npz")
    arguments = parser.parse_args()

    mnist = data.mnist(arguments.root)
    rng = np.random.default_rng(0)
    train = stratified(mnist.train_labels, PER_CLASS["train"], rng)
    test = stratified(mnist.test_labels, PER_CLASS["test"], rng)
    np.savez_compressed(
        arguments.out,
        train_images=mnist.train_images[train, :, :, 0],
        train_labels=mnist.train_labels[train].astype(np.uint8),
        train_rows=train.astype(np.uint16),  # row numbers in MNIST's own files
        test_images=mnist.test_images[test, :, :, 0],
        test_labels=mnist.test_labels[test].astype(np.uint8),
        test_rows=test.astype(np.uint16),
    )
    print(f"{arguments.out}: {len(train)} training and {len(test)} test digits")


if __name__ == "__main__":
    main()
