"""``cnnengine compare``: rows that evaluation gives too, a table and a picture of them, and going on after Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cnnengine as cnn
from bench import robustness
from cnnengine import cli, data
from cnnengine.classic import DISTURBANCES, comparison, comparison_file, create, disturbed
from cnnengine.commands import compare
from cnnengine.models import lenet5
from cnnengine.training import Settings, Trainer, evaluate

for module in ("scipy", "skimage", "sklearn"):
    pytest.importorskip(module, reason=f"{module} is not installed: pip install 'cnnengine[classic]'")

TRAIN, TEST = 250, 60
ARGUMENTS = ("compare", "--train", str(TRAIN), "--test", str(TEST), "--epochs", "1", "--backend", "native")
FOLDER = Path("runs/compare-digits")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compare, "find_spec", lambda name: None if name == "matplotlib" else find_spec(name))


@pytest.fixture
def _drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are drawn, which takes longer than most of what is tested here."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'cnnengine[plot]'")
    monkeypatch.setattr(compare, "find_spec", find_spec)


def _run(*more: str) -> dict[str, Any]:
    assert cli.main([*ARGUMENTS, *more]) == 0
    return json.loads((FOLDER / "robustness.json").read_text())  # type: ignore[no-any-return]


def _error(capsys: pytest.CaptureFixture[str], *more: str) -> str:
    capsys.readouterr()
    assert cli.main([*ARGUMENTS, *more]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.removeprefix("cnnengine: error: ").strip()


def _by_set(result: dict[str, Any], method: str) -> dict[str, float]:
    return {row["test_set"]: row["accuracy"] for row in result["rows"] if row["method"] == method}


def test_rows_are_what_evaluation_gives(capsys: pytest.CaptureFixture[str]) -> None:
    result = _run("--methods", "hog,lenet5+augment")
    out = capsys.readouterr().out
    part = data.digits().part_of(TRAIN, TEST)
    assert (len(part.train_images), len(part.test_images)) == (TRAIN, TEST)
    sets = disturbed(part.test_images)
    hog = create("hog").fit(part)
    network = lenet5()
    network.load_state_dict(cnn.load(FOLDER / "lenet5+augment/model.safetensors"))
    for method, model in (("hog", hog), ("lenet5+augment", network.eval())):
        rows = _by_set(result, method)
        assert list(rows) == list(DISTURBANCES)
        with cnn.use_backend("native"):
            for name, accuracy in rows.items():
                assert accuracy == evaluate(model, part, sets[name], part.test_labels)[1], (method, name)
    assert result["methods"]["hog"]["parameters"] == 12970
    assert result["methods"]["lenet5+augment"]["parameters"] == 61706
    assert {row["images"] for row in result["rows"]} == {TEST}
    assert result["facts"] == {
        "data": "digits",
        "train_images": TRAIN,
        "test_images": TEST,
        "epochs": 1,
        "seed": 0,
        "backend": "native",
    }
    assert result["about"]["command"].startswith(
        "cnnengine compare --data digits --methods hog,lenet5+augment --epochs 1"
    )
    noisy = [f"{100 * _by_set(result, method)['noisy']:.2f}" for method in ("hog", "lenet5+augment")]
    line = f"| noisy | {' | '.join(noisy)} |"
    assert line in out
    assert line in (FOLDER / "robustness.md").read_text()
    assert "| numbers learned | 12,970 | 61,706 |" in out


def test_the_augmented_network_sees_augmented_images(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Settings, tuple[int, ...]]] = []
    monkeypatch.setattr(
        comparison, "Trainer", lambda s, d, *a, **k: seen.append((s, d.train_images.shape)) or Trainer(s, d, *a, **k)
    )
    _run("--methods", "lenet5,lenet5+augment,resnet20", "--train", "40", "--test", "10", "--seed", "3")
    assert seen[:3] == seen[3:]  # first whether each network takes the images
    (plain, grey), (augmented, _), (residual, colour) = seen[3:]
    assert (plain.augment, augmented.augment) == ((), ("affine", "darken"))
    assert {s.seed for s, _ in seen} == {3}
    assert {(s.optimizer, s.lr, s.schedule, s.weight_decay) for s, _ in seen} == {("adam", 1e-3, "constant", 0.0)}
    assert (grey, colour) == ((40, 28, 28, 1), (40, 28, 28, 3))
    assert (plain.model, residual.model) == ("lenet5", "resnet20")


@pytest.mark.usefixtures("_drawn")
def test_the_picture_shows_images_and_marks() -> None:
    _run("--methods", "sobel,pixels")
    with Image.open(FOLDER / "robustness.png") as file:
        picture = np.asarray(file.convert("RGB")).astype(int)
    height, width, _ = picture.shape
    assert min(height, width) > 700
    for colour in ((0, 0x72, 0xB2), (0xD5, 0x5E, 0)):  # both methods' marks, on the right
        found = np.argwhere((np.abs(picture - colour) < 8).all(2))
        assert len(np.unique(found[:, 0])) > 11 * 5
        assert (found[found[:, 0] > height / 8][:, 1] > width / 3).all()
    strip = picture[:, int(0.15 * width) : int(0.33 * width)]  # digits: black and white
    assert (strip.max(2) < 10).sum() > 5000
    _run("--methods", "sobel,pixels", "--resume", "--format", "svg")
    assert "<svg" in (FOLDER / "robustness.svg").read_text()[:500]


def test_without_matplotlib_there_is_no_picture(capsys: pytest.CaptureFixture[str]) -> None:
    _run("--methods", "sobel")
    assert "no picture: matplotlib is not installed (pip install 'cnnengine[plot]')" in capsys.readouterr().out
    assert sorted(p.name for p in FOLDER.iterdir()) == ["robustness.json", "robustness.md"]


def test_what_is_there_is_kept(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    first = _run("--methods", "sobel")
    assert f"{FOLDER}/robustness.json holds a comparison already: go on with --resume" in _error(capsys)
    fitted: list[str] = []
    fit = compare.fit_classic
    monkeypatch.setattr(compare, "fit_classic", lambda method, part: fitted.append(method) or fit(method, part))
    both = _run("--methods", "sobel,pixels", "--resume")
    assert fitted == ["pixels"]
    assert f"sobel: kept from {FOLDER}/robustness.json" in capsys.readouterr().out
    assert _by_set(both, "sobel") == _by_set(first, "sobel")
    assert list(both["methods"]) == ["sobel", "pixels"]
    message = _error(capsys, "--resume", "--test", "50", "--seed", "2")
    assert "another comparison: test_images is 60 there, not 50; seed is 0 there, not 2" in message
    anew = _run("--methods", "pixels", "--overwrite", "--test", "50")
    assert (list(anew["methods"]), anew["facts"]["test_images"]) == (["pixels"], 50)


def test_json_alone_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    result = _run("--methods", "pixels", "--json")
    captured = capsys.readouterr()
    assert json.loads(captured.out) == result
    assert "pixels clean: " in captured.err


def test_what_was_interrupted_goes_on(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the second epoch of the network; what was there is kept, and the end is that of a run left alone."""
    more = ("--methods", "sobel,lenet5", "--epochs", "3")
    whole = _run(*more)
    step, steps = Trainer._step, 0

    def press(self: Trainer, images: np.ndarray, labels: np.ndarray) -> tuple[float, int]:
        nonlocal steps
        steps += 1
        if steps == 6:  # of 4 an epoch
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, images, labels)

    monkeypatch.setattr(Trainer, "_step", press)
    assert cli.main([*ARGUMENTS, *more, "--output", "again"]) == 130
    assert "interrupted; to go on:\n  cnnengine compare --data digits" in capsys.readouterr().err
    kept = json.loads(Path("again/robustness.json").read_text())
    assert list(kept["methods"]) == ["sobel"]
    assert cli.main([*ARGUMENTS, *more, "--output", "again", "--resume"]) == 0
    assert steps == 12
    assert json.loads(Path("again/robustness.json").read_text())["rows"] == whole["rows"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--methods", "hog,haar"), "--methods: there is no method 'haar'; there are pixels, sobel, canny, lbp, hog"),
        (("--methods", "hog+augment"), "--methods: there is no method 'hog+augment'"),
        (("--methods", ""), "--methods: there is no method ''"),
        (("--methods", "hog,hog"), "--methods names one twice: hog,hog"),
        (("--seed", "-1"), "--seed must be at least 0, received -1"),
        (("--data", "mnist", "--root", "nowhere"), "MNIST is not in nowhere"),
        (("--methods", "vit_tiny"), "vit_tiny is for images of (224, 224, 3), those of digits are (28, 28, 3)"),
    ],
)
def test_what_cannot_be_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr("cnnengine.data.sets.fetch", _no_network)
    capsys.readouterr()
    assert cli.main([*ARGUMENTS, *more]) == 2
    assert message in capsys.readouterr().err
    assert not FOLDER.exists()


