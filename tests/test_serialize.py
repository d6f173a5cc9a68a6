"""Weights on disk: what is saved comes back bit for bit; what is broken is named and never half-written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import cnnengine as cnn
from cnnengine.serialize import load_with_metadata, write_atomically

from .compare import assert_identical

DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint64", "uint8", "bool"]


@pytest.fixture
def arrays(rng: np.random.Generator) -> dict[str, np.ndarray]:
    made = {name: rng.integers(0, 2, (3, 2, 5)).astype(np.dtype(name)) for name in DTYPES}
    return made | {"scalar": np.array(2.5, np.float32), "none": np.empty((0, 4), np.float32)}


def test_what_is_saved_is_loaded(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    cnn.save(arrays, tmp_path / "w.safetensors")
    loaded = cnn.load(tmp_path / "w.safetensors")
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        assert loaded[name].shape == array.shape
        assert loaded[name].tobytes() == array.tobytes()


def test_tensors_and_any_memory_order_are_saved(tmp_path: Path, rng: np.random.Generator) -> None:
    array = rng.standard_normal((4, 6)).astype(np.float32)
    cnn.save({"t": cnn.Tensor(array), "transposed": array.T, "every second": array[:, ::2]}, tmp_path / "w.safetensors")
    loaded = cnn.load(tmp_path / "w.safetensors")
    assert_identical(loaded["t"], array)
    assert_identical(loaded["transposed"], np.ascontiguousarray(array.T))
    assert_identical(loaded["every second"], np.ascontiguousarray(array[:, ::2]))


def test_the_same_input_gives_the_same_bytes_with_metadata(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    metadata = {f"key {i}": f"välue {i}" for i in range(9)}
    for name in ("a", "b"):
        cnn.save(arrays, tmp_path / name, metadata=metadata)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert load_with_metadata(tmp_path / "a")[1] == metadata


def test_other_programs_read_our_files_and_we_theirs(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    del arrays["bfloat16"]  # safetensors writes it for NumPy but does not read it
    cnn.save(arrays, tmp_path / "ours", metadata={"a": "b"})
    safetensors.numpy.save_file(arrays, tmp_path / "theirs")
    theirs, ours = safetensors.numpy.load_file(tmp_path / "ours"), cnn.load(tmp_path / "theirs")
    for name, array in arrays.items():
        assert_identical(theirs[name], array)
        assert_identical(ours[name], array)


def test_loaded_arrays_are_writeable(tmp_path: Path) -> None:
    cnn.save({"a": np.zeros(3, np.float32)}, tmp_path / "w")
    cnn.load(tmp_path / "w")["a"][0] = 1


def test_other_dtypes_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="save: z has dtype complex128; expected a floating-point"):
        cnn.save({"z": np.zeros(2, np.complex128)}, tmp_path / "w")
    with pytest.raises(TypeError, match="save: words has dtype <U5"):
        cnn.save({"words": np.array(["hello"])}, tmp_path / "w")
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(cnn.DataError, match="nowhere: cannot be read: No such file"):
        cnn.load(tmp_path / "nowhere")
    with pytest.raises(cnn.DataError, match="cannot be read: Is a directory"):
        cnn.load(tmp_path)


@pytest.mark.parametrize("cut", [0, 1, 8, 30, -1])
def test_a_truncated_file_is_named(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "w.safetensors"
    cnn.save({"a": np.arange(100, dtype=np.float32)}, path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(
        cnn.DataError, match=rf"{path}: not a whole safetensors file \(.* bytes\): truncated or corrupt"
    ):
        cnn.load(path)


@pytest.mark.parametrize(
    "change", [(0, b"\xff" * 8), (8, b"????"), (20, b"\x00" * 10)], ids=["length", "header start", "header inside"]
)
def test_a_corrupt_header_is_named(tmp_path: Path, change: tuple[int, bytes]) -> None:
    path = tmp_path / "w.safetensors"
    cnn.save({"a": np.arange(100, dtype=np.float32)}, path)
    content = bytearray(path.read_bytes())
    content[change[0] : change[0] + len(change[1])] = change[1]
    path.write_bytes(content)
    with pytest.raises(cnn.DataError, match="truncated or corrupt"):
        cnn.load(path)


def test_a_dtype_numpy_cannot_hold_is_named(tmp_path: Path) -> None:
    content = safetensors.numpy.save({"a": np.zeros(4, ml_dtypes.float8_e5m2)})
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(cnn.DataError, match="a has dtype F8_E5M2; expected one of F64, F32"):
        cnn.load(tmp_path / "w")


# ---- writing beside and renaming


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere" / "file", Path("/proc/file")):
        with pytest.raises(OSError, match=f"'{path}'$"):
            cnn.save({"a": np.zeros(3)}, path)
    assert not list(tmp_path.iterdir())


def test_a_written_file_can_be_read_by_others_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"a")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    path.chmod(0o600)
    write_atomically(path, b"b")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# ---- PyTorch's checkpoints


def test_load_torch_turns_convolution_weights_once(tmp_path: Path, rng: np.random.Generator) -> None:
    state = {
        "conv.weight": rng.standard_normal((8, 3, 5, 4)).astype(np.float32),
        "conv.bias": rng.standard_normal(8).astype(np.float32),
        "linear.weight": rng.standard_normal((10, 8)).astype(np.float32),
        "count": np.array(3),
    }
    cnn.save(state, tmp_path / "w.safetensors")
    for source in (state, tmp_path / "w.safetensors"):
        loaded = cnn.load_torch(source)
        assert loaded["conv.weight"].shape == (8, 5, 4, 3)
        assert loaded["conv.weight"].flags.c_contiguous
        np.testing.assert_array_equal(loaded["conv.weight"], np.moveaxis(state["conv.weight"], 1, 3))
        for name in ("conv.bias", "linear.weight", "count"):
            assert_identical(loaded[name], state[name])


def test_load_torch_reads_a_checkpoint_of_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    conv = torch.nn.Conv2d(3, 4, (2, 5), bias=True)
    torch.save(conv.state_dict(), tmp_path / "w.pt")
    torch.save({"state_dict": conv.state_dict(), "epoch": 3}, tmp_path / "wrapped.pth")
    for source in (conv.state_dict(), tmp_path / "w.pt", tmp_path / "wrapped.pth"):
        loaded = cnn.load_torch(source)
        np.testing.assert_array_equal(loaded["weight"], conv.weight.detach().permute(0, 2, 3, 1).numpy())
        np.testing.assert_array_equal(loaded["bias"], conv.bias.detach().numpy())
    half = cnn.load_torch({"w": torch.ones(2, dtype=torch.bfloat16)})["w"]
    assert_identical(half, np.ones(2, ml_dtypes.bfloat16))


def test_load_torch_names_what_it_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(cnn.DataError, match="load_torch: epoch is not an array of numbers but str"):
        cnn.load_torch({"epoch": "three"})
