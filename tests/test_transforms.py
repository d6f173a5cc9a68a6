"""Augmentation: the same numbers give the same picture, for arrays and Pillow's images alike; what it becomes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnnengine import data
from cnnengine.data import transforms as T
from cnnengine.data.transforms.basic import Compose
from cnnengine.data.transforms.colour import turn_hue

from . import tiny_images

ALL: dict[str, Callable[[Any, np.random.Generator], Any]] = {
    "RandomCrop": T.RandomCrop(padding=6),
    "RandomCrop of a size": T.RandomCrop((9, 12), padding=0),
    "RandomCrop reflected": T.RandomCrop(padding=3, mode="reflect"),
    "HorizontalFlip": T.HorizontalFlip(),
    "RandomResizedCrop": T.RandomResizedCrop((11, 13)),
    "Resize": T.Resize((30, 7)),
    "CenterCrop": T.CenterCrop(10),
    "ColorJitter": T.ColorJitter(0.4, 0.4, 0.4, 0.1),
    "RandomAffine": T.RandomAffine(),
    "RandomApply": T.RandomApply(T.ColorJitter(0.4), 0.7),
    "RandomDarken": T.RandomDarken(),
    "RandomErasing": T.RandomErasing(),
    "RandAugment": T.RandAugment(3, 7),
    "TrivialAugment": T.TrivialAugment(),
}
SIZES = {"RandomCrop of a size": (9, 12), "RandomResizedCrop": (11, 13), "Resize": (30, 7), "CenterCrop": (10, 10)}
ARRAY = np.asarray(tiny_images.picture(0, 2, (24, 20)))


def _generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ALL)
def test_arrays_and_images_alike(name: str, channels: int) -> None:
    array = ARRAY[..., :channels]
    image = Image.fromarray(array if channels == 3 else array[..., 0])
    before, seen = array.copy(), set()
    for seed in range(20):
        one, other = ALL[name](array, _generator(seed)), ALL[name](image, _generator(seed))
        assert isinstance(one, np.ndarray)
        assert isinstance(other, Image.Image)
        assert (one.dtype, one.shape) == (np.uint8, (*SIZES.get(name, (20, 24)), channels))
        np.testing.assert_array_equal(one, np.asarray(other).reshape(one.shape))
        np.testing.assert_array_equal(ALL[name](array, _generator(seed)), one)
        seen.add(one.tobytes())
    np.testing.assert_array_equal(array, before)
    assert (len(seen) == 1) == (name in ("Resize", "CenterCrop"))


# ---- crops and flips


def test_crops_are_windows_of_the_padded_picture(rng: np.random.Generator) -> None:
    images = rng.integers(1, 256, (300, 5, 4, 3), dtype=np.uint8)
    numbers = rng.random((300, 2))
    crops = T.RandomCrop(padding=2).whole(images, numbers)
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    corners = (numbers * 5).astype(int)  # 5 places along each axis, all equally likely
    for image, crop, (top, left) in zip(padded, crops, corners, strict=True):
        np.testing.assert_array_equal(crop, image[top : top + 5, left : left + 4])
    assert len({tuple(corner) for corner in corners.tolist()}) == 25


def test_flips_are_mirrors_with_their_probability(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (400, 3, 4, 1), dtype=np.uint8)
    numbers = rng.random((400, 1))
    flipped = T.HorizontalFlip(0.25).whole(images, numbers)
    flip = numbers[:, 0] < 0.25
    np.testing.assert_array_equal(flipped[flip], images[flip][:, :, ::-1])
    np.testing.assert_array_equal(flipped[~flip], images[~flip])
    np.testing.assert_array_equal(T.HorizontalFlip(1)(ARRAY, _generator()), ARRAY[:, ::-1])
    assert T.HorizontalFlip(0)(ARRAY, _generator()) is ARRAY


def test_whole_batches_are_pictures_one_by_one(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    both = T.Compose(T.RandomCrop(padding=2), T.HorizontalFlip())
    assert both.draws == 3
    numbers = rng.random((6, 3))
    expected = T.HorizontalFlip().whole(T.RandomCrop(padding=2).whole(images, numbers[:, :2]), numbers[:, 2:])
    np.testing.assert_array_equal(both.whole(images, numbers), expected)
    assert T.Compose(T.RandomCrop(), T.RandAugment()).draws is None

    class Numbers:
        """A generator that gives a row of numbers."""

        def __init__(self, row: np.ndarray) -> None:
            self.row = list(row)

        def random(self, shape: tuple[int, int] | None = None) -> Any:
            count = 1 if shape is None else math.prod(shape)
            drawn, self.row = self.row[:count], self.row[count:]
            return drawn[0] if shape is None else np.array(drawn).reshape(shape)

    for i in range(6):
        np.testing.assert_array_equal(both(images[i], Numbers(numbers[i])), expected[i])  # type: ignore[arg-type]


def test_a_set_in_memory_takes_whole_batches(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the batch size nor the start changes what an image becomes; the workers have nothing to do."""
    images = rng.integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    part = data.from_arrays(images, np.arange(50), images, np.arange(50)).train
    both = T.Compose(T.RandomCrop(padding=2), T.HorizontalFlip())
    monkeypatch.setattr(Compose, "__call__", None)

    def by_label(size: int, start: int = 0, **how: Any) -> dict[int, bytes]:
        walk = part.batches(size, transform=both, start=start, seed=4, **how)
        return {label: image.tobytes() for x, y in walk for image, label in zip(x, y.tolist(), strict=True)}

    straight = by_label(7, epoch=1)
    assert len(straight) == 50
    assert by_label(16, epoch=1, shuffle=True, workers=3) == straight
    assert by_label(7, 3, epoch=1) == {label: image for label, image in straight.items() if label >= 21}
    assert by_label(7, epoch=2) != straight


