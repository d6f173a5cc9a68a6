"""PyTorch's files without PyTorch: numbers come back bit for bit, and nothing in a file is ever run."""

from __future__ import annotations

import io
import os
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cnnengine as cnn
from cnnengine import torch_file
from cnnengine._pickled import PickleReader

from . import torch_files as by_hand
from .compare import assert_identical

FLOAT = "torch.FloatStorage"
KINDS = {  # torch.<kind>Storage
    "Double": np.float64,
    "Float": np.float32,
    "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16,
    "ComplexDouble": np.complex128,
    "ComplexFloat": np.complex64,
    "Long": np.int64,
    "Int": np.int32,
    "Short": np.int16,
    "Char": np.int8,
    "Byte": np.uint8,
    "Bool": np.bool_,
}


def floats(count: int = 24) -> np.ndarray:
    return np.arange(count, dtype=np.float32)


def one_tensor(size: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, count: int = 24) -> bytes:
    return by_hand.mapping({"w": by_hand.tensor(by_hand.storage(FLOAT, "0", count), size, strides, offset)})


def good_zip(path: Path, **options: object) -> Path:
    return by_hand.write_zip(path, one_tensor((4, 3, 2), (6, 2, 1)), {"0": floats().tobytes()}, **options)


def good_legacy(path: Path) -> Path:
    return by_hand.write_legacy(path, one_tensor((4, 3, 2), (6, 2, 1)), {"0": (24, floats().tobytes())})


# ---- what is read


@pytest.mark.parametrize("kind", KINDS)
def test_each_dtype_in_both_formats(tmp_path: Path, kind: str) -> None:
    array = (np.arange(12) % 5).astype(KINDS[kind])
    held = by_hand.storage(f"torch.{kind}Storage", "0", 12)
    value = by_hand.mapping({"w": by_hand.tensor(held, (3, 4), (4, 1)), "t": by_hand.tensor(held, (4, 2), (1, 4), 4)})
    for path in (
        by_hand.write_zip(tmp_path / "zip.pt", value, {"0": array.tobytes()}),
        by_hand.write_legacy(tmp_path / "legacy.pt", value, {"0": (12, array.tobytes())}),
    ):
        read = torch_file.read(path)
        assert_identical(read["w"], array.reshape(3, 4))
        assert_identical(read["t"], np.ascontiguousarray(array.reshape(3, 4)[1:].T))


def test_numbers_of_a_big_endian_machine(tmp_path: Path) -> None:
    path = good_zip(tmp_path / "little.pt", byteorder="little", compression=zipfile.ZIP_DEFLATED)
    assert_identical(torch_file.read(path)["w"], floats().reshape(4, 3, 2))
    swapped = floats().astype(">f4").tobytes()
    path = by_hand.write_zip(tmp_path / "big.pt", one_tensor((24,), (1,)), {"0": swapped}, byteorder="big")
    assert_identical(torch_file.read(path)["w"], floats())
    half = np.arange(24).astype(ml_dtypes.bfloat16)
    value = by_hand.mapping({"w": by_hand.tensor(by_hand.storage("torch.BFloat16Storage", "0", 24), (24,), (1,))})
    turned = half.view(np.uint16).astype(">u2").tobytes()
    path = by_hand.write_zip(tmp_path / "bigger.pt", value, {"0": turned}, byteorder="big")
    assert_identical(torch_file.read(path)["w"], half)


def test_dtypes_without_a_storage_of_their_own(tmp_path: Path) -> None:
    array = np.array([1, 2, 2**63], np.uint64)
    rebuild = by_hand.name("torch._utils._rebuild_tensor_v3")
    held = by_hand.storage("torch.storage.UntypedStorage", "0", array.nbytes)
    arguments = [by_hand.number(0), by_hand.numbers((3,)), by_hand.numbers((1,)), b"\x89", b"N"]
    value = by_hand.mapping({"w": by_hand.call(rebuild, held, *arguments, by_hand.name("torch.uint64"))})
    path = by_hand.write_zip(tmp_path / "w.pt", value, {"0": array.tobytes()})
    assert_identical(torch_file.read(path)["w"], array)


