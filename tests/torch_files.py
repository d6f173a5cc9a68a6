"""Files of ``torch.save`` put together by hand, operation by operation, so that they can be right or wrong at will."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

MAGIC = 0x1950A86A20F9469CFC6C


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    encoded = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def name(dotted: str) -> bytes:
    module, _, attribute = dotted.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


def storage(kind: str, key: str, count: int, view: bytes = b"") -> bytes:
    return b"(" + text("storage") + name(kind) + text(key) + text("cpu") + number(count) + view + b"tQ"


def tensor(held: bytes, size: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, more: bytes = b"") -> bytes:
    hooks = name("collections.OrderedDict") + b")R"
    rebuild = name("torch._utils._rebuild_tensor_v2")
    return call(rebuild, held, number(offset), numbers(size), numbers(strides), b"\x89", hooks, more)


def mapping(entries: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def pickled(value: bytes) -> bytes:
    return b"\x80\x02" + value + b"."


def write_zip(path: Path, value: bytes, storages: Mapping[str, bytes], **options: object) -> Path:
    """``byteorder`` and ``compression`` are options."""
    with zipfile.ZipFile(path, "w", options.get("compression", zipfile.ZIP_STORED)) as archive:  # type: ignore[call-overload]
        archive.writestr("archive/data.pkl", pickled(value))
        if "byteorder" in options:
            archive.writestr("archive/byteorder", str(options["byteorder"]))
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key}", content)
        archive.writestr("archive/version", "3\n")
    return path


def write_legacy(path: Path, value: bytes, storages: Mapping[str, tuple[int, bytes]], version: int = 1001) -> Path:
    """``storages``: the number of elements and the bytes of each."""
    system = mapping({"protocol_version": number(1001), "little_endian": b"\x88"})
    keys = b"](" + b"".join(map(text, storages)) + b"e"
    parts = [number(MAGIC), number(version), system, value, keys]
    content = [struct.pack("<q", count) + raw for count, raw in storages.values()]
    path.write_bytes(b"".join(map(pickled, parts)) + b"".join(content))
    return path
