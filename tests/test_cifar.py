"""CIFAR in every layout, and what is wrong with one; pickles are read without running them."""

from __future__ import annotations

import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnengine import data
from cnnengine.data.cifar import CIFAR10_CLASSES, CIFAR10_TRAIN
from cnnengine.data.pickles import read_pickle
from cnnengine.errors import DataError

from . import tiny_images
from .harness import LONG

NAMES = (*CIFAR10_TRAIN, "test_batch")
PARTS = tiny_images.cifar10_parts()


def _python_files(dump: Callable[[object], bytes]) -> dict[str, bytes]:
    batches = [{b"data": tiny_images.planes(images), b"labels": labels.tolist()} for images, labels in PARTS]
    return {name: dump(batch) for name, batch in zip(NAMES, batches, strict=True)}


def _binary_files() -> dict[str, bytes]:
    rows = [np.c_[labels.astype(np.uint8), tiny_images.planes(images)] for images, labels in PARTS]
    return {f"{name}.bin": row.tobytes() for name, row in zip(NAMES, rows, strict=True)}


def _write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _check(root: Path) -> None:
    cifar = data.cifar10(root)
    assert (cifar.name, cifar.classes) == ("CIFAR-10", CIFAR10_CLASSES)
    np.testing.assert_array_equal(cifar.train_images, np.concatenate([images for images, _ in PARTS[:5]]))
    np.testing.assert_array_equal(cifar.train_labels, np.concatenate([labels for _, labels in PARTS[:5]]))
    np.testing.assert_array_equal(cifar.test_images, PARTS[5][0])
    np.testing.assert_array_equal(cifar.test_labels, PARTS[5][1])
    assert cifar.train_labels.dtype == np.int64
    assert cifar.train_images.flags.c_contiguous


@pytest.mark.parametrize(
    "folder",
    [
        "cifar-10-batches-py",
        "cifar-10-batches-py-target/cifar-10-batches-py",
        "datasets/cifar-10-batches-py",
        "datasets/cifar-10-batches-py-target/cifar-10-batches-py",
    ],
)
def test_cifar10_is_read_from_python_2_pickles(tmp_path: Path, folder: str) -> None:
    _write(tmp_path / folder, _python_files(tiny_images.python2_pickle))
    _check(tmp_path)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_cifar10_is_read_from_pickles_written_again(tmp_path: Path, protocol: int) -> None:
    _write(tmp_path / "cifar-10-batches-py", _python_files(lambda value: pickle.dumps(value, protocol)))
    _check(tmp_path)


def test_cifar10_is_read_from_binary_files_and_archives(tmp_path: Path) -> None:
    _write(tmp_path / "a" / "cifar-10-batches-bin", _binary_files())
    _check(tmp_path / "a")
    for name, folder, files in (
        ("cifar-10-binary.tar.gz", "cifar-10-batches-bin", _binary_files()),
        ("cifar-10-python.tar.gz", "cifar-10-batches-py", _python_files(tiny_images.python2_pickle)),
    ):
        root = tmp_path / folder
        root.mkdir()
        tiny_images.tar(root / name, {f"{folder}/{key}": value for key, value in files.items()}, "w:gz")
        _check(root)
        assert [path.name for path in root.iterdir()] == [name]


@pytest.mark.parametrize("coarse", [False, True])
def test_cifar100_has_fine_and_coarse_labels(tmp_path: Path, coarse: bool) -> None:
    names = {b"fine_label_names": [b"apple", b"baby", b"bear"], b"coarse_label_names": [b"fruit", b"people"]}
    (train, fine), (test, _) = PARTS[0], PARTS[1]
    fine, rough = fine % 3, fine % 2
    files = {"meta": tiny_images.python2_pickle(names)}
    binary = {key.decode() + ".txt": b"\n".join(value) + b"\n" for key, value in names.items()}
    for name, images in (("train", train), ("test", test)):
        rows = tiny_images.planes(images)
        batch = {b"data": rows, b"fine_labels": fine.tolist(), b"coarse_labels": rough.tolist()}
        files[name] = tiny_images.python2_pickle(batch)
        binary[f"{name}.bin"] = np.c_[rough.astype(np.uint8), fine.astype(np.uint8), rows].tobytes()
    _write(tmp_path / "python" / "cifar-100-python", files)
    _write(tmp_path / "binary" / "cifar-100-binary", binary)
    for layout in ("python", "binary"):
        cifar = data.cifar100(tmp_path / layout, coarse=coarse)
        assert cifar.classes == (("fruit", "people") if coarse else ("apple", "baby", "bear"))
        np.testing.assert_array_equal(cifar.train_images, train)
        np.testing.assert_array_equal(cifar.test_labels, rough if coarse else fine)