def test_shapes_of_every_kind(tmp_path: Path) -> None:
    held = by_hand.storage(FLOAT, "0", 24)
    parts = {
        "scalar": by_hand.tensor(held, (), (), 5),
        "empty": by_hand.tensor(held, (0, 7), (7, 1)),
        "repeated": by_hand.tensor(held, (3, 2), (0, 1), 4),
        "one": by_hand.tensor(held, (1, 2), (10**12, 1)),
        "parameter": by_hand.call(
            by_hand.name("torch._utils._rebuild_parameter"), by_hand.tensor(held, (2,), (12,)), b"\x88", b"N"
        ),
    }
    path = by_hand.write_zip(tmp_path / "w.pt", by_hand.mapping(parts), {"0": floats().tobytes()})
    read = torch_file.read(path)
    assert_identical(read["scalar"], np.array(5, np.float32))
    assert read["empty"].shape == (0, 7)
    assert_identical(read["repeated"], np.array([[4, 5]] * 3, np.float32))
    assert_identical(read["one"], np.array([[0, 1]], np.float32))
    assert_identical(read["parameter"], np.array([0, 12], np.float32))


def test_plain_containers_keep_their_kind(tmp_path: Path) -> None:
    ordered = by_hand.name("collections.OrderedDict") + b")R(" + by_hand.text("b") + b"Nu"
    attributes = ordered + by_hand.mapping({"_metadata": b"}"}) + b"b"
    size = by_hand.call(by_hand.name("torch.Size"), by_hand.numbers((2, 3)))
    tensor = by_hand.tensor(by_hand.storage(FLOAT, "0", 2), (2,), (1,))
    plain = [b"N", b"\x88", b"\x89", by_hand.number(7), by_hand.number(-(2**70)), b"G?\xf8" + bytes(6)]
    value = by_hand.mapping(
        {"list": b"](" + b"".join(plain) + b"e", "size": size, "ordered": attributes, "pair": tensor + b"N\x86"}
    )
    path = by_hand.write_zip(tmp_path / "w.pt", value, {"0": floats(2).tobytes()})
    read = torch_file.read(path)
    assert read["list"] == [None, True, False, 7, -(2**70), 1.5]
    assert read["size"] == (2, 3)
    assert dict(read["ordered"]) == {"b": None}
    assert_identical(read["pair"][0], floats(2))


def test_a_view_of_a_storage_in_the_old_format(tmp_path: Path) -> None:
    view = b"(" + by_hand.text("1") + by_hand.number(4) + by_hand.number(6) + b"t"
    value = by_hand.mapping({"w": by_hand.tensor(by_hand.storage(FLOAT, "0", 24, view), (3,), (2,), 1)})
    read = torch_file.read(by_hand.write_legacy(tmp_path / "w.pt", value, {"0": (24, floats().tobytes())}))
    assert_identical(read["w"], np.array([5, 7, 9], np.float32))


def test_load_torch_finds_the_state_dict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it would fail
    conv = by_hand.tensor(by_hand.storage(FLOAT, "0", 24), (2, 3, 2, 2), (12, 4, 2, 1))
    flat = {"module.conv.weight": conv}
    nested = {"epoch": by_hand.number(3), "state_dict": by_hand.mapping(flat)}
    model = {"model": by_hand.mapping({"_orig_mod.module.conv.weight": conv})}
    for entries in (flat, nested, model):
        path = by_hand.write_zip(tmp_path / "w.pth", by_hand.mapping(entries), {"0": floats().tobytes()})
        state = cnn.load_torch(path)
        assert list(state) == ["conv.weight"]
        np.testing.assert_array_equal(state["conv.weight"], floats().reshape(2, 3, 2, 2).transpose(0, 2, 3, 1))
    assert list(cnn.load_torch({"module.a": floats(), "b": floats()})) == ["module.a", "b"]  # not before all
    assert cnn.load_torch({"a": floats().astype(ml_dtypes.bfloat16)})["a"].dtype == ml_dtypes.bfloat16
    path = by_hand.write_zip(tmp_path / "list.pth", b"]", {})
    with pytest.raises(cnn.DataError, match=r"list\.pth: expected a state dict, found list"):
        cnn.load_torch(path)