def _no_network(title: str, *rest: object) -> None:
    raise cnn.errors.DataError(f"{title} is not in nowhere")


def test_missing_libraries_are_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "find_spec", lambda name: None)
    assert _error(capsys) == "compare needs skimage and sklearn and scipy: pip install 'cnnengine[classic]'"


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"facts": {}, "methods": {"hog": {"parameters": 1}}, "rows": [], "about": {}}',
        '{"facts": {}, "methods": {}, "rows": [{"method": "hog"}], "about": {}}',
    ],
)
def test_files_of_something_else_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "robustness.json"
    path.write_text(content)
    with pytest.raises(cnn.errors.DataError, match=r"robustness\.json: not the file of a comparison"):
        comparison_file.read(path)


def test_defaults_go_by_the_images() -> None:
    assert comparison.default_methods(data.digits()) == ("hog", "lenet5", "lenet5+augment", "resnet20")
    colour = np.zeros((2, 32, 32, 3), np.uint8)
    pictures = data.from_arrays(colour, np.array([0, 1]), colour, np.array([0, 1]))
    assert comparison.default_methods(pictures) == ("hog", "resnet20")


@pytest.mark.usefixtures("_drawn")
def test_the_program_behind_the_committed_table(tmp_path: Path) -> None:
    words = ["--root", "none", "--data", "digits", "--methods", "sobel", "--train", "100", "--test", "20"]
    assert robustness.main([*words, "--output", str(tmp_path / "a.b")]) == 0
    written = json.loads((tmp_path / "a.b-digits.json").read_text())
    assert len(written["rows"]) == len(DISTURBANCES)
    assert {"commit", "cpu", "cores", "command", "date"} <= set(written["provenance"])
    assert "| clean |" in (tmp_path / "a.b-digits.md").read_text()
    with Image.open(tmp_path / "a.b-digits.png") as picture:
        assert picture.size[0] > 700
