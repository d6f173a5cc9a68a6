"""Compiled kernels on disk.

Each entry is one file that ends with the SHA-256 of everything before it; a shared object and a cubin load the same
with those bytes behind them, and a torn or damaged entry is noticed and built again. An entry is written beside its
place and renamed, so that several processes may fill the cache at once and all of them see whole files; one that wants
what another is building waits for it. Reading an entry makes it the youngest; when the cache passes its limit the
oldest go.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

LIMIT_BYTES = 1 << 30  # many thousand kernels of a GPU, or all of the emulator's in every kind of build
DIGEST_BYTES = hashlib.sha256().digest_size
ENTRY_PREFIX = "k-"  # only such files are counted and removed


class Cache:
    """Files by key under ``folder``, at most ``limit`` bytes of them."""

    def __init__(self, folder: Path, limit: int = LIMIT_BYTES) -> None:
        self.folder = folder
        self.limit = limit

    def fetch(self, key: str, suffix: str, build: Callable[[Path], None]) -> Path:
        """The entry's file; where it is absent or damaged ``build`` writes it to the path it is given first. What
        ``build`` raises passes through and leaves no entry."""
        path = self._path(key, suffix)
        if _use(path):
            return path
        self.folder.mkdir(parents=True, exist_ok=True)
        with _turn(self.folder / f"building-{key}{suffix}.lock"):
            if not _use(path):  # another process has built it meanwhile
                self._build(path, suffix, build)
        self._trim(keep=path)
        return path

    def _build(self, path: Path, suffix: str, build: Callable[[Path], None]) -> None:
        handle, name = tempfile.mkstemp(prefix="building-", suffix=suffix, dir=self.folder)
        os.close(handle)
        building = Path(name)
        try:
            build(building)
            with building.open("rb+") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
                file.seek(0, os.SEEK_END)
                file.write(digest)
            building.replace(path)
        finally:
            building.unlink(missing_ok=True)

    def fetch_bytes(self, key: str, suffix: str, build: Callable[[], bytes]) -> bytes:
        """As ``fetch``, for a content that is bytes."""

        def write(path: Path) -> None:
            path.write_bytes(build())

        while True:
            path = self.fetch(key, suffix, write)
            try:
                return path.read_bytes()[:-DIGEST_BYTES]
            except FileNotFoundError:  # another process cleared the cache in between
                continue

    def has(self, key: str, suffix: str) -> bool:
        """Whether the entry is there and whole; if so it is the youngest from now on."""
        return _use(self._path(key, suffix))

    def size(self) -> tuple[int, int]:
        """(entries, bytes)"""
        sizes = [size for _, size, _ in self._entries()]
        return len(sizes), sum(sizes)

    def clear(self) -> int:
        """Removes every entry; returns how many there were. Kernels already loaded keep working."""
        removed = 0
        for _, _, path in self._entries():
            path.unlink(missing_ok=True)
            removed += 1
        return removed

    def _path(self, key: str, suffix: str) -> Path:
        return self.folder / f"{ENTRY_PREFIX}{key}{suffix}"

    def _entries(self) -> list[tuple[float, int, Path]]:
        """(time of last use, bytes, path), oldest first"""
        found = []
        for path in self.folder.glob(f"{ENTRY_PREFIX}*"):
            try:
                stat = path.stat()
            except FileNotFoundError:  # another process was faster
                continue
            found.append((stat.st_mtime, stat.st_size, path))
        return sorted(found)

    def _trim(self, keep: Path) -> None:
        entries = self._entries()
        total = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if total <= self.limit:
                return
            if path != keep:
                path.unlink(missing_ok=True)
                total -= size


@contextmanager
def _turn(lock: Path) -> Iterator[None]:
    """One process at a time is in the block; where files cannot be locked, several may be."""
    with lock.open("w") as file:
        if fcntl is not None:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _use(path: Path) -> bool:
    """Whether the entry is there and whole; if so it is the youngest from now on."""
    try:
        content = path.read_bytes()
        whole = hashlib.sha256(content[:-DIGEST_BYTES]).digest() == content[-DIGEST_BYTES:]
        if whole:
            os.utime(path)
    except FileNotFoundError:
        return False
    return whole


def default_folder() -> Path:
    """``CNNENGINE_CACHE``, else ``cnnengine`` in the user's cache folder."""
    chosen = os.environ.get("CNNENGINE_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "cnnengine"


def default_cache() -> Cache:
    """The cache in ``default_folder()``; where that cannot be written, warns once and uses a temporary folder that is
    removed at exit."""
    return Cache(_writable(default_folder()))


@lru_cache(maxsize=8)
def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        temporary = tempfile.mkdtemp(prefix="cnnengine-")
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        reason = error.strerror or str(error)
        warnings.warn(
            f"the kernel cache {folder} cannot be written ({reason}); kernels of this process are kept in {temporary}"
            " and compiled again by the next one: set CNNENGINE_CACHE to a writable folder",
            RuntimeWarning,
            stacklevel=3,
        )
        return Path(temporary)
