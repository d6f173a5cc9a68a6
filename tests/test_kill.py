"""``kill -9`` at random moments: the run goes on from its last checkpoint and ends with the bits of one left alone.

Three kills; with CNNENGINE_LONG=1 also fifty.
"""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from . import tiny_mnist
from .harness import LONG

ROOT = Path(__file__).resolve().parent.parent
SECONDS_AN_EPOCH = 0.05  # at the least; the epochs are so many that all kills come before the end
STARTING = 0.4  # seconds that the command needs before it trains
LONGEST = 0.1  # seconds from a first checkpoint to a kill: several steps, each with a checkpoint behind it
# everything that a checkpoint has to hold: averages, half of a group of batches, positions of random numbers
SETTINGS: dict[str, str] = {
    "batch-size": "16",
    "accumulate": "2",
    "ema": "0.9",
    "optimizer": "adamw",
    "lr": "1e-3",
    "schedule": "one_cycle",
    "mixup": "0.2",
    "cutmix": "0.5",
    "label-smoothing": "0.1",
    "clip-norm": "5",
    "augment": "crop,flip",
    "seed": "3",
}


def _start(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "cnnengine", "train", "lenet5", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _written(path: Path) -> int:
    """When, in nanoseconds; 0: never."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "epochs.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    "kills",
    [3, pytest.param(50, marks=LONG)],
)
def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path, kills: int) -> None:
    root = tiny_mnist.write(tmp_path / "data")
    epochs = str(round(kills * (LONGEST + STARTING / 5 + 0.03) / SECONDS_AN_EPOCH) + 4)
    settings = ["--data", "mnist", "--root", str(root), "--epochs", epochs]
    settings += [text for name, value in SETTINGS.items() for text in (f"--{name}", value)]
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    checkpoint = parts / "checkpoint.safetensors"
    places = []
    for kill in range(kills):
        again = checkpoint.is_file()
        run = ["--run-dir", str(parts), "--checkpoint-every", "1", "--resume" if again else "--overwrite"]
        process = _start(*([] if again else settings), *run)
        anywhere = kill % 5 == 4  # every fifth: while it starts, reads the checkpoint or trains
        if not anywhere:
            before = _written(checkpoint)
            while _written(checkpoint) == before:
                assert process.poll() is None, process.communicate()[0]
                time.sleep(0.001)
        time.sleep(random.uniform(0, STARTING + LONGEST if anywhere else LONGEST))
        process.send_signal(signal.SIGKILL)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, f"it ended before kill {kill + 1}: {out}"
        places += [line for line in out.splitlines() if line.startswith("resumed behind epoch ")]
    assert len(set(places)) >= (kills - 1) * 4 // 5 - 1, f"too few places: {places}"
    for run in (["--run-dir", str(parts), "--resume"], [*settings, "--run-dir", str(whole)]):
        process = _start(*run)
        try:
            out, _ = process.communicate(timeout=1200)
        finally:
            process.kill()
        assert process.returncode == 0, out
    for name in ("model.safetensors", "best.safetensors"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name
    assert _rows(parts) == _rows(whole)
    assert {p.name for p in parts.iterdir()} == {p.name for p in whole.iterdir()}  # nothing half-written is left