def _jpeg_file(path: Path, damage: Callable[[dict[str, np.ndarray]], None] = lambda arrays: None) -> None:
    arrays: dict[str, np.ndarray] = {"classes": np.array(CIFAR10_CLASSES)}
    for part, (images, labels) in (("train", PARTS[0]), ("test", PARTS[5])):
        streams = [tiny_images.encoded(Image.fromarray(image), "JPEG") for image in images]
        arrays[f"jpeg_{part}"] = np.frombuffer(b"".join(streams), np.uint8)
        arrays[f"offset_{part}"] = np.cumsum([0, *map(len, streams)])
        arrays[f"label_{part}"] = labels.astype(np.uint8)
    damage(arrays)
    np.savez(path, **arrays)


def test_cifar10_is_read_from_jpeg_streams_and_says_so(tmp_path: Path) -> None:
    _jpeg_file(tmp_path / "cifar10_jpeg_c.npz")
    cifar = data.cifar10(tmp_path)
    assert cifar.name == "CIFAR-10 (JPEG)"
    np.testing.assert_array_equal(cifar.test_labels, PARTS[5][1])
    assert cifar.train_images.shape == PARTS[0][0].shape
    assert abs(cifar.train_images.astype(float).mean() - PARTS[0][0].mean()) < 3  # noise survives JPEG badly


def test_damaged_jpeg_streams_are_named(tmp_path: Path) -> None:
    path = tmp_path / "cifar10_jpeg_c.npz"

    def cut(arrays: dict[str, np.ndarray]) -> None:
        arrays["offset_test"][2] -= 400  # the second stream ends early

    _jpeg_file(path, cut)
    with pytest.raises(DataError, match="test image 1: the image is truncated or corrupt"):
        data.cifar10(tmp_path)
    _jpeg_file(path, lambda arrays: arrays.update(offset_train=arrays["offset_train"][:-1]))
    with pytest.raises(DataError, match="train images: the offsets do not fit 4 labels"):
        data.cifar10(tmp_path)
    _jpeg_file(path, lambda arrays: arrays.__delitem__("classes"))
    with pytest.raises(DataError, match="not the file of JPEG streams"):
        data.cifar10(tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="not the file of JPEG streams"):
        data.cifar10(tmp_path)


@LONG
def test_the_real_jpeg_set(shared: Path) -> None:
    if not (shared / "data" / "cifar10_jpeg_c.npz").is_file():
        pytest.skip("cifar10_jpeg_c.npz is not in the folder of real data")
    cifar = data.cifar10(shared / "data")
    assert np.bincount(cifar.train_labels).tolist() == [5000] * 10
    assert np.bincount(cifar.test_labels).tolist() == [1000] * 10
    mean, std = data.moments(cifar.train_images)
    np.testing.assert_allclose([*mean, *std], [*cifar.mean, *cifar.std], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data_batch_2.bin", b"short", "data_batch_2.bin: truncated: records of 3073 bytes expected, 5 bytes found"),
        ("test_batch.bin", b"", "test_batch.bin: truncated"),
    ],
)
def test_broken_binary_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    _write(tmp_path / "cifar-10-batches-bin", _binary_files() | {name: content})
    with pytest.raises(DataError, match=message):
        data.cifar10(tmp_path)


def test_missing_sets_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"CIFAR-10 is not in {tmp_path}: expected cifar-10-batches-py/"):
        data.cifar10(tmp_path)
    with pytest.raises(DataError, match=f"CIFAR-100 is not in {tmp_path}: expected cifar-100-python/"):
        data.cifar100(tmp_path)
    files = _binary_files()
    del files["data_batch_3.bin"]
    _write(tmp_path / "cifar-10-batches-bin", files)
    with pytest.raises(DataError, match=r"data_batch_3\.bin: cannot be read: No such file"):
        data.cifar10(tmp_path)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz: truncated or corrupt archive"):
        data.cifar10(tmp_path)


