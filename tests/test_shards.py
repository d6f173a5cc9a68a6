"""Samples in tar files: their order, and what can be wrong inside one."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from cnnengine import data
from cnnengine.data import shards
from cnnengine.errors import DataError

from . import tiny_images

CLASSES = tuple(tiny_images.COLOURS)


def _labels(part: data.Part, size: int = 4) -> list[int]:
    return [label for _, labels in part.batches(size) for label in labels.tolist()]


def _names(part: data.TarShards, epoch: int = 0, shuffle: bool = True) -> list[str]:
    samples = part.samples(epoch=epoch, seed=0, start=0, shuffle=shuffle)
    return [sample.name.rpartition(" ")[2] for sample in samples]


def test_patterns_expand() -> None:
    assert shards.expand("a.tar") == ["a.tar"]
    assert shards.expand("s-{08..11}.tar") == ["s-08.tar", "s-09.tar", "s-10.tar", "s-11.tar"]
    assert shards.expand("{0..1}/{0..1}") == ["0/0", "0/1", "1/0", "1/1"]


def test_samples_come_in_order_with_their_pictures(tmp_path: Path) -> None:
    part = data.TarShards(tiny_images.shards(tmp_path), CLASSES)
    assert len(part) == 15
    assert _labels(part) == [i % 3 for i in range(15)]
    images = np.concatenate([x for x, _ in part.batches(4)])
    np.testing.assert_array_equal(images, [np.asarray(tiny_images.picture(i, i % 3)) for i in range(15)])
    with_length = data.TarShards([tmp_path / "missing"], CLASSES, length=7)
    assert len(with_length) == 7


def test_shuffling_mixes_shards_and_samples(tmp_path: Path) -> None:
    part = data.TarShards(tiny_images.shards(tmp_path, (5, 4, 6)), CLASSES, buffer=3)
    straight, first, second = _names(part, shuffle=False), _names(part), _names(part, epoch=1)
    assert sorted(first) == sorted(second) == straight == [f"{i:06d}" for i in range(15)]
    assert len({tuple(straight), tuple(first), tuple(second)}) == 3
    assert _names(part) == first
    whole = data.TarShards(part.shards, CLASSES, buffer=100)  # a buffer for the set: any sample may come first
    assert len({_names(whole, epoch)[0] for epoch in range(30)}) > 8


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_packed_shards_are_read(tmp_path: Path, mode: str) -> None:
    path = tiny_images.tar(tmp_path / "a.tar", tiny_images.shard_files(0, 4), mode)
    part = data.TarShards(path, CLASSES)
    assert (len(part), _labels(part)) == (4, [0, 1, 2, 0])


class _Pipe(io.RawIOBase):
    """A stream that goes forward alone."""

    def __init__(self, content: bytes) -> None:
        self.stream = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        return self.stream.read(size)


def test_a_shard_need_not_be_a_file(tmp_path: Path) -> None:
    path = tiny_images.tar(tmp_path / "a.tar", tiny_images.shard_files(0, 4))
    opened: list[str] = []

    def open_shard(name: str) -> IO[bytes]:
        opened.append(name)
        return _Pipe(path.read_bytes())  # type: ignore[return-value]

    part = data.TarShards("store://{0..1}", CLASSES, open_shard=open_shard)
    assert (len(part), _labels(part)) == (8, [0, 1, 2, 0, 0, 1, 2, 0])
    assert opened == ["store://0", "store://1"] * 2


def test_names_are_grouped_up_to_their_first_dot(tmp_path: Path) -> None:
    png = tiny_images.encoded(tiny_images.picture(0, 0))
    files = {"a/1.PNG": png, "a/1.cls": b"2", "a/1.json": b"{}", "b/1.cls": b"1", "b/1.png": png, "x.y/1.png": png}
    part = data.TarShards(tiny_images.tar(tmp_path / "a.tar", files | {"x.y/1.cls": b"0"}), CLASSES)
    assert (len(part), _labels(part)) == (3, [2, 1, 0])


# ---- what goes wrong


def _faults(part: data.TarShards) -> tuple[list[int], list[str]]:
    with pytest.warns(data.SkippedImage):
        labels = _labels(part, 6)
    return labels, list(part.faults.values())


def test_samples_that_are_not_whole_are_named_and_skipped(tmp_path: Path) -> None:
    files = tiny_images.shard_files(0, 6)
    del files["000001.png"], files["000002.cls"]
    files |= {"000003.cls": b"three", "000004.cls": b"3", "000005.png": files["000005.png"][:100]}
    path = tiny_images.tar(tmp_path / "a.tar", files)
    labels, faults = _faults(data.TarShards(path, CLASSES, on_error="skip"))
    assert labels == [0]
    expected = [
        "000001: expected an image and a .cls, found .cls",
        "000002: expected an image and a .cls, found .png",
        "000003.cls: a class from 0 to 2 expected, found 'three'",
        "000004.cls: a class from 0 to 2 expected, found '3'",
        "000005: the image is truncated or corrupt",
    ]
    assert [fault[: len(f"{path}: {text}")] for fault, text in zip(faults, expected, strict=True)] == [
        f"{path}: {text}" for text in expected
    ]
    with pytest.raises(DataError, match=r"000001: expected an image and a \.cls"):
        list(data.TarShards(path, CLASSES).batches(2))


@pytest.mark.parametrize(
    "damage",
    [
        "cut in a file",
        "cut in a header",
        "cut between two",
        "no archive",
        "missing",
        "a damaged gzip",
        "a damaged header",
    ],
)
def test_a_damaged_shard_is_named_and_the_others_are_read(tmp_path: Path, damage: str) -> None:
    pattern = tiny_images.shards(tmp_path, (3, 3, 3))
    path = tmp_path / "train-001.tar"
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        end = content.index(b"000004.png")  # where a header begins
        broken = {
            "cut in a file": content[: end - 600],
            "cut in a header": content[: end + 60],
            "cut between two": content[:end],
            "no archive": b"no archive" * 100,
            "a damaged gzip": _bent(content),
            "a damaged header": content[:end] + b"x" * 200 + content[end + 200 :],
        }
        path.write_bytes(broken[damage])
    labels, faults = _faults(data.TarShards(pattern, CLASSES, on_error="skip"))
    assert labels[:3] + labels[-3:] == [0, 1, 2] * 2
    assert len(labels) < 9
    assert faults[-1].startswith(f"{path}: missing, truncated or corrupt: ")
    with pytest.raises(DataError, match=r"train-001\.tar: missing, truncated or corrupt"):
        list(data.TarShards(pattern, CLASSES).batches(2))


def _bent(content: bytes) -> bytes:
    packed = gzip.compress(content)
    return packed[:500] + bytes(20) + packed[520:]


def test_names_are_never_paths_to_write_to(tmp_path: Path) -> None:
    png = tiny_images.encoded(tiny_images.picture(0, 0))
    path = tmp_path / "in" / "a.tar"
    path.parent.mkdir()
    tiny_images.tar(path, {"../../escaped.png": png, "../../escaped.cls": b"1", "/abs.png": png, "/abs.cls": b"2"})
    with tarfile.open(path, "a") as archive:
        for kind, name in (
            (tarfile.SYMTYPE, "link.png"),
            (tarfile.LNKTYPE, "hard.png"),
            (tarfile.FIFOTYPE, "fifo.png"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    assert _labels(data.TarShards(path, CLASSES)) == [1, 2]
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.tar", "in"]


def test_a_header_that_promises_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_images.tar(tmp_path / "a.tar", tiny_images.shard_files(0, 2))
    monkeypatch.setattr(shards, "LARGEST", 100)
    with pytest.raises(DataError, match=r"000000\.png: \d+ bytes, or sparse; a file may have at most 100 bytes"):
        list(data.TarShards(path, CLASSES).batches(2))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"shards": []}, DataError, "names no shards"),
        ({"shards": "{5..4}"}, DataError, "names no shards"),
        ({"shards": "a", "channels": 2}, ValueError, "channels must be 1 or 3, buffer at least 1; received 2"),
        ({"shards": "a", "buffer": 0}, ValueError, "buffer at least 1; received 3, 0"),
        ({"shards": "a", "on_error": "ignore"}, ValueError, "on_error must be 'raise' or 'skip', received 'ignore'"),
    ],
)
def test_shards_refuse_what_cannot_be(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        data.TarShards(classes=CLASSES, **arguments)  # type: ignore[arg-type]


@pytest.fixture
def pairs(tmp_path: Path) -> list[tuple[str, int]]:
    """Files with their labels."""
    folder = tiny_images.folders(tmp_path / "images", each=2)
    return [(str(path), label) for label, name in enumerate(CLASSES) for path in sorted((folder / name).iterdir())]


# ---- lists and folders of files


def test_a_list_of_files(pairs: list[tuple[str, int]]) -> None:
    part = data.FileList(iter(pairs), CLASSES)
    assert (len(part), _labels(part)) == (6, [0, 0, 1, 1, 2, 2])
    with pytest.raises(DataError, match=r"its label 3 must lie in \[0, 3\)"):
        data.FileList([*pairs, ("x.png", 3)], CLASSES)
    with pytest.raises(ValueError, match="channels must be 1 or 3, received 4"):
        data.FileList(pairs, CLASSES, channels=4)


def test_a_folder_of_folders(tmp_path: Path) -> None:
    root = tiny_images.folders(tmp_path / "images", each=2)
    (root / ".hidden").mkdir()
    (root / "red" / ".hidden.png").write_bytes(b"")
    (root / "red" / "notes.txt").write_text("no picture")
    (root / "red" / "more").mkdir()
    (root / "red" / "more" / "1.PNG").write_bytes((root / "red" / "000.png").read_bytes())
    (root / "red" / "more" / "round").symlink_to(root / "red", target_is_directory=True)
    part = data.ImageFolder(root)
    assert (part.classes, part.labels.tolist()) == (CLASSES, [0, 0, 1, 1, 2, 2])
    assert data.ImageFolder(root, nested=True).labels.tolist() == [0, 0, 1, 1, 2, 2, 2]
    chosen = data.ImageFolder(root, classes=["red", "black", "green", "blue"])
    assert chosen.labels.tolist() == [3, 3, 2, 2, 0, 0]
    with pytest.raises(DataError, match="the folder green is none of the 2 classes"):
        data.ImageFolder(root, classes=["red", "blue"])
    (root / "yellow").mkdir()
    with pytest.raises(DataError, match=r"yellow: holds no images \(\.bmp"):
        data.ImageFolder(root)


def test_folders_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: cannot be read: No such file"):
        data.ImageFolder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="expected a folder for each class in it"):
        data.ImageFolder(tmp_path)
    with pytest.raises(DataError, match="expected a folder train in it"):
        data.image_folders(tmp_path)


def test_two_parts_of_one_set(tmp_path: Path) -> None:
    tiny_images.folders(tmp_path / "train", each=3)
    tiny_images.folders(tmp_path / "val", each=1)
    images = data.image_folders(tmp_path)
    assert (len(images.train), len(images.test), images.classes) == (9, 3, CLASSES)
    assert images.mean == (0.485, 0.456, 0.406)
    (x, _), *_ = images.test.batches(3)
    np.testing.assert_allclose(
        images.normalize(x), (x / 255 - images.mean) / np.array(images.std), rtol=1e-5, atol=1e-6
    )
    tiny_images.folders(tmp_path / "val" / "white", each=1)
    with pytest.raises(DataError, match="'white' is in one alone"):
        data.image_folders(tmp_path, nested=True)