# ---- sizes


def test_resize_by_the_shorter_side() -> None:
    assert T.Resize(10)(ARRAY).shape == (10, 12, 3)
    assert T.Resize(10)(np.ascontiguousarray(ARRAY.transpose(1, 0, 2))).shape == (12, 10, 3)
    np.testing.assert_array_equal(T.CenterCrop((4, 6))(ARRAY), ARRAY[8:12, 9:15])


def test_windows_have_their_share_and_their_ratio() -> None:
    crop = T.RandomResizedCrop(8, scale=(0.2, 0.5), ratio=(0.5, 2.0))
    image = Image.new("RGB", (300, 200))
    windows = np.array([crop._window(image, _generator(seed)) for seed in range(500)])
    left, top, right, bottom = windows.T
    assert min(left.min(), top.min()) >= 0
    assert (right <= 300).all()
    assert (bottom <= 200).all()
    area, ratio = (right - left) * (bottom - top) / 60_000, (right - left) / (bottom - top)
    assert 0.19 < area.min() < 0.22
    assert 0.47 < area.max() < 0.51
    assert 0.49 < ratio.min() < 0.55
    assert 1.85 < ratio.max() < 2.02
    long = Image.new("RGB", (900, 10))  # no window fits: the middle, of the widest ratio
    assert T.RandomResizedCrop(8, scale=(0.9, 1.0))._window(long, _generator()) == (443, 0, 456, 10)


# ---- colours


def test_colours() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)
    jitter = T.ColorJitter(brightness=0.5)
    values = {int(jitter(grey, _generator(seed))[0, 0, 0]) for seed in range(200)}
    assert 50 <= min(values) < 60
    assert 140 < max(values) <= 150
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    assert turn_hue(red, 1 / 3).getpixel((0, 0)) == (0, 255, 0)
    assert turn_hue(red, 0).getpixel((0, 0)) == (255, 0, 0)
    np.testing.assert_array_equal(T.ColorJitter()(ARRAY, _generator()), ARRAY)


