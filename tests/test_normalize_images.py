"""Images of bytes to floating-point numbers: every backend against the definition, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine.backends.contract import Backend
from cnnengine.data import normalize

from .compare import assert_close
from .harness import run_verb, runs

SHAPES = {  # name: (tier, shape)
    "one_pixel": ("tiny", (1, 1, 1, 3)),
    "digits": ("tiny", (2, 5, 3, 1)),
    "colours": ("tiny", (2, 3, 5, 3)),
    "one_axis": ("tiny", (7,)),
    "five_channels": ("small", (1, 29, 31, 5)),
    "more_channels_than_a_vector": ("small", (3, 7, 37)),
    "one_past_many_blocks": ("small", (2731, 3)),
    "past_the_caches": ("layer", (16, 224, 224, 3)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_against_the_definition(backend: Backend, name: str, rng: np.random.Generator) -> None:
    tier, shape = SHAPES[name]
    if not runs(backend, tier):
        pytest.skip(f"{tier} cases are too large for {backend.name}")
    x = rng.integers(0, 256, shape, np.uint8)
    factor, offset = (rng.standard_normal(shape[-1]).astype(np.float32) for _ in range(2))
    (actual,) = run_verb(backend, backend.normalize_images, [x, factor, offset], [(shape, "float32")], backend.name)
    assert_close(actual, (x / 255) * (255 * factor.astype(np.float64)) + offset, 2, f"{backend.name} {name}")


def test_mean_and_std_of_each_channel(backend: Backend, rng: np.random.Generator) -> None:
    x = rng.integers(0, 256, (2, 4, 4, 3), np.uint8)
    mean, std = (0.485, 0.456, 0.406), [0.229, 0.224, 0.225]
    y = F.normalize_images(backend.to_device(x), mean, std)
    assert (y.dtype, y.device, y.requires_grad) == (np.float32, backend.device, False)
    assert_close(y.numpy(), (x / 255 - np.array(mean)) / np.array(std), 4, backend.name)


def test_one_mean_serves_all_channels_as_in_the_data_set(backend: Backend) -> None:
    x = np.arange(256, dtype=np.uint8).reshape(4, 64)
    y = F.normalize_images(backend.to_device(x), 0.1307, 0.3081)
    assert_close(y.numpy(), normalize(x, 0.1307, 0.3081).astype(np.float64), 4, backend.name)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtypes_are_made_or_refused(backend: Backend, dtype: str) -> None:
    x = backend.to_device(np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3))
    if dtype not in backend.dtypes:
        with pytest.raises(cnn.Unsupported, match=rf"normalize_images: backend .* computes in .*, not {dtype}"):
            F.normalize_images(x, 0.5, 0.25, dtype)
        return
    y = F.normalize_images(x, 0.5, 0.25, dtype)
    assert y.dtype.name == dtype
    assert_close(y.numpy(), (np.arange(12).reshape(1, 2, 2, 3) / 255 - 0.5) / 0.25, 4, backend.name)


def test_rows_that_are_not_contiguous(backend: Backend) -> None:
    x = np.arange(48, dtype=np.uint8).reshape(2, 4, 6)
    y = F.normalize_images(backend.to_device(x)[:, ::2], 0, 1)
    assert_close(y.numpy(), x[:, ::2] / 255, 2, backend.name)


@pytest.mark.parametrize(
    ("images", "mean", "std", "error", "words"),
    [
        (np.zeros((2, 3), np.float32), 0, 1, TypeError, "images must be uint8 in .0, 255., received float32"),
        (np.zeros((0, 3), np.uint8), 0, 1, ValueError, r"images must be \(..., C\) and not empty, received \(0, 3\)"),
        (np.zeros((2, 3), np.uint8), (0, 1), 1, ValueError, r"mean must be .* 3 channels, received \(0, 1\)"),
        (np.zeros((2, 3), np.uint8), 0, [1, 2], ValueError, r"std must be .* 3 channels, received \[1, 2\]"),
        (np.zeros((2, 3), np.uint8), float("nan"), 1, ValueError, "mean must be a finite number"),
        (np.zeros((2, 3), np.uint8), 0, (1, 0, 1), ValueError, r"std must be above 0, received \(1, 0, 1\)"),
    ],
)
def test_bad_input_is_named(images, mean, std, error, words) -> None:
    with pytest.raises(error, match=f"normalize_images: {words}"):
        F.normalize_images(images, mean, std)
