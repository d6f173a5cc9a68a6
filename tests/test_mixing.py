"""Mixup and CutMix: the mixtures are what the targets say."""

from __future__ import annotations

import numpy as np
import pytest

from cnnengine import data


@pytest.fixture
def batch() -> tuple[np.ndarray, np.ndarray]:
    """Images whose every pixel is their label's number: a mean tells what was mixed."""
    labels = np.arange(8) % 4
    return np.broadcast_to(labels.astype(np.float32)[:, None, None, None], (8, 6, 10, 2)).copy(), labels


@pytest.mark.parametrize("mix", [data.mixup, data.cutmix])
def test_targets_say_what_the_images_are_made_of(mix: object, batch: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = batch
    before = images.copy()
    for seed in range(20):
        mixed, targets = mix(images, labels, 4, 1.0, np.random.default_rng(seed))  # type: ignore[operator]
        assert mixed.dtype == targets.dtype == np.float32
        assert targets.shape == (8, 4)
        np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)
        np.testing.assert_allclose(mixed.mean((1, 2, 3)), targets @ np.arange(4), rtol=1e-5, atol=1e-6)
        assert (targets[np.arange(8), labels] > 0).any()
    np.testing.assert_array_equal(images, before)


def test_the_same_numbers_give_the_same_batch(batch: tuple[np.ndarray, np.ndarray]) -> None:
    for mix in (data.mixup, data.cutmix):
        first, again, other = (mix(*batch, 4, 0.5, np.random.default_rng(seed))[1] for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()


def test_mixup_mixes_all_pixels_and_cutmix_a_rectangle(batch: tuple[np.ndarray, np.ndarray]) -> None:
    rectangles = 0
    for seed in range(10):
        mixed, _ = data.mixup(*batch, 4, 1.0, np.random.default_rng(seed))
        assert all(len(np.unique(image)) == 1 for image in mixed)
        mixed, _ = data.cutmix(*batch, 4, 1.0, np.random.default_rng(seed))
        for image, label in zip(mixed, batch[1], strict=True):
            rows, columns, _ = np.nonzero(image != label)
            if len(rows):
                rectangles += 1
                inside = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
                assert len(np.unique(inside)) == 1
    assert rectangles > 20


def test_what_cannot_be_mixed_is_refused(batch: tuple[np.ndarray, np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    for name in ("mixup", "cutmix"):
        mix = getattr(data, name)
        with pytest.raises(ValueError, match=f"{name}: alpha must be above 0, received 0"):
            mix(*batch, 4, 0, rng)
        with pytest.raises(TypeError, match=rf"{name}: images must be floating-point .*received uint8 \(8, 6, 10, 2\)"):
            mix(batch[0].astype(np.uint8), batch[1], 4, 1.0, rng)