def test_the_rectangle_that_is_erased() -> None:
    erase = T.RandomErasing(1, scale=(0.1, 0.3), ratio=(0.5, 2.0), value=0)
    picture = np.full((40, 60, 3), 255, np.uint8)
    shares = []
    for seed in range(200):
        gone = (erase(picture, _generator(seed)) == 0).all(2)
        rows, columns = np.flatnonzero(gone.any(1)), np.flatnonzero(gone.any(0))
        assert gone[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert 0.45 < len(rows) / len(columns) < 2.2
        shares.append(gone.mean())
    assert 0.09 < min(shares) < 0.12
    assert 0.28 < max(shares) < 0.32
    noise = T.RandomErasing(1)(np.zeros((40, 60, 3), np.uint8), _generator())
    assert len(np.unique(noise)) > 100
    kept = [T.RandomErasing(0.3)(picture, _generator(seed)) is picture for seed in range(1000)]
    assert 0.65 < np.mean(kept) < 0.75


# ---- policies

PIXELS = Image.fromarray(np.array([[[10, 100, 200], [60, 120, 240]]], np.uint8))
EXACT = {  # worked out by hand for the two pixels above, at strength 0.5 or -0.5
    ("identity", 0.5): [[10, 100, 200], [60, 120, 240]],
    ("solarize", 0.5): [[10, 100, 55], [60, 120, 15]],  # from 128 on inverted
    ("posterize", -0.5): [[8, 100, 200], [60, 120, 240]],  # 6 bits
    ("brightness", -0.5): [[5, 55, 110], [33, 66, 132]],  # times 0.55
    ("brightness", 0.5): [[14, 145, 255], [87, 174, 255]],
    ("auto_contrast", 0.5): [[0, 0, 0], [255, 255, 255]],
}


@pytest.mark.parametrize(("name", "strength"), EXACT)
def test_operations_on_two_pixels(name: str, strength: float) -> None:
    got = np.asarray(T.OPERATIONS[name](PIXELS, strength, 0))[0]
    assert np.abs(got.astype(int) - EXACT[name, strength]).max() <= 1  # Pillow rounds or cuts


def test_there_are_the_fourteen_operations() -> None:
    assert len(T.OPERATIONS) == 14
    for name, operation in T.OPERATIONS.items():
        still = np.asarray(operation(Image.fromarray(ARRAY), 0.0, 7))
        if name not in ("auto_contrast", "equalize"):  # of one strength
            np.testing.assert_array_equal(still, ARRAY, err_msg=name)


def test_pictures_move_where_they_should() -> None:
    dot = np.zeros((21, 41, 1), np.uint8)
    dot[10, 20] = 255  # the centre
    image = Image.fromarray(dot[..., 0])

    def where(name: str, strength: float, start: Image.Image = image) -> tuple[int, int]:
        moved = np.asarray(T.OPERATIONS[name](start, strength, 0))
        row, column = np.unravel_index(moved.argmax(), moved.shape)
        return int(row), int(column)

    for name in ("rotate", "shear_x", "shear_y"):
        assert where(name, 1.0) == (10, 20)  # turns around the centre
    assert where("translate_x", 0.5) == (10, 11)  # 0.225 of 41
    assert where("translate_y", -1.0) == (19, 20)  # 0.45 of 21
    above = np.zeros_like(dot)
    above[0, 20] = 255
    start = Image.fromarray(above[..., 0])
    assert where("shear_x", 1.0, start) == (0, 23)  # 0.3 of 10 rows
    row, column = where("rotate", 1.0, start)
    assert abs(row - (10 - 8.66)) < 1  # 10 cos 30 above the centre
    assert abs(column - 20) == 5  # 10 sin 30
    filled = np.asarray(T.OPERATIONS["translate_x"](Image.new("RGB", (20, 20)), 1.0, 77))
    assert (filled[:, -9:] == 77).all()
    assert not filled[:, :-9].any()


def test_affine_turns_scales_and_moves() -> None:
    """Of a dot 8 pixels right of the middle: where it goes, by each alone."""
    dot = np.zeros((41, 41, 1), np.uint8)
    dot[20, 28] = 255

    def places(transform: T.RandomAffine) -> np.ndarray:
        found = [np.unravel_index(transform(dot, _generator(seed)).argmax(), (41, 41)) for seed in range(300)]
        return np.array(found) - 20

    turned = places(T.RandomAffine(90, 0, (1, 1)))
    assert (np.abs(np.hypot(*turned.T) - 8) < 0.75).all()  # to the next pixel, at most the root of 1/2 away
    assert turned[:, 1].min() >= 0  # within a right angle to either side
    assert (turned[:, 0].min(), turned[:, 0].max()) == (-8, 8)
    scaled = places(T.RandomAffine(0, 0, (0.5, 2)))
    assert set(scaled[:, 0].tolist()) == {0}
    assert (scaled[:, 1].min(), scaled[:, 1].max()) == (4, 16)
    moved = places(T.RandomAffine(0, 0.1, (1, 1)))
    assert set(moved[:, 0].tolist()) == set(range(-4, 5))  # a tenth of 41
    assert set((moved[:, 1] - 8).tolist()) == set(range(-4, 5))
    np.testing.assert_array_equal(T.RandomAffine(0, 0, (1, 1))(ARRAY, _generator()), ARRAY)


def test_darken_multiplies() -> None:
    grey = np.full((4, 4, 1), 200, np.uint8)
    values = {int(T.RandomDarken(0.25)(grey, _generator(seed))[0, 0, 0]) for seed in range(300)}
    assert 50 <= min(values) < 55
    assert 195 < max(values) <= 200


def test_policies_draw_all_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, float]] = []
    for name in T.OPERATIONS:
        monkeypatch.setitem(T.OPERATIONS, name, lambda image, s, fill, name=name: drawn.append((name, s)) or image)
    rng = _generator()
    for _ in range(300):
        T.RandAugment(2, 5)(ARRAY, rng)
    assert len(drawn) == 600
    assert {name for name, _ in drawn} == set(T.OPERATIONS)
    assert {strength for _, strength in drawn} == {0.5, -0.5}
    drawn.clear()
    for _ in range(300):
        T.TrivialAugment()(ARRAY, rng)
    assert len(drawn) == 300
    assert {round(abs(strength) * 30) for _, strength in drawn} == set(range(31))


