"""``cnnengine explain`` and its pictures: colours and sheets by hand, the command with LeNet-5 of our own training."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cnnengine as cnn
from cnnengine import cli, explain
from cnnengine.explain import figures
from cnnengine.explain.pictures import WARM, as_rgb

from . import tiny_mnist
from .photographs import photograph
from .real_weights import lite0_weights

LENET_MAPS = [name for name in explain.METHODS if name != "attention_rollout"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder: LeNet-5, trained on 600 digits."""
    root = tiny_mnist.write(tmp_path_factory.mktemp("data"), train=600)
    folder = tmp_path_factory.mktemp("run") / "lenet5"
    data = ["--data", "mnist", "--root", str(root)]
    assert cli.main(["train", "lenet5", *data, "--epochs", "4", "--batch-size", "16", "--run-dir", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def digit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of a six."""
    digits = cnn.data.digits()
    row = int(np.flatnonzero(digits.test_labels == 6)[0])
    path = tmp_path_factory.mktemp("digit") / "six.png"
    Image.fromarray(digits.test_images[row, :, :, 0]).save(path)
    return path


def size(path: str) -> tuple[int, int]:
    """Width and height of a picture."""
    with Image.open(path) as image:
        return image.size


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert cli.main(["explain", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    before = sorted(Path().iterdir())
    assert cli.main(["explain", *map(str, arguments)]) == 2
    assert sorted(Path().iterdir()) == before, "an error leaves no file"
    return capsys.readouterr().err.removeprefix("cnnengine: error: ").rstrip("\n")


# ---- pictures


def test_colours_by_hand() -> None:
    assert explain.coloured(np.array([[0, 1, -3, 9]])).tolist() == [[list(WARM[i]) for i in (0, -1, 0, -1)]]
    assert explain.coloured(np.array([[0.25]]), [(0, 0, 0), (100, 200, 40)]).tolist() == [[[25, 50, 10]]]
    brightness = explain.coloured(np.linspace(0, 1, 50)[None])[0] @ [0.299, 0.587, 0.114]
    assert (np.diff(brightness) > 0).all(), "more is brighter"
    blue, white, red = explain.signed(np.array([[-2.0, 0, 2]]))[0].astype(int)
    assert blue[2] > blue[0] + 50
    assert white.tolist() == [247, 247, 247]
    assert red[0] > red[2] + 50


def test_scaled() -> None:
    assert explain.scaled(np.array([[1.0, 3], [2, 5]])).tolist() == [[0, 0.5], [0.25, 1]]
    assert explain.scaled(np.full((2, 2), 7.0)).tolist() == [[0, 0], [0, 0]]
    outshone = np.append(np.linspace(0, 1, 199), 1000).reshape(10, 20)
    assert explain.scaled(outshone, 1).ravel()[100] > 0.5 > explain.scaled(outshone).ravel()[100]


def test_overlay_leaves_alone_what_does_not_matter() -> None:
    picture = np.full((2, 2, 3), (200, 100, 50), np.uint8)
    mixed = explain.overlay(picture, np.array([[0.0, 1], [-4, 0.5]]))
    grey = np.asarray(Image.fromarray(picture).convert("L"))[0, 0]
    assert mixed[0, 0].tolist() == mixed[1, 0].tolist() == [grey] * 3
    np.testing.assert_allclose(mixed[0, 1], 0.4 * grey + 0.6 * np.array(WARM[-1]), atol=1)
    with pytest.raises(ValueError, match="of different sizes"):
        explain.overlay(picture, np.zeros((3, 2)))


def test_sheet_holds_every_picture() -> None:
    red, tall = np.full((4, 4, 3), (255, 0, 0), np.uint8), np.full((8, 2), 0.5)
    page = np.asarray(
        explain.sheet([explain.Row("first", [red, tall], ["a", "b"]), explain.Row("", [red])], "heading", 32)
    )
    assert (page == (255, 0, 0)).all(2).sum() == 2 * 32 * 32
    assert (page == (128, 128, 128)).all(2).sum() >= 8 * 32, "scaled in proportion"
    assert (page[0] == 255).all()
    assert (page[:, 0] == 255).all()
    for rows in ([], [explain.Row("empty", [])]):
        with pytest.raises(ValueError, match="sheet: "):
            explain.sheet(rows)
    with pytest.raises(ValueError, match=r"expected a picture \(H, W\)"):
        as_rgb(np.zeros((2, 2, 4)))


def test_long_words_and_titles_stay_on_the_page() -> None:
    row = explain.Row(
        "a title of several words that has to be broken", [np.zeros((2, 2))], ["a caption as long as this"]
    )
    page = explain.sheet([row], "a heading that is much longer than the page is wide, and then some more of it", 64)
    assert page.width < 600
    assert (np.asarray(page)[:, -1] == 255).all()


def test_filters_of_any_number_of_channels() -> None:
    for channels in (1, 3, 5):
        model = cnn.nn.Sequential({"conv": cnn.nn.Conv2d(channels, 9, 3)})
        page = figures.filter_sheet(model)
        assert page.width > 8 * 72
    assert figures.filter_sheet(cnn.nn.Sequential(cnn.nn.Conv2d(2, 3, 1, bias=False))).height > 72


# ---- the command


@pytest.mark.parametrize("method", ["grad_cam", "saliency"])
def test_one_method(run: Path, digit: Path, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, run, digit, "--method", method, "--target", "6")
    assert re.fullmatch(rf"{re.escape(str(digit))}: +\d+\.\d %  6  6\nwritten to six-{method}\.png\n", out)
    assert size(f"six-{method}.png")[0] > 3 * 224


def test_all_methods_and_how_faithful_they_are(run: Path, digit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, run, digit, "--method", "all", "--measure", "--output", "all.jpg")
    assert "left out: attention_rollout: this network has no attention" in out
    rows = re.findall(r"^  (\w+) +(\d\.\d{3}) \( +(\d\.\d{3})\) +(\d\.\d{3}) \( +(\d\.\d{3})\)$", out, re.MULTILINE)
    assert [row[0] for row in rows] == LENET_MAPS
    found = {name: [float(number) for number in numbers] for name, *numbers in rows}
    own, displaced, *_ = found["integrated_gradients"]
    assert own < displaced
    complete = re.search(r"adds up to (\S+), the logit differs from an empty image's by (\S+)$", out, re.MULTILINE)
    assert complete is not None
    assert float(complete[1]) == pytest.approx(float(complete[2]), rel=0.05)
    width, height = size("all.jpg")
    assert width > 5 * 224, "the image and four maps"
    assert height > 4 * 224, "four maps more, each twice"


@pytest.mark.parametrize("method", ["feature_maps", "filters", "activation_maximisation"])
def test_sheets(run: Path, digit: Path, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--steps", 2] if method == "activation_maximisation" else []
    assert printed(capsys, run, digit, "--method", method, *few) == f"written to six-{method}.png\n"
    whole = size(f"six-{method}.png")[1]
    printed(capsys, run, digit, "--method", method, "--layer", "conv2", *few, "--output", "one.png")
    assert (size("one.png")[1] < whole) == (method != "filters")


def test_units_that_are_asked_for(run: Path, digit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--method", "activation_maximisation", "--steps", 1, "--layer", "linear3"]
    printed(capsys, run, digit, *arguments, "--unit", 3, "--unit", 9)
    assert "linear3 has units 0 to 9, received [10]" in error(capsys, run, digit, *arguments, "--unit", 10)


def test_layers_are_listed(run: Path, digit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, run, digit, "--layers").splitlines()
    assert [line.split()[-1] for line in lines] == ["conv1", "relu1", "pool1", "conv2", "relu2", "pool2"]
    assert lines[3].split() == ["10", "x", "10", "16", "maps", "conv2"]
    assert not list(Path().iterdir())


def test_what_is_refused(run: Path, digit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert error(capsys, run, digit, "--layer", "conv3").startswith("there is no layer 'conv3'; did you mean conv")
    assert "There are conv1, relu1, pool1, " in error(capsys, run, digit, "--layer", "conv3")
    assert "this network has no attention" in error(capsys, run, digit, "--method", "attention_rollout")
    assert (
        error(capsys, run, digit, "--method", "saliency", "--layer", "conv1")
        == "--layer: saliency looks at no single layer"
    )
    two = ["--layer", "conv1", "--layer", "conv2"]
    assert error(capsys, run, digit, *two) == "--layer: a map is drawn from one layer, received conv1, conv2"
    assert "filters are drawn of one layer" in error(capsys, run, digit, "--method", "filters", *two)
    message = error(capsys, run, digit, "--target", "seven")
    assert message == "--target: expected a class's name or a number below 10, received 'seven'"
    assert "--output: expected the name of a picture" in error(capsys, run, digit, "--output", "a.txt")
    assert error(capsys, run, digit, "--output", "no/a.png") == "--output: there is no folder 'no'"
    assert error(capsys, run, "none.png") == "none.png: there is no such image"
    assert "name a file of them with --weights" in error(capsys, "lenet5", digit)
    assert cli.main(["explain", str(run), str(digit), "--method", "magic"]) == 2
    assert "invalid choice: 'magic'" in capsys.readouterr().err


def test_a_photograph(capsys: pytest.CaptureFixture[str]) -> None:
    weights = lite0_weights()
    framed = np.pad(photograph("coffee"), ((16, 16), (16, 16), (0, 0)))  # which the preprocessing cuts off
    Image.fromarray(framed).save("coffee.png")
    out = printed(capsys, "efficientnet_lite0", "coffee.png", "--weights", weights, "--method", "grad_cam")
    assert re.fullmatch(r"coffee\.png: 95\.\d %  967  espresso\nwritten to coffee-grad_cam\.png\n", out)
    message = error(capsys, "efficientnet_lite0", "coffee.png", "--weights", weights, "--target", "coffee")
    assert message.endswith("received 'coffee'; did you mean 'coffee mug' or 'coffeepot'?")