def test_a_real_checkpoint_of_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    kinds = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64]
    base = torch.arange(24, dtype=torch.float32)
    saved: dict[str, Any] = {f"{k}": base.reshape(2, 3, 4).to(k).permute(2, 0, 1)[1:, :, ::2] for k in kinds}
    saved |= {"parameter": torch.nn.Parameter(base.reshape(4, 6)), "shared": base[3:9], "scalar": torch.tensor(2.5)}
    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    saved |= layer.state_dict()
    for new in (True, False):
        torch.save(saved, tmp_path / "w.pt", _use_new_zipfile_serialization=new)
        read = torch_file.read(tmp_path / "w.pt")
        assert list(read) == list(saved)
        for name, value in saved.items():
            bits = value.detach().contiguous()
            if value.dtype == torch.bfloat16:
                assert read[name].dtype == ml_dtypes.bfloat16
                assert read[name].tobytes() == bits.view(torch.int16).numpy().tobytes()
            else:
                assert_identical(read[name], bits.numpy(), name)
        torch.save(layer.state_dict(), tmp_path / "w.pt", _use_new_zipfile_serialization=new)
        assert cnn.load_torch(tmp_path / "w.pt")["0.weight"].shape == (4, 3, 3, 3)
    torch.save(torch.tensor([0, 1, 2], dtype=torch.uint16), tmp_path / "w.pt")
    assert_identical(torch_file.read(tmp_path / "w.pt"), np.arange(3, dtype=np.uint16))


# ---- what is refused, by name, and not run


