"""Reading data sets and pictures: what is right is read exactly, what is wrong is named."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from cnnengine import data
from cnnengine.data import download, sets
from cnnengine.errors import DataError

from . import tiny_mnist

# ---- IDX


def test_idx_is_read_packed_or_not(tmp_path: Path, rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (3, 5, 4), dtype=np.uint8)
    content = tiny_mnist.idx_bytes(images)
    (tmp_path / "plain").write_bytes(content)
    (tmp_path / "packed").write_bytes(gzip.compress(content))
    for name in ("plain", "packed"):
        np.testing.assert_array_equal(data.read_idx(tmp_path / name, rank=3), images)


GOOD = tiny_mnist.idx_bytes(np.zeros((3, 2, 2), np.uint8))
BROKEN = {
    "empty": (b"", "truncated: an IDX header has 16 bytes, the file holds 0 bytes"),
    "half a header": (GOOD[:9], "truncated: an IDX header has 16 bytes, the file holds 9 bytes"),
    "labels": (tiny_mnist.idx_bytes(np.zeros(30, np.uint8)), "magic 0x00000803 expected, 0x00000801 found"),
    "truncated": (GOOD[:-1], r"truncated: 28 bytes expected for shape \(3, 2, 2\), 27 bytes found"),
    "too long": (GOOD + b"x", "too long: 28 bytes expected"),
    "a huge count": (struct.pack(">4I", 0x803, 2**32 - 1, 2**32 - 1, 28), "truncated: [0-9]+ bytes expected"),
    "half a gzip": (gzip.compress(bytes(range(256)) * 9)[:-30], "truncated or corrupt gzip file"),
    "a damaged gzip": (gzip.compress(GOOD)[:12] + b"\xff\xff\xff" + gzip.compress(GOOD)[15:], "corrupt gzip file"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_idx_file_is_named(tmp_path: Path, case: str) -> None:
    content, message = BROKEN[case]
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path}: .*{message}"):
        data.read_idx(path, rank=3)


def test_a_missing_idx_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: cannot be read: No such file"):
        data.read_idx(tmp_path / "nowhere", rank=3)


# ---- MNIST's folder


def test_mnist_is_read_from_torchvisions_layout(tmp_path: Path) -> None:
    tiny_mnist.write(tmp_path, train=40, test=20)
    mnist, digits = data.mnist(tmp_path), data.digits()
    assert mnist.name == "MNIST"
    np.testing.assert_array_equal(mnist.train_images, digits.train_images[:40])
    np.testing.assert_array_equal(mnist.test_labels, digits.test_labels[:20])
    assert mnist.train_images.shape == (40, 28, 28, 1)
    assert mnist.train_labels.dtype == np.int64


def test_the_data_folder_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_mnist.write(tmp_path, train=10, test=10, folder="FashionMNIST")
    monkeypatch.setenv("CNNENGINE_DATA", str(tmp_path))
    fashion = data.fashion_mnist()
    assert (fashion.name, len(fashion.train_labels), fashion.classes[9]) == ("Fashion-MNIST", 10, "ankle boot")


def test_missing_files_are_named_with_their_place(tmp_path: Path) -> None:
    raw = tiny_mnist.write(tmp_path, 10, 10) / "MNIST" / "raw"
    (raw / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=f"MNIST is not in {raw}: expected t10k-labels-idx1-ubyte there"):
        data.mnist(tmp_path)


def test_counts_and_labels_must_fit(tmp_path: Path) -> None:
    raw = tiny_mnist.write(tmp_path, 10, 10) / "MNIST" / "raw"
    labels = raw / "train-labels-idx1-ubyte"
    labels.write_bytes(tiny_mnist.idx_bytes(np.zeros(9, np.uint8)))
    with pytest.raises(DataError, match="the training part has 10 images and 9 labels"):
        data.mnist(tmp_path)
    labels.write_bytes(tiny_mnist.idx_bytes(np.full(10, 10, np.uint8)))
    with pytest.raises(DataError, match=r"train labels must lie in \[0, 10\), found 10 to 10"):
        data.mnist(tmp_path)


# ---- downloading, from a folder that plays the mirror


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    raw = tiny_mnist.write(tmp_path / "mirror", 10, 10) / "MNIST" / "raw"
    hashes = {}
    for path in list(raw.iterdir()):
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        else:
            path.rename(raw / f"{path.name}.gz").write_bytes(gzip.compress(content))
        hashes[path.name.removesuffix(".gz")] = hashlib.sha256(content).hexdigest()
    source = dataclasses.replace(sets.MNIST, mirrors=(f"{raw.as_uri()}/",), sha256=hashes)
    monkeypatch.setattr(sets, "MNIST", source)
    return raw


def test_missing_files_are_downloaded_and_kept_unpacked(tmp_path: Path, mirror: Path) -> None:
    mnist = data.mnist(tmp_path / "root", download=True)
    assert len(mnist.train_labels) == 10
    assert sorted(p.name for p in (tmp_path / "root" / "MNIST" / "raw").iterdir()) == sorted(sets.MNIST.sha256)


def test_a_download_with_another_hash_is_refused(tmp_path: Path, mirror: Path) -> None:
    (mirror / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(DataError, match=r"SHA-256 [0-9a-f]{64} expected, [0-9a-f]{64} received"):
        data.mnist(tmp_path / "root", download=True)
    assert not list((tmp_path / "root").rglob("train-images*"))


def test_without_a_network_the_place_and_the_names_are_said(tmp_path: Path, mirror: Path) -> None:
    for path in mirror.iterdir():
        path.unlink()
    folder = tmp_path / "root" / "MNIST" / "raw"
    with pytest.raises(DataError, match=rf"could not be downloaded \(.*\); .* put .*, .*, .*, .* into {folder}, each"):
        data.mnist(tmp_path / "root", download=True)


def test_the_second_mirror_is_tried(tmp_path: Path, mirror: Path) -> None:
    path = download.fetch(
        "MNIST",
        ((tmp_path / "gone").as_uri() + "/", mirror.as_uri() + "/"),
        "t10k-labels-idx1-ubyte",
        sets.MNIST.sha256["t10k-labels-idx1-ubyte"],
        tmp_path / "kept",
    )
    assert data.read_idx(path, rank=1).shape == (10,)


# ---- the embedded digits


def test_the_embedded_digits_are_stratified() -> None:
    digits = data.digits()
    assert digits.train_images.shape == (10_000, 28, 28, 1)
    assert digits.test_images.shape == (2_000, 28, 28, 1)
    assert digits.train_images.dtype == np.uint8
    assert np.bincount(digits.train_labels).tolist() == [1000] * 10
    assert np.bincount(digits.test_labels).tolist() == [200] * 10


def test_the_embedded_digits_are_small_and_attributed() -> None:
    folder = Path(data.__file__).parent
    assert (folder / "digits.npz").stat().st_size <= 3_000_000
    text = (folder / "digits.txt").read_text()
    for words in ("Yann LeCun", "Corinna Cortes", "Christopher J.C. Burges", "CC BY-SA 3.0"):
        assert words in text


def test_the_embedded_digits_are_rows_of_mnist(shared: Path) -> None:
    root = shared / "data"
    if not (root / "MNIST").is_dir():
        pytest.skip("MNIST is not in the folder of real data")
    mnist, digits = data.mnist(root), data.digits()
    with np.load(Path(data.__file__).parent / "digits.npz") as file:
        for part in ("train", "test"):
            rows = file[f"{part}_rows"]
            assert len(np.unique(rows)) == len(rows)
            np.testing.assert_array_equal(getattr(mnist, f"{part}_images")[rows], getattr(digits, f"{part}_images"))
            np.testing.assert_array_equal(getattr(mnist, f"{part}_labels")[rows], getattr(digits, f"{part}_labels"))
    assert (len(mnist.train_labels), len(mnist.test_labels)) == (60_000, 10_000)


# ---- batches and normalisation


def test_normalize_is_the_definition(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (2, 28, 28, 1), dtype=np.uint8)
    expected = (images / 255 - 0.1307) / 0.3081
    got = data.normalize(images, 0.1307, 0.3081)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)
    with pytest.raises(TypeError, match=r"images must be uint8 in \[0, 255\], got float32"):
        data.normalize(images.astype(np.float32), 0.1307, 0.3081)


def test_batches_in_order_cover_everything_once() -> None:
    x, y = np.arange(10), np.arange(10) * 10
    got = list(data.batches(x, y, 4))
    assert [len(b) for b, _ in got] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([b for b, _ in got]), x)
    assert all((b * 10 == c).all() for b, c in got)
    assert [len(b) for b, _ in data.batches(x, y, 4, drop_last=True)] == [4, 4]
    assert data.batch_count(10, 4) == 3
    assert data.batch_count(10, 4, drop_last=True) == 2


def test_shuffled_batches_are_a_permutation_that_repeats_and_can_be_entered_late() -> None:
    x, y = np.arange(100), np.arange(100)
    first = [b.tolist() for b, _ in data.batches(x, y, 7, shuffle=True, rng=np.random.default_rng(5))]
    again = [b.tolist() for b, _ in data.batches(x, y, 7, shuffle=True, rng=np.random.default_rng(5), start=4)]
    drawn = np.concatenate(first)
    np.testing.assert_array_equal(np.sort(drawn), x)
    assert (drawn != x).any()
    assert again == first[4:]


@pytest.mark.parametrize(
    ("x", "y", "size", "message"),
    [
        (np.zeros(3), np.zeros(3), 0, "batch_size must be at least 1, got 0"),
        (np.zeros(3), np.zeros(2), 1, "must have the same length, got 3 and 2"),
        (np.zeros(0), np.zeros(0), 1, "x is empty"),
    ],
)
def test_batches_refuses_what_cannot_be(x: np.ndarray, y: np.ndarray, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data.batches(x, y, size)


# ---- pictures


def test_a_28_by_28_grey_picture_is_used_as_it_is(tmp_path: Path) -> None:
    image = data.digits().test_images[0]
    Image.fromarray(image[:, :, 0]).save(tmp_path / "digit.png")
    np.testing.assert_array_equal(data.load_digit(tmp_path / "digit.png"), image)


def test_dark_on_light_is_inverted(tmp_path: Path) -> None:
    image = data.digits().test_images[0]
    Image.fromarray(255 - image[:, :, 0]).save(tmp_path / "digit.png")
    np.testing.assert_array_equal(data.load_digit(tmp_path / "digit.png"), image)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "LA", "I;16"])
@pytest.mark.parametrize("size", [(90, 140), (13, 9), (400, 30)])
def test_any_size_and_mode_becomes_a_centred_digit(tmp_path: Path, mode: str, size: tuple[int, int]) -> None:
    image = Image.new("L", size, 255)
    ImageDraw.Draw(image).rectangle([size[0] // 3, size[1] // 4, size[0] // 2, size[1] // 2], fill=0)
    wide = np.asarray(image).astype(np.uint16) * 257
    image = Image.fromarray(wide) if mode == "I;16" else image.convert(mode)
    image.save(tmp_path / "digit.png")
    digit = data.load_digit(tmp_path / "digit.png")
    assert (digit.shape, digit.dtype) == ((28, 28, 1), np.uint8)
    grey = digit[:, :, 0].astype(float)
    assert max(np.ptp(np.flatnonzero(grey.any(1))), np.ptp(np.flatnonzero(grey.any(0)))) == 19  # 20 pixels long
    for axis in (0, 1):
        centre = grey.sum(1 - axis) @ (np.arange(28) + 0.5) / grey.sum()
        assert abs(centre - 14) <= 0.5


@pytest.mark.parametrize(("dtype", "white"), [("float32", 1), ("float32", 255), ("int32", 255), ("int32", 65535)])
def test_the_range_of_a_wide_picture_is_told_by_its_largest_value(tmp_path: Path, dtype: str, white: int) -> None:
    image = data.digits().test_images[0]
    Image.fromarray((image[:, :, 0] / 255 * white).astype(dtype)).save(tmp_path / "digit.tiff")
    difference = data.load_digit(tmp_path / "digit.tiff").astype(int) - image
    assert abs(difference).max() <= 1
    assert image.max() == 255


def test_an_empty_picture_is_black(tmp_path: Path) -> None:
    Image.new("L", (50, 40), 200).save(tmp_path / "blank.png")
    assert not data.load_digit(tmp_path / "blank.png").any()


def test_unreadable_pictures_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.png: there is no such image"):
        data.load_digit(tmp_path / "nowhere.png")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(DataError, match=r"text\.png: not an image in a format Pillow reads"):
        data.load_digit(tmp_path / "text.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(DataError, match=r"folder\.png: cannot be read: Is a directory"):
        data.load_digit(tmp_path / "folder.png")
    Image.fromarray(np.full((9, 9), np.nan, np.float32)).save(tmp_path / "nan.tiff")
    with pytest.raises(DataError, match=r"nan\.tiff: .*some of its pixels are not finite"):
        data.load_digit(tmp_path / "nan.tiff")
    for suffix in ("png", "jpg"):
        path = tmp_path / f"half.{suffix}"
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:900])
        with pytest.raises(DataError, match=f"half.{suffix}: the image is truncated or corrupt"):
            data.load_digit(path)
