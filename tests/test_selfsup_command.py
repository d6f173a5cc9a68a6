"""``cnnengine selfsup``: its files, its refusals, and going on after Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnengine import cli
from cnnengine.commands import selfsup as command
from cnnengine.selfsup import label_curves, linear_probe, pretraining

ARGUMENTS = (
    *("selfsup", "simclr", "--train", "120", "--test", "40", "--epochs", "2", "--batch-size", "32"),
    *("--shares", "0.25,1", "--scratch-epochs", "1", "--backend", "native"),
)
FOLDER = Path("runs/selfsup-simclr-digits")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(label_curves, "linear_probe", partial(linear_probe, steps=50))


def _error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert cli.main([*arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.strip()


def test_a_run_leaves_its_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*ARGUMENTS]) == 0
    out = capsys.readouterr().out
    result = json.loads((FOLDER / "selfsup.json").read_text())
    assert result["settings"] | {"epochs": 2, "model": "lenet5", "method": "simclr"} == result["settings"]
    assert (result["data"], result["train_images"], result["test_images"], result["features"]) == (
        "digits",
        120,
        40,
        84,
    )
    assert [row["epoch"] for row in result["history"]] == [1, 2]
    assert len(result["rows"]) == 2 * 5
    assert result["command"].startswith("cnnengine selfsup simclr --data digits --epochs 2 --batch-size 32")
    table = (FOLDER / "selfsup.md").read_text().split("\n\n")[0]
    assert table in out
    row = next(row for row in result["rows"] if row["how"] == "pretrained, probe" and row["share"] == 1)
    assert f"| 120 (100 %) | {100 * row['accuracy']:.2f} |" in table
    assert {"encoder.safetensors", "pretraining.safetensors", "scratch-120"} <= {p.name for p in FOLDER.iterdir()}
    message = _error(capsys, *ARGUMENTS)
    assert message.endswith(f"{FOLDER} holds a run already: go on with --resume, or begin anew with --overwrite")
    assert cli.main([*ARGUMENTS, "--resume", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["rows"] == result["rows"]
    assert "epoch   1/2" not in captured.err
    assert cli.main([*ARGUMENTS, "--overwrite", "--scratch-epochs", "0", "--shares", "1"]) == 0
    assert len(json.loads((FOLDER / "selfsup.json").read_text())["rows"]) == 4


def test_the_picture_has_both_halves() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'cnnengine[plot]'")
    assert cli.main([*ARGUMENTS, "--scratch-epochs", "0"]) == 0
    with Image.open(FOLDER / "selfsup.png") as file:
        picture = np.asarray(file.convert("RGB")).astype(int)
    found = np.argwhere((np.abs(picture - (0, 0x72, 0xB2)) < 8).all(2))
    middle = picture.shape[1] / 2
    assert (found[:, 1] < middle).sum() > 50
    assert (found[:, 1] > middle).sum() > 50


def test_without_matplotlib_there_is_no_picture(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert cli.main([*ARGUMENTS, "--scratch-epochs", "0", "--shares", "1"]) == 0
    assert "no picture: matplotlib is not installed (pip install 'cnnengine[plot]')" in capsys.readouterr().out
    assert not (FOLDER / "selfsup.png").exists()


def test_what_was_interrupted_goes_on(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    step, steps = pretraining._step, 0

    def press(*arguments: object) -> float:
        nonlocal steps
        steps += 1
        if steps == 5:  # of 3 an epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pretraining, "_step", press)
    assert cli.main([*ARGUMENTS]) == 143
    assert "interrupted; to go on:\n  cnnengine selfsup simclr --data digits" in capsys.readouterr().err
    assert cli.main([*ARGUMENTS, "--resume"]) == 0
    assert steps == 5 + 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("masked", "--model", "lenet5"), "--model is for simclr and rotation: masked has a transformer of its own"),
        (("simclr", "--seed", "-1"), "--seed must be at least 0, received -1"),
        (("simclr", "--scratch-epochs", "-1"), "--scratch-epochs must be at least 0, received -1"),
        (("simclr", "--temperature", "0"), "temperature must be above 0, received 0.0"),
        (("simclr", "--warmup", "9", "--epochs", "3"), "warmup must be less than the 3 epochs, received 9.0"),
        (("simclr", "--shares", "0,1"), "must lie in (0, 1], received 0,1"),
        (("simclr", "--train", "20"), "digits: 20 images make no batch of 256"),
        (("simclr", "--data", "cifar10", "--root", "nowhere"), "CIFAR-10 is not in nowhere"),
        (("jigsaw",), "invalid choice: 'jigsaw'"),
    ],
)
def test_what_cannot_be_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    capsys.readouterr()
    assert cli.main(["selfsup", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not Path("runs").exists()