class Calls:
    """Pickles as a call of anything."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class Stateful:
    def __init__(self) -> None:
        self.inner = Calls(os.system, "touch {marker}")


def marker_call(marker: Path) -> dict[str, Any]:
    return {
        "posix.system": Calls(os.system, f"touch {marker}"),
        "builtins.eval": Calls(eval, f"open({str(marker)!r}, 'w')"),
        "builtins.getattr": Calls(getattr, "text", "upper"),
        "numpy._core.multiarray.scalar": np.float64(3),
        "numpy._core.multiarray._reconstruct": np.zeros(3),
        "copy_reg._reconstructor": Stateful(),
    }


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("name", list(marker_call(Path())))
def test_what_is_no_tensor_is_refused_by_name_and_not_run(tmp_path: Path, name: str, protocol: int) -> None:
    marker = tmp_path / "ran"
    value = pickle.dumps({"state_dict": {"w": marker_call(marker)[name]}}, protocol)
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("archive/data.pkl", value)
    expected = name.replace("posix", os.system.__module__)
    if name.startswith("copy_reg") and protocol >= 2:
        expected = f"{__name__}.Stateful"
    if name.endswith("._reconstruct") and protocol == 5:
        expected = "numpy._core.numeric._frombuffer"
    if protocol < 3:
        expected = expected.replace("builtins", "__builtin__")  # what Python 2 called it
    with pytest.raises(cnn.DataError, match=r"w\.pt: data\.pkl (refers to|has the pickle operation)") as caught:
        cnn.load_torch(tmp_path / "w.pt")
    assert expected in str(caught.value)
    assert "byte" in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (by_hand.name("os.system") + by_hand.text("true") + b"\x85R", "refers to os.system at byte 2"),
        (b"cos\nsystem\n.", "refers to os.system"),
        (b"(S'true'\nios\nsystem\n", "pickle operation INST at byte"),
        (b"\x8c\x02os\x8c\x06system\x93", "refers to os.system"),
        (by_hand.name("torch.FloatStorage") + b")R", "calls torch.FloatStorage at byte"),
        (by_hand.name("torch.Size") + b")\x81", "pickle operation NEWOBJ at byte"),
        (by_hand.text("f") + b")R", "calls a str at byte"),
        (b"\x82\x01", "pickle operation EXT1"),
        (by_hand.name("collections.OrderedDict") + by_hand.numbers((1, 2)) + b"\x85R", "damaged"),
        (by_hand.name("torch.Size") + by_hand.numbers((1,)) + b"\x85R}b", "a tuple where a dict should be"),
        (b"}" + by_hand.numbers((1, 2)) + b"Ns", "a dict has a key of type tuple"),
        (by_hand.number(1) + b"a", "damaged"),
        (b"h\x05", "damaged near byte 2"),
        (b"0", "damaged near byte 2"),
        (b"(0", "damaged"),
        (b"t", "no mark on the stack"),
        (b"", "damaged"),
        (by_hand.text("module") + b"\x85Q", "refers to 'module' in the file; expected a storage"),
    ],
)
def test_other_tricks_are_refused(tmp_path: Path, value: bytes, message: str) -> None:
    path = by_hand.write_zip(tmp_path / "w.pt", value, {})
    with pytest.raises(cnn.DataError, match=message) as caught:
        torch_file.read(path)
    assert str(path) in str(caught.value)


def test_containers_that_hold_themselves_or_are_deep_end(tmp_path: Path) -> None:
    read = torch_file.read(by_hand.write_zip(tmp_path / "w.pt", b"]q\x00h\x00a", {}))
    assert read[0] is read
    deep = torch_file.read(by_hand.write_zip(tmp_path / "deep.pt", b")" + b"\x85" * 100_000, {}))
    assert len(deep) == 1
    doubled = by_hand.numbers((1,)) + b"2\x86" * 60  # 2**60 leaves, were they visited one by one
    assert len(torch_file.read(by_hand.write_zip(tmp_path / "doubled.pt", doubled, {}))) == 2


# ---- files that are damaged, or say too much


@pytest.mark.parametrize(
    ("size", "strides", "offset"),
    [
        ((25,), (1,), 0),
        ((24,), (1,), 1),
        ((4, 6), (7, 1), 0),
        ((2,), (24,), 0),
        ((1,), (1,), 24),
        ((2,), (2**62,), 0),
        ((2, 2), (2**70, 1), 0),
    ],
)
def test_a_tensor_that_leaves_its_storage_is_refused(
    tmp_path: Path, size: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> None:
    value, raw = one_tensor(size, strides, offset), floats().tobytes()
    for path in (
        by_hand.write_zip(tmp_path / "zip.pt", value, {"0": raw}),
        by_hand.write_legacy(tmp_path / "legacy.pt", value, {"0": (24, raw)}),
    ):
        with pytest.raises(cnn.DataError, match=r"leaves storage '0', which has 24 elements"):
            torch_file.read(path)


@pytest.mark.parametrize(
    ("size", "strides", "offset", "message"),
    [
        ((-1,), (1,), 0, "damaged storage, offset, size or stride"),
        ((2,), (-1,), 1, "damaged storage, offset, size or stride"),
        ((2,), (1,), -1, "damaged storage, offset, size or stride"),
        ((2, 2), (1,), 0, "2 sizes and 1 strides"),
        ((2**30, 2**30), (0, 0), 0, "unfolds to far more than the file's .* bytes can hold"),
        ((2**30,), (0,), 0, "unfolds to far more"),
        ((0, 2**62, 2**62), (1, 1, 1), 0, "impossible size"),
        ((1,) * 33, (1,) * 33, 0, "33 sizes"),
    ],
)
def test_impossible_tensors_are_refused(
    tmp_path: Path, size: tuple[int, ...], strides: tuple[int, ...], offset: int, message: str
) -> None:
    path = by_hand.write_zip(tmp_path / "w.pt", one_tensor(size, strides, offset), {"0": floats().tobytes()})
    with pytest.raises(cnn.DataError, match=message):
        torch_file.read(path)


def test_storages_that_do_not_agree_are_refused(tmp_path: Path) -> None:
    value = one_tensor((24,), (1,))
    for content, message in (({}, "storage archive/data/0 is missing"), ({"0": bytes(95)}, "has 95 bytes; .* 96")):
        with pytest.raises(cnn.DataError, match=message):
            torch_file.read(by_hand.write_zip(tmp_path / "w.pt", value, content))
    twice = by_hand.storage(FLOAT, "0", 24) + by_hand.storage("torch.LongStorage", "0", 24) + b"\x86"
    with pytest.raises(cnn.DataError, match="describes storage '0' in two ways"):
        torch_file.read(by_hand.write_zip(tmp_path / "w.pt", twice, {"0": bytes(96)}))
    with pytest.raises(cnn.DataError, match=r"storage of type torch\.QInt8Storage|refers to torch\.QInt8Storage"):
        torch_file.read(by_hand.write_zip(tmp_path / "w.pt", by_hand.storage("torch.QInt8Storage", "0", 1), {}))
    for storages, message in (
        ({"1": (24, bytes(96))}, "list of storages does not agree"),
        ({"0": (23, bytes(96))}, "has 23 elements; its pickle says 24"),
        ({"0": (24, bytes(95))}, "truncated: storage '0' should have 96 bytes more"),
    ):
        with pytest.raises(cnn.DataError, match=message):
            torch_file.read(by_hand.write_legacy(tmp_path / "w.pt", value, storages))
    view = b"(" + by_hand.text("1") + by_hand.number(20) + by_hand.number(6) + b"t"
    value = by_hand.mapping({"w": by_hand.tensor(by_hand.storage(FLOAT, "0", 24, view), (3,), (1,))})
    with pytest.raises(cnn.DataError, match="a view of 6 elements from 20 on leaves storage '0'"):
        torch_file.read(by_hand.write_legacy(tmp_path / "w.pt", value, {"0": (24, bytes(96))}))


def test_a_zip_bomb_is_refused_before_it_unfolds(tmp_path: Path) -> None:
    count = 64 << 20
    value = by_hand.mapping({"w": by_hand.tensor(by_hand.storage("torch.ByteStorage", "0", count), (1,), (1,))})
    path = by_hand.write_zip(tmp_path / "w.pt", value, {"0": bytes(count)}, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(cnn.DataError, match=r"archive/data/0 unfolds to far more than the file's \d+ bytes"):
        torch_file.read(path)


def test_what_is_no_file_of_torch_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>not found</html>")
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with zipfile.ZipFile(tmp_path / "script.pth", "w") as archive:
        for member in ("data.pkl", "constants.pkl"):
            archive.writestr(f"net/{member}", b"")
    with zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("net/data.pkl", by_hand.pickled(b"N"))
    for name, message in (
        ("nowhere.pth", "cannot be read: No such file"),
        ("", "cannot be read: Is a directory"),
        ("empty.pth", "the file is empty"),
        ("page.pth", "neither a zip archive nor PyTorch's magic number; it begins with b'<!DOCTYPE html><'"),
        ("other.pth", r"a zip archive without one data\.pkl, which torch\.save writes; it has readme\.txt"),
        ("script.pth", "a TorchScript archive, which holds a program"),
        ("packed.pth", r"net/data\.pkl is compressed by method 12"),
    ):
        with pytest.raises(cnn.DataError, match=message):
            cnn.load_torch(tmp_path / name)
    with pytest.raises(cnn.DataError, match="protocol version 1002; expected 1001"):
        torch_file.read(by_hand.write_legacy(tmp_path / "w.pt", b"N", {}, version=1002))
    with pytest.raises(cnn.DataError, match="byteorder is 'middle'; expected little or big"):
        torch_file.read(good_zip(tmp_path / "w.pt", byteorder="middle"))


@pytest.mark.parametrize("write", [good_zip, good_legacy])
def test_every_truncation_is_named(tmp_path: Path, write: Any) -> None:
    path = write(tmp_path / "w.pt")
    content = path.read_bytes()
    assert_identical(torch_file.read(path)["w"], floats().reshape(4, 3, 2))
    for end in range(len(content)):
        with pytest.raises(cnn.DataError, match=r"w\.pt: "):
            torch_file.read_from(io.BytesIO(content[:end]), path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(legacy=st.booleans(), changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255))))
def test_changed_bytes_give_an_object_or_a_data_error(
    tmp_path: Path, legacy: bool, changes: list[tuple[float, int]]
) -> None:
    path = tmp_path / f"w{legacy}"
    if not path.exists():
        (good_legacy if legacy else good_zip)(path)
    content = bytearray(path.read_bytes())
    for where, byte in changes:
        content[int(where * len(content))] = byte
    try:
        torch_file.read_from(io.BytesIO(content), "w.pt")
    except cnn.DataError as error:
        said = str(error)
    else:
        said = "w.pt: read"
    assert "w.pt: " in said


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=200) | st.lists(st.sampled_from(b"()]}tdlsaueQRbX\x85\x86\x87N20h\x00q.")).map(bytes))
def test_any_bytes_as_a_pickle_give_an_object_or_a_data_error(content: bytes) -> None:
    reader = PickleReader(io.BytesIO(content), "w.pt", "data.pkl", {"torch.Size": tuple}, lambda identity: identity)
    try:
        reader.read()
    except cnn.DataError as error:
        said = str(error)
    else:
        said = "w.pt: data.pkl is read"
    assert "w.pt: data.pkl" in said
