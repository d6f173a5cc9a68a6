"""The examples run as a reader would run them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cnnengine as cnn

from . import tiny_mnist

ROOT = Path(__file__).resolve().parent.parent


def run(example: str, *arguments: str, cwd: Path) -> str:
    """What the example prints. Raises CalledProcessError, with its output shown, where it fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / example), *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_feature_map_goes_step_by_step(tmp_path: Path) -> None:
    text = run("feature_map.py", cwd=tmp_path)
    first, second = text.split("row 0, column 1", 1)
    assert "10*1 + 10*0 + 20*-1 = -10" in first
    assert "together -30" in first
    assert "10*1 + 20*0 + 30*-1 = -20" in second
    assert second.index("together -60") < second.index("row 0, column 2")
    assert text.count("together") == 9
    assert "equal to the map by hand" in text
    with Image.open(tmp_path / "feature_map.png") as image:
        assert min(image.size) >= 300


def test_train_digits_learns_and_saves(tmp_path: Path) -> None:
    text = run("train_digits.py", "1", cwd=tmp_path)
    accuracy = float(text.split("test accuracy ")[1].rstrip("%\n"))
    assert accuracy > 90
    cnn.models.lenet5().load_state_dict(cnn.load(tmp_path / "lenet5.safetensors"))


def test_make_digits_draws_the_same_number_of_each_class(tmp_path: Path) -> None:
    digits = cnn.data.digits()
    tiny_mnist.write(tmp_path, train=10_000, test=2_000)  # exactly as many as it draws: it takes them all
    run("make_digits.py", "--root", str(tmp_path), "--out", "made.npz", cwd=tmp_path)
    with np.load(tmp_path / "made.npz") as made:
        np.testing.assert_array_equal(made["train_images"], digits.train_images[:, :, :, 0])
        np.testing.assert_array_equal(made["test_labels"], digits.test_labels)
        np.testing.assert_array_equal(made["test_rows"], np.arange(2000))


def speedrun_module() -> Any:
    spec = importlib.util.spec_from_file_location("cifar10_speedrun", ROOT / "examples/cifar10_speedrun.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_speedrun_whitens_and_starts_as_the_identity() -> None:
    example = speedrun_module()
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (64, 32, 32, 1), np.uint8).repeat(3, 3) // np.array([1, 2, 3], np.uint8)
    pictures = example.Pictures(images, np.zeros(64, np.int64), ((0.5, 0.3, 0.2), (0.3, 0.2, 0.1)), "float32")
    filters = example.whitening(pictures).reshape(24, 12)
    np.testing.assert_array_equal(filters[:12], -filters[12:])
    patches = np.concatenate(
        [pictures.images[:, r : r + 31, s : s + 31].reshape(-1, 3) for r in (0, 1) for s in (0, 1)], axis=1
    ).astype(np.float64)
    moments = (patches @ filters[:12].T).T @ (patches @ filters[:12].T) / len(patches)
    values = np.linalg.eigvalsh(patches.T @ patches / len(patches))
    np.testing.assert_allclose(moments, np.diag(values / (values + 5e-4)), atol=2e-3)
    conv = example.identity_conv(3, 5)
    x = cnn.Tensor(generator.standard_normal((1, 4, 4, 3), np.float32))
    np.testing.assert_allclose(conv(x).numpy()[..., :3], x.numpy(), atol=1e-6)


def test_speedrun_moves_and_mirrors_pictures() -> None:
    example = speedrun_module()
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    pictures = example.Pictures(images, np.arange(2), (0.0, 1 / 255), "float32")
    pixels, chosen = np.arange(4), np.array([1])
    seen = pictures.view(chosen, pixels[None] - 1, pixels[None, ::-1] + 2).numpy()
    padded = np.pad(images[1:], ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    np.testing.assert_allclose(seen, padded[:, 1:5, 4:8][:, :, ::-1], rtol=1e-5)
    batches = list(pictures.epoch(np.zeros(2, bool), 1))
    assert sorted(int(labels[0]) for _, labels in batches) == [0, 1]
    assert example.schedule(0, 100) == 0.2
    assert example.schedule(23, 100) == 1.0
    assert example.schedule(100, 100) == pytest.approx(0.07)


def test_speedrun_learns_two_colours() -> None:
    """Six epochs of 64 pictures, told apart by their colour, with every part of the recipe."""
    example = speedrun_module()
    cnn.manual_seed(0)
    generator = np.random.default_rng(0)
    labels = np.arange(96) % 2
    images = generator.integers(0, 128, (96, 32, 32, 3), np.uint8)
    images[..., 0] += (labels * 127).astype(np.uint8)[:, None, None]
    recipe = example.Recipe(epochs=6, batch=16, widths=(24, 24, 24), dtype="float32", averaging_from=2)
    parts = images[:64], labels[:64], images[64:], labels[64:]
    dataset = cnn.data.Dataset("colours", *parts, tuple("abcdefghij"), (0.4, 0.3, 0.3), (0.25,) * 3)
    lines: list[str] = []
    found = example.speedrun(dataset, recipe, "cpu", lines.append)
    assert found["accuracy"] == 1.0
    assert found["seconds"] > 0
    assert len(lines) == 6