# ---- what is refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: T.HorizontalFlip(1.5), r"HorizontalFlip: p must lie in \[0, 1\], received 1.5"),
        (lambda: T.RandomErasing(-1), r"RandomErasing: p must lie in \[0, 1\]"),
        (lambda: T.RandomErasing(value=256), r"value must be 'random' or lie in \[0, 255\], received 256"),
        (lambda: T.RandomCrop(padding=-1), "padding must be at least 0"),
        (lambda: T.RandomCrop(30)(ARRAY, _generator()), "30 x 30 is larger than the picture of 20 x 24 with padding 4"),
        (lambda: T.CenterCrop(22)(ARRAY), "CenterCrop: 22 x 22 is larger than the picture of 20 x 24"),
        (lambda: T.Resize(9, "cubic"), "interpolation must be one of nearest, bilinear, bicubic, lanczos"),
        (lambda: T.RandomResizedCrop(9, scale=(0.5, 0.1)), "scale must be"),
        (lambda: T.RandomResizedCrop(9, ratio=(0, 1)), "ratio must be"),
        (lambda: T.ColorJitter(hue=0.6), "hue must be at most 0.5"),
        (lambda: T.RandomAffine(181), r"RandomAffine: degrees must lie in \[0, 180\], received 181"),
        (lambda: T.RandomAffine(translate=1.1), r"RandomAffine: translate must lie in \[0, 1\], received 1.1"),
        (lambda: T.RandomAffine(scale=(0, 1)), r"RandomAffine: scale must be \(low, high\)"),
        (lambda: T.RandomDarken(-0.1), r"RandomDarken: least must lie in \[0, 1\], received -0.1"),
        (lambda: T.RandAugment(magnitude=11), r"magnitude lie in \[0, 10\], received 2 and 11"),
        (lambda: T.RandAugment()(np.zeros((4, 4, 2), np.uint8), _generator()), "must have 1 or 3 channels"),
        (lambda: T.RandomErasing(1)(np.zeros((2, 4, 4, 3), np.uint8), _generator()), r"must be \(H, W, C\), received"),
        (lambda: data.Preprocessing(224, 200), "crop must be 'padded' or at least the size of 224, received 200"),
        (lambda: data.Preprocessing(224, 256, "area"), "interpolation must be one of"),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_floats_are_refused() -> None:
    with pytest.raises(TypeError, match="a picture must be uint8, received float32"):
        T.RandomCrop()(ARRAY.astype(np.float32), _generator())


