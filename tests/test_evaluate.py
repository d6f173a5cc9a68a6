"""The evaluation command: a score that is counted by hand, and goes on where it was interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
from cnnengine import cli, data, nn
from cnnengine.models import registry
from cnnengine.training import scoring
from cnnengine.training.scoring import Score, places

from . import tiny_images

SIDE = 8
CLASSES = ("beige", "blue", "cyan", "green", "mauve", "red", "white")
CHANNEL = {"red": 0, "green": 1, "blue": 2}


def colours(num_classes: int = len(CLASSES)) -> nn.Sequential:
    """A network that tells colours by the mean of their channel; other classes have a constant."""
    return nn.Sequential({"flatten": nn.Flatten(), "linear": nn.Linear(SIDE * SIDE * 3, num_classes)})


PREPROCESSING = data.Preprocessing(SIDE, SIDE, "bilinear", mean=0.0, std=1.0)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(registry.ENTRIES, "colours", registry.Entry(colours, (SIDE, SIDE, 3), PREPROCESSING))
    weight = np.zeros((len(CLASSES), SIDE, SIDE, 3), np.float32)
    for name, channel in CHANNEL.items():
        weight[CLASSES.index(name), :, :, channel] = 1 / SIDE**2
    bias = np.array([0.5 * (name not in CHANNEL) for name in CLASSES], np.float32)
    state = {"linear.weight": weight.reshape(len(CLASSES), -1), "linear.bias": bias}
    facts = {"classes": CLASSES}
    cnn.save(state, "colours.safetensors", metadata={"cnnengine": json.dumps(facts)})
    tiny_images.folders(tmp_path / "images", each=5)


ARGUMENTS = ("evaluate", "colours", "--weights", "colours.safetensors", "--data", "images", "--batch-size", "4")


def _run(capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    capsys.readouterr()
    assert cli.main([*ARGUMENTS, "--json", *more]) == 0
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def _error(capsys: pytest.CaptureFixture[str], *more: str) -> str:
    capsys.readouterr()
    assert cli.main([*ARGUMENTS, *more]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("cnnengine: error: ")
    return captured.err.removeprefix("cnnengine: error: ").strip()


def _mislabel() -> None:
    """Two red pictures among the blue ones, which look blue fourth; one green one with the reds, whose red is last."""
    for i, (folder, label) in enumerate((("blue", 2), ("blue", 2), ("red", 1))):
        tiny_images.picture(i, label).save(Path("images") / folder / f"wrong{i}.png")


def test_the_errors_are_those_counted_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(list(ARGUMENTS)) == 0
    out = capsys.readouterr().out
    assert "colours on images: 15 images\ntop-1 error 0.00 %, top-5 error 0.00 % in " in out
    _mislabel()
    # of a red picture: red .9, then four times .5, then blue .16 > green .08; of a green one: blue .12 > red .08
    result = _run(capsys)
    assert result["images"] == 18
    assert result["top1_error"] == pytest.approx(3 / 18, abs=1e-6)
    assert result["top5_error"] == pytest.approx(3 / 18, abs=1e-6)
    assert result["skipped"] == {}
    assert _run(capsys, "--workers", "2")["top1_error"] == result["top1_error"]
    assert _run(capsys, "--backend", "numpy", "--limit", "6")["images"] == 6


def test_places_count_what_comes_before() -> None:
    nan = np.nan
    logits = np.array([[1.0, 3, 2, 0], [1, 1, 1, 1], [nan, 0, 1, 2], [nan, 0, 1, 2]], np.float32)
    assert places(logits, np.array([0, 2, 0, 1])).tolist() == [2, 2, 4, 2]
    score = Score().with_batch(np.array([0, 4, 5, 0]), 1.5)
    assert (score.top1_error, score.top5_error, score.seconds) == (0.5, 0.25, 1.5)


@pytest.mark.parametrize(
    ("folders", "lines", "expected"),
    [
        (CLASSES, None, [1, 3, 5]),  # the classes' own names
        (("n0", "n1", "n2"), "n5\nn0 blue, azure\nn6\nn1 green\nn7\nn2 red\n", [1, 3, 5]),
        (("n0", "n1", "n2"), None, None),
    ],
)
def test_which_class_a_folder_is(
    capsys: pytest.CaptureFixture[str], folders: tuple[str, ...], lines: str | None, expected: list[int] | None
) -> None:
    if folders != CLASSES:
        for old, new in zip(tiny_images.COLOURS, folders, strict=True):
            (Path("images") / old).rename(Path("images") / new)
    if expected is None:
        assert "images: 3 folders, but the network has 7 classes; a file of the folders' names" in _error(capsys)
        return
    if lines is None:
        assert _run(capsys)["top1_error"] == 0
        return
    Path("labels.txt").write_text(lines)
    assert _run(capsys, "--labels", "labels.txt")["top1_error"] == 0
    for name, colour in (("n3", "green"), ("n4", "blue"), ("n5", "red"), ("n6", "blue")):
        (Path("images") / name).mkdir()
        tiny_images.picture(0, list(tiny_images.COLOURS).index(colour)).save(Path("images") / name / "0.png")
    # as many folders as classes: their order tells, by which n3 is green and n5 red, and nothing else is right
    assert _run(capsys)["top1_error"] == pytest.approx(17 / 19, abs=1e-6)


@pytest.mark.filterwarnings("always::cnnengine.data.SkippedImage")
def test_pictures_that_cannot_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    (Path("images") / "green" / "002.png").write_bytes(b"broken")
    assert "images/green/002.png: not an image" in _error(capsys)
    Path("evaluate-colours.json").unlink()
    assert cli.main([*ARGUMENTS, "--on-error", "skip", "--workers", "1"]) == 0
    captured = capsys.readouterr()
    assert "cnnengine: warning: skipped: images/green/002.png: not an image" in captured.err
    assert "colours on images: 14 images, 1 skipped\n" in captured.out
    kept = json.loads(Path("evaluate-colours.json").read_text())
    assert list(kept["score"]["skipped"]) == ["images/green/002.png"]
    assert kept["done"] is True


@pytest.mark.filterwarnings("always::cnnengine.data.SkippedImage")
def test_what_was_interrupted_goes_on(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C behind the second batch; the rest is evaluated later, and what was skipped is still known."""
    _mislabel()
    (Path("images") / "blue" / "001.png").write_bytes(b"broken")
    whole = _run(capsys, "--on-error", "skip", "--output", "whole.json")
    evaluated: list[int] = []

    def press(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
        evaluated.extend(labels.tolist())
        if len(evaluated) in (7, 8):
            os.kill(os.getpid(), signal.SIGINT)
        return places(logits, labels)

    monkeypatch.setattr(scoring, "places", press)
    assert cli.main([*ARGUMENTS, "--on-error", "skip"]) == 130
    err = capsys.readouterr().err
    assert "interrupted behind 7 of 18 images; evaluate-colours.json is saved. To go on:" in err
    assert "cnnengine evaluate colours --weights colours.safetensors --data images --batch-size 4" in err
    assert json.loads(Path("evaluate-colours.json").read_text())["done"] is False
    assert "holds an unfinished evaluation: go on with --resume, or remove it" in _error(capsys, "--on-error", "skip")
    assert len(evaluated) == 7
    resumed = _run(capsys, "--on-error", "skip", "--resume", "--workers", "1")
    assert len(evaluated) == 17
    again = _run(capsys, "--resume")  # all was done: nothing is evaluated
    assert len(evaluated) == 17
    for result in (resumed, again):
        assert result | {"seconds": 0} == whole | {"seconds": 0}


PROGRAM = """
import sys, time
sys.path.insert(0, sys.argv.pop(1))
from cnnengine import cli
from cnnengine.models import registry
from cnnengine.training import scoring
from tests.test_evaluate import PREPROCESSING, SIDE, colours
registry.ENTRIES["colours"] = registry.Entry(colours, (SIDE, SIDE, 3), PREPROCESSING)
scoring.SAVE_SECONDS = 0.0
slow = scoring.places
scoring.places = lambda *both: time.sleep(float(sys.argv[1])) or slow(*both)
sys.exit(cli.main(sys.argv[2:]))
"""


def test_what_was_killed_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    _mislabel()
    whole = _run(capsys, "--output", "whole.json")
    root = str(Path(__file__).resolve().parent.parent)
    command = [sys.executable, "-c", PROGRAM, root, "0.2", *ARGUMENTS, "--workers", "2"]
    path = Path("evaluate-colours.json")
    with subprocess.Popen(command, stderr=subprocess.PIPE) as program:
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        program.kill()
    assert program.returncode == -signal.SIGKILL
    kept = json.loads(path.read_text())
    assert (kept["done"], kept["score"]["images"] < 18) == (False, True)
    assert _run(capsys, "--resume") | {"seconds": 0} == whole | {"seconds": 0}


def test_results_of_something_else_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    _run(capsys)
    assert "batch_size is 4 there, not 3" in _error(capsys, "--resume", "--batch-size", "3")
    tiny_images.picture(9, 0).save(Path("images") / "blue" / "more.png")
    message = _error(capsys, "--resume")
    assert "evaluate-colours.json: the results of another evaluation: images is 15 there, not 16; files is" in message
    assert "nothing.json: cannot be read: No such file" in _error(capsys, "--resume", "--output", "nothing.json")
    for content in ("[]", "{}", '{"done": false}', "not JSON"):
        Path("other.json").write_text(content)
        assert "other.json: not the results of an evaluation" in _error(capsys, "--resume", "--output", "other.json")
    assert "it is not overwritten" in _error(capsys, "--output", "other.json")
    kept = json.loads(Path("evaluate-colours.json").read_text())
    kept["score"] |= {"top1": 16}
    Path("evaluate-colours.json").write_text(json.dumps(kept))
    (Path("images") / "blue" / "more.png").unlink()
    assert "counts that cannot be" in _error(capsys, "--resume")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--weights", "nowhere.safetensors"), "nowhere.safetensors: cannot be read: No such file"),
        (("--data", "nowhere"), "nowhere: cannot be read: No such file"),
        (("--workers", "-1"), "--workers must be at least 0, received -1"),
        (("--labels", "nowhere.txt"), "nowhere.txt: cannot be read: No such file"),
    ],
)
def test_what_is_missing_is_said(capsys: pytest.CaptureFixture[str], more: tuple[str, ...], message: str) -> None:
    assert message in _error(capsys, *more)


def test_a_file_of_labels_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    labels = Path("labels.txt")
    labels.write_text("blue\ngreen\nblue\n")
    assert "labels.txt: blue is there twice" in _error(capsys, "--labels", "labels.txt")
    labels.write_text("blue\ngreen\n")
    assert "images: the folder red is none of the 2 classes" in _error(capsys, "--labels", "labels.txt")
    labels.write_text("\n".join("abcdefgh"))
    assert "labels.txt: 8 lines, but the network has 7 classes" in _error(capsys, "--labels", "labels.txt")
    for path in Path("images").rglob("*.png"):
        path.unlink()
    labels.write_text("blue\ngreen\nred\n")
    assert "images: there are no images in its folders" in _error(capsys, "--labels", "labels.txt")
    assert "images/blue: holds no images" in _error(capsys)