def test_what_a_pickle_holds_is_checked(tmp_path: Path) -> None:
    def refuse(batch: object, message: str) -> None:
        content = tiny_images.python2_pickle(batch)
        (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(content)
        with pytest.raises(DataError, match=message):
            data.cifar10(tmp_path)

    _write(tmp_path / "cifar-10-batches-py", _python_files(tiny_images.python2_pickle))
    refuse([1, 2], "test_batch: expected a dictionary, found list")
    refuse({b"data": np.zeros((2, 3073), np.uint8)}, r"'data' must be an array of uint8 \(N, 3072\), found uint8")
    refuse({b"data": np.zeros((2, 3072), np.float32)}, "found float32")
    refuse({b"data": np.zeros((2, 3072), np.uint8), b"labels": b"no"}, "'labels' must be a list of ints")
    refuse({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, "test.* has 2 images and 1 labels")
    refuse({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}, r"labels must lie in \[0, 10\), found 10")


# ---- pickles


class _Call:
    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self.reduced


def _nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


HOSTILE = {
    "os.system": (pickle.dumps(_Call(os.system, "touch pwned")), "posix.system|nt.system"),
    "eval in a dictionary": (pickle.dumps({b"data": _Call(eval, "1")}), "builtins.eval"),
    "a class": (pickle.dumps(Path("x")), "pathlib"),
    "objects in an array": (pickle.dumps(np.array([print, None]), 2), "an array of|builtins.print|print"),
    "a short array": (pickle.dumps(np.zeros(4, np.uint8), 2).replace(b"K\x04", b"K\x05"), r"shape \(5,\) with 4 bytes"),
    "a function's defaults": (
        b"c_codecs\nencode\nN}U\x0c__defaults__Nsb.".replace(b"N}", b"}", 1),
        "a change to a function",
    ),
    "a call of ndarray": (b"cnumpy\nndarray\n(K\x05tR.", "a call of numpy.ndarray"),
    "a name alone": (b"cnumpy\nndarray\n.", "a value of Global"),
    "the old way to make an object": (b"(S'ls'\nios\nsystem\n.", "INST"),
    "a persistent name": (b"Pname\n.", "PERSID"),
    "a memo of gigabytes": (b"\x80\x02]r\xff\xff\xff\x7f.", "2147483647 memorised values"),
    "deep nesting": (pickle.dumps(_nested(400)), "nested"),
    "truncated": (pickle.dumps([1, 2, 3])[:-3], "truncated or corrupt"),
    "no pickle": (b"\x00\x01\x02", "truncated or corrupt"),
    "empty": (b"", "truncated or corrupt"),
    "more bytes than there are": (b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00ab.", "truncated or corrupt"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_pickle_is_refused_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.chdir(tmp_path)
    content, message = HOSTILE[case]
    with pytest.raises(DataError, match=f"^batch: .*({message})"):
        read_pickle(content, "batch")
    assert not list(tmp_path.iterdir())  # nothing ran


def test_plain_pickles_are_read(rng: np.random.Generator) -> None:
    value = {b"a": [1, 2.5, None, True, b"x", "y"], "b": ({"c": [-3]},)}
    assert read_pickle(pickle.dumps(value), "x") == value
    for array in (rng.integers(0, 256, (3, 4), dtype=np.uint8), np.asfortranarray(rng.random((2, 5)))):
        np.testing.assert_array_equal(read_pickle(pickle.dumps(array, 2), "x"), array)


def test_an_archive_is_never_written_to_disk(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    files = {f"cifar-10-batches-bin/{name}": content for name, content in _binary_files().items()}
    files |= {"../escaped": b"x", "/tmp/cifar-10-batches-bin/escaped": b"x"}
    path = tiny_images.tar(root / "cifar-10-binary.tar", files)
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("cifar-10-batches-bin/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    path.rename(root / "cifar-10-batches-bin.tar.gz")  # told by its content, not by its name
    _check(root)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["cifar-10-batches-bin.tar.gz", "root"]