# ---- preprocessing and arrays


def test_preprocessing_cuts_the_centre() -> None:
    wide = Image.fromarray(np.tile(np.arange(60, dtype=np.uint8)[np.newaxis, :, np.newaxis], (40, 1, 3)))
    same = data.Preprocessing(32, 40)(wide)  # not resized: its shorter side is 40
    np.testing.assert_array_equal(same, np.asarray(wide)[4:36, 14:46])
    padded = data.Preprocessing(32, "padded", "nearest")(wide)  # a square of 32 / 64 of 40, enlarged
    assert np.unique(padded).tolist() == list(range(20, 40))
    assert padded.shape == (32, 32, 3)
    assert data.Preprocessing(8, 8)(wide.convert("L")).shape == (8, 8, 1)


def test_preprocessing_normalises() -> None:
    lite = data.Preprocessing(mean=127 / 255, std=128 / 255)
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    np.testing.assert_allclose(lite.normalize(values), (values - 127.0) / 128, rtol=1e-6, atol=1e-6)
    usual = data.Preprocessing().normalize(np.full((1, 1, 1, 3), 255, np.uint8))
    np.testing.assert_allclose(
        usual.ravel(), [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225], rtol=1e-6
    )
    with pytest.raises(ValueError, match=r"mean and std are of 3 channels, the images are \(2, 2, 1\)"):
        data.Preprocessing().normalize(np.zeros((2, 2, 1), np.uint8))


def test_arrays_become_a_data_set(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (9, 4, 5, 3), dtype=np.uint8)
    labels = np.arange(9, dtype=np.uint8) % 4
    made = data.from_arrays(images, labels, images[:2], labels[:2], name="mine")
    assert (made.name, made.classes, made.train_labels.dtype) == ("mine", ("0", "1", "2", "3"), np.int64)
    np.testing.assert_allclose(made.mean, images.mean((0, 1, 2)) / 255, rtol=1e-12)
    np.testing.assert_allclose(made.std, images.std((0, 1, 2)) / 255, rtol=1e-12)
    assert data.from_arrays(images[..., 0], labels, images[:2, ..., 0], labels[:2]).train_images.shape == (9, 4, 5, 1)
    nchw = np.zeros((9, 3, 32, 32), np.uint8)
    with pytest.raises(ValueError, match=r"got \(9, 3, 32, 32\); they look like \(N, C, H, W\)"):
        data.from_arrays(nchw, labels, nchw, labels)
    with pytest.raises(TypeError, match="uint8 images and integer labels expected, got float64 and uint8"):
        data.from_arrays(images / 255, labels, images, labels)
    with pytest.raises(ValueError, match=r"training images are \(4, 5, 3\), test images \(4, 5, 1\)"):
        data.from_arrays(images, labels, images[..., :1], labels)
    with pytest.raises(ValueError, match="has 9 images and 8 labels"):
        data.from_arrays(images, labels[:8], images, labels)
