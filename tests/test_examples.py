"""The examples run as a reader would run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
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
