"""Small sets of pictures on disk, in the layouts that the readers know, for tests."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from cnnengine.data.cifar import CIFAR10_TRAIN

COLOURS = {"blue": (30, 40, 220), "green": (20, 200, 30), "red": (230, 20, 40)}  # sorted, as folders are


def picture(index: int, label: int, size: tuple[int, int] = (24, 20)) -> Image.Image:
    """Noise around the colour of a class; (width, height)."""
    rng = np.random.default_rng((index, label))
    noise = rng.integers(-20, 20, (size[1], size[0], 3))
    return Image.fromarray((noise + list(COLOURS.values())[label]).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    """The bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def folders(root: Path, each: int = 5, size: tuple[int, int] = (24, 20)) -> Path:
    """ROOT/COLOUR/NUMBER.png, ``each`` of them a colour; returns ROOT."""
    for label, name in enumerate(COLOURS):
        (root / name).mkdir(parents=True)
        for i in range(each):
            (root / name / f"{i:03d}.png").write_bytes(encoded(picture(i, label, size)))
    return root


def tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    """An archive of these files."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def shard_files(first: int, count: int) -> dict[str, bytes]:
    """NUMBER.png and NUMBER.cls of pictures ``first`` to ``first + count - 1``; their classes in turn."""
    files = {}
    for i in range(first, first + count):
        files[f"{i:06d}.png"] = encoded(picture(i, i % 3))
        files[f"{i:06d}.cls"] = f"{i % 3}\n".encode()
    return files


def shards(folder: Path, counts: tuple[int, ...] = (5, 4, 6)) -> str:
    """Shards of so many samples each; returns their pattern."""
    for number in range(len(counts)):
        tar(folder / f"train-{number:03d}.tar", shard_files(sum(counts[:number]), counts[number]))
    return str(folder / f"train-{{000..{len(counts) - 1:03d}}}.tar")


class AsPython2(pickle._Pickler):  # type: ignore[name-defined]
    """Writes bytes the way Python 2 wrote its strings, as the published files have them."""

    dispatch = pickle._Pickler.dispatch.copy()  # type: ignore[attr-defined]

    def save_bytes(self, value: bytes) -> None:
        self.write(pickle.BINSTRING + len(value).to_bytes(4, "little") + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


def python2_pickle(value: object) -> bytes:
    """A pickle of protocol 2 as Python 2 and its NumPy wrote it."""
    file = io.BytesIO()
    AsPython2(file, 2).dump(value)
    return file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def cifar10_parts(each: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images (N, 32, 32, 3) and labels of the five training batches and the test batch."""
    rng = np.random.default_rng(0)
    return [
        (rng.integers(0, 256, (each, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, each))
        for _ in (*CIFAR10_TRAIN, "test_batch")
    ]


def planes(images: np.ndarray) -> np.ndarray:
    """Rows of a red, a green and a blue plane."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2).reshape(len(images), -1))
