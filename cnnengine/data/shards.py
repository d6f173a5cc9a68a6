"""Images in tar files that are read from end to end, for sets that are larger than a disk is quick.

The convention is WebDataset's: files of one name up to its first dot belong together and lie side by side, as in
``000001.jpg``, ``000001.cls``; a set is many such archives ("shards"), ``train-000000.tar`` and so on.
"""

from __future__ import annotations

import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby, islice
from typing import IO

import numpy as np
from PIL import Image

from ..errors import DataError
from .decode import MODES, SUFFIXES
from .folder import read_sample
from .part import OnError, Part, Sample

IMAGE_SUFFIXES = tuple(suffix[1:] for suffix in SUFFIXES)
LABEL_SUFFIX = "cls"  # a file with the number of the class, in decimal digits
LARGEST = 1 << 28  # bytes of a file in a shard: a header is quickly written that promises more than there is memory
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
Files = dict[str, bytes]  # of one sample, by suffix


def expand(pattern: str) -> list[str]:
    """``"train-{000..012}.tar"`` as 13 names; without braces the pattern; several braces in every combination."""
    found = RANGE.search(pattern)
    if found is None:
        return [pattern]
    first, last = found.groups()
    names = [f"{pattern[: found.start()]}{i:0{len(first)}d}" for i in range(int(first), int(last) + 1)]
    return [name + rest for name in names for rest in expand(pattern[found.end() :])]


class TarShards(Part):
    """The samples of ``shards``: a pattern such as ``"train-{000000..000099}.tar"``, or an iterable of paths.

    Each shard, packed with gzip, bz2, xz or not, is read from its beginning to its end in this process and never
    unpacked to disk; pictures are decoded by the workers. Shuffling permutes the shards and draws from a buffer of
    ``buffer`` samples, which holds their encoded bytes. ``length``, the number of samples, saves ``len()`` a walk
    through all shards. ``open_shard`` opens a shard by its name, for those that are no files; it need not seek.
    Raises DataError for a pattern that names no shards. What is wrong inside a shard is an image that cannot be read.
    """

    def __init__(
        self,
        shards: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        classes: Iterable[str],
        *,
        channels: int = 3,
        buffer: int = 1000,
        length: int | None = None,
        open_shard: Callable[[str], IO[bytes]] | None = None,
        on_error: OnError = "raise",
    ) -> None:
        if isinstance(shards, str | os.PathLike):
            self.shards = expand(os.fspath(shards))
        else:
            self.shards = [os.fspath(shard) for shard in shards]
        super().__init__(self.shards[0] if self.shards else "shards", tuple(classes), on_error)
        if not self.shards:
            raise DataError(f"TarShards: {shards!r} names no shards")
        if channels not in MODES or buffer < 1:
            raise ValueError(f"TarShards: channels must be 1 or 3, buffer at least 1; received {channels}, {buffer}")
        self.channels = channels
        self.buffer = buffer
        self._length = length
        self._open = open_shard or _open

    def __len__(self) -> int:
        if self._length is None:
            self._length = sum(1 for shard in self.shards for _ in self._read(shard, contents=False))
        return self._length

    def samples(self, *, epoch: int, seed: int, start: int, shuffle: bool) -> Iterator[Sample]:
        if not shuffle:
            return islice(self._samples(range(len(self.shards))), start, None)
        # the last word of the counter is beyond any shard's number
        rng = np.random.Generator(np.random.Philox(key=(seed, epoch), counter=(0, 0, 0, 2**63 + 1)))
        order = map(int, rng.permutation(len(self.shards)))
        return islice(_shuffled(self._samples(order), self.buffer, rng), start, None)

    def reader(self) -> Callable[[Sample], Image.Image]:
        return partial(read_sample, channels=self.channels)

    def _samples(self, order: Iterable[int]) -> Iterator[Sample]:
        for shard in order:
            for index, (name, files) in enumerate(self._read(self.shards[shard], contents=True)):
                if not isinstance(files, DataError):
                    try:
                        image, label = self._image_and_label(name, files)
                        yield Sample(index, label, name, image, shard)
                        continue
                    except DataError as error:
                        files = error
                yield Sample(index, 0, name, files, shard)

    def _image_and_label(self, name: str, files: Files) -> tuple[bytes, int]:
        image = next((files[suffix] for suffix in IMAGE_SUFFIXES if suffix in files), None)
        if image is None or LABEL_SUFFIX not in files:
            raise DataError(f"{name}: expected an image and a .{LABEL_SUFFIX}, found .{', .'.join(files)}")
        text = files[LABEL_SUFFIX][:32].decode("latin1").strip()
        if not text.isascii() or not text.isdigit() or int(text) >= len(self.classes):
            raise DataError(
                f"{name}.{LABEL_SUFFIX}: a class from 0 to {len(self.classes) - 1} expected, found {text!r}"
            )
        return image, int(text)

    def _read(self, shard: str, contents: bool) -> Iterator[tuple[str, Files | DataError]]:
        """Name and files of each sample, and an error in the place of the samples behind which a shard is damaged."""
        try:
            with self._open(shard) as file:
                packed = contents or not file.seekable()
                with tarfile.open(fileobj=file, mode="r|*" if packed else "r:*") as archive:
                    members = (member for member in archive if member.isreg())
                    for key, group in groupby(members, key=lambda member: _split(member.name)[0]):
                        files = {}
                        for member in group:
                            files[_split(member.name)[1]] = self._content(archive, member) if contents else b""
                        yield f"{shard}: {key}", files
        except DataError as error:
            yield shard, error
        except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            yield shard, DataError(f"{shard}: missing, truncated or corrupt: {error}")

    def _content(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
        if member.size > LARGEST or member.issparse():
            raise DataError(f"{member.name}: {member.size} bytes, or sparse; a file may have at most {LARGEST} bytes")
        file = archive.extractfile(member)
        content = file.read() if file is not None else b""
        if len(content) != member.size:
            raise tarfile.ReadError(f"{member.name} has {len(content)} of {member.size} bytes")
        return content


def _open(shard: str) -> IO[bytes]:
    return open(shard, "rb")


def _split(name: str) -> tuple[str, str]:
    """What a sample's files have in common, and the suffix, in small letters."""
    folder, slash, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    return folder + slash + stem, suffix.lower()


def _shuffled(samples: Iterator[Sample], size: int, rng: np.random.Generator) -> Iterator[Sample]:
    """A buffer is filled; then each sample goes to the place of one drawn from it."""
    buffer = list(islice(samples, size))
    for sample in samples:
        place = int(rng.integers(len(buffer)))
        buffer[place], sample = sample, buffer[place]
        yield sample
    for place in map(int, rng.permutation(len(buffer))):
        yield buffer[place]
