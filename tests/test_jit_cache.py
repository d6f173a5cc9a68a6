"""The cache of compiled kernels: whole entries only, whoever else writes or damages them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from cnnengine.errors import KernelError
from cnnengine.jit import cache as cache_module
from cnnengine.jit.cache import Cache, default_cache


class Builder:
    """Counts how often an entry is built."""

    def __init__(self, content: bytes = b"machine code") -> None:
        self.content = content
        self.calls = 0

    def __call__(self) -> bytes:
        self.calls += 1
        return self.content


def only_entry(folder: Path) -> Path:
    (entry,) = folder.iterdir()
    return entry


def test_an_entry_is_built_once(tmp_path: Path) -> None:
    build = Builder()
    for _ in range(2):
        assert Cache(tmp_path / "new").fetch_bytes("key", ".cubin", build) == b"machine code"
    assert build.calls == 1
    assert Cache(tmp_path / "new").size() == (1, only_entry(tmp_path / "new").stat().st_size)


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_entry_is_built_again(tmp_path: Path, damage: str) -> None:
    build = Builder()
    Cache(tmp_path).fetch_bytes("key", ".cubin", build)
    entry = only_entry(tmp_path)
    content = entry.read_bytes()
    entry.write_bytes({"truncate": content[:20], "flip": b"M" + content[1:], "empty": b""}[damage])
    assert Cache(tmp_path).fetch_bytes("key", ".cubin", build) == b"machine code"
    assert build.calls == 2
    assert only_entry(tmp_path).read_bytes() == content


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise KernelError("no")

    with pytest.raises(KernelError):
        Cache(tmp_path).fetch("key", ".so", fail)
    assert list(tmp_path.iterdir()) == []


def test_the_least_recently_used_entries_go(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=3000)
    for age, key in ((300, "a"), (200, "b")):
        path = cache.fetch(key, "", lambda p: p.write_bytes(bytes(1000)) and None)
        then = time.time() - age
        os.utime(path, (then, then))
    cache.fetch_bytes("a", "", Builder())  # used: now the youngest
    cache.fetch_bytes("c", "", Builder(bytes(1000)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["k-a", "k-c"]


def test_an_entry_larger_than_the_cache_stays_until_the_next(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=100)
    assert cache.fetch("large", "", lambda p: p.write_bytes(bytes(1000)) and None).is_file()


def test_clear_removes_entries_only(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    (tmp_path / "somebody's file").write_text("stays")
    for key in "ab":
        cache.fetch_bytes(key, "", Builder())
    assert cache.clear() == 2
    assert [p.name for p in tmp_path.iterdir()] == ["somebody's file"]
    assert cache.size() == (0, 0)


FILL = """
import sys, time
from pathlib import Path
from cnnengine.jit.cache import Cache

def slowly(path):
    with path.open("wb") as file:
        for part in range(64):
            file.write(bytes([part]) * 4096)
            file.flush()
            time.sleep(0.001)

for _ in range(5):
    path = Cache(Path(sys.argv[1])).fetch("shared", ".so", slowly)
    content = path.read_bytes()
    assert content[:-32] == b"".join(bytes([part]) * 4096 for part in range(64))
    path.unlink(missing_ok=True)
"""


def test_several_processes_fill_the_cache_at_once(tmp_path: Path) -> None:
    """Each fetches the same entry, checks that it is whole and removes it, so that the others build it again."""
    racing = FILL.replace(
        "content = path.read_bytes()", "try: content = path.read_bytes()\n    except FileNotFoundError: continue"
    )
    processes = [subprocess.Popen([sys.executable, "-c", racing, str(tmp_path)]) for _ in range(3)]
    assert [p.wait(60) for p in processes] == [0, 0, 0]
    assert [p for p in tmp_path.iterdir() if p.name.startswith("building-")] == []


COUNT_BUILDS = """
import os, sys, time
from pathlib import Path
from cnnengine.jit.cache import Cache

folder = Path(sys.argv[1])

def slowly(path):
    (folder / f"built-by-{os.getpid()}").touch()
    time.sleep(0.5)
    path.write_bytes(b"machine code")

Cache(folder / "cache").fetch("shared", ".so", slowly)
"""


def test_an_entry_that_is_being_built_is_waited_for(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="files cannot be locked here")
    processes = [subprocess.Popen([sys.executable, "-c", COUNT_BUILDS, str(tmp_path)]) for _ in range(4)]
    assert [p.wait(60) for p in processes] == [0, 0, 0, 0]
    assert len(list(tmp_path.glob("built-by-*"))) == 1


def test_the_folder_is_chosen_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNENGINE_CACHE", str(tmp_path / "chosen"))
    assert default_cache().folder == tmp_path / "chosen"
    monkeypatch.delenv("CNNENGINE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache().folder == tmp_path / "cnnengine"


def test_an_unwritable_folder_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file is no folder, not even for root")
    monkeypatch.setenv("CNNENGINE_CACHE", str(blocked))
    cache_module._writable.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"the kernel cache .*file cannot be written .*set CNNENGINE_CACHE"):
        cache = default_cache()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert default_cache().folder == cache.folder != blocked
    assert cache.fetch_bytes("key", "", Builder()) == b"machine code"
