"""``cnnengine predict`` with networks by name: ImageNet's classes on real photographs, JSON, folders, errors."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cnnengine as cnn
from cnnengine import cli
from cnnengine.commands.predict import image_files
from cnnengine.models import registry

from .real_weights import lite0_weights

NAMED = {"chelsea": (282, "tiger cat"), "coffee": (967, "espresso"), "camera": (872, "tripod")}
ROW = re.compile(r" +(\d+\.\d) % +(\d+)  (.+)")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MobileNetV2, untrained, for its 1000 classes."""
    cnn.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2.safetensors"
    cnn.save(cnn.models.mobilenet_v2().state_dict(), path)
    return path


def picture(name: str, seed: int = 0, size: tuple[int, int] = (60, 50)) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(name)
    return name


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert cli.main(["predict", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert cli.main(["predict", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.removeprefix("cnnengine: error: ").rstrip("\n")


# ---- trained weights


def check_named(out: str, names: list[str]) -> None:
    """Each image has a table of five, the likeliest first, and the right class on top of it."""
    lines = out.splitlines()
    assert len(lines) == 6 * len(names)
    for i, name in enumerate(names):
        title, *rows = lines[6 * i : 6 * i + 6]
        assert title == f"{name}.png"
        found = [ROW.fullmatch(row) for row in rows]
        assert all(found)
        shares = [float(match[1]) for match in found if match]
        assert shares == sorted(shares, reverse=True)
        assert found[0] is not None
        assert (int(found[0][2]), found[0][3]) == NAMED[name]


def test_the_cat_the_espresso_and_the_tripod(capsys: pytest.CaptureFixture[str]) -> None:
    skimage_data = pytest.importorskip("skimage.data", reason="the photographs are scikit-image's")
    for name in NAMED:
        Image.fromarray(getattr(skimage_data, name)()).save(f"{name}.png")
    images = [f"{name}.png" for name in NAMED]
    check_named(printed(capsys, "efficientnet_lite0", *images, "--weights", lite0_weights()), list(NAMED))


def test_the_same_from_the_reference_s_crops(capsys: pytest.CaptureFixture[str], shared: Path) -> None:
    """A frame of 16 pixels, which the network's preprocessing cuts off, and the probabilities of the reference."""
    golden = np.load(shared / "golden" / "effnet_lite0_small.npz")
    rows = {Path(str(name)).stem: i for i, name in enumerate(golden["names"])}
    for name in NAMED:
        framed = np.pad(golden["input_u8"][rows[name]], ((16, 16), (16, 16), (0, 0)))
        Image.fromarray(framed).save(f"{name}.png")
    arguments = ["efficientnet_lite0", *(f"{name}.png" for name in NAMED), "--weights", lite0_weights()]
    check_named(printed(capsys, *arguments), list(NAMED))
    for name, entry in zip(NAMED, json.loads(printed(capsys, *arguments, "--json")), strict=True):
        logits = golden["logits_f64"][rows[name]]
        probability = np.exp(logits - logits.max())
        probability /= probability.sum()
        best = np.argsort(-probability)[:5]
        assert [guess["class"] for guess in entry["guesses"]] == best.tolist()
        np.testing.assert_allclose([guess["probability"] for guess in entry["guesses"]], probability[best], atol=2e-5)


def test_weights_of_another_network_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    file = lite0_weights()
    message = error(capsys, "mobilenet_v2", picture("a.png"), "--weights", file)
    assert message.startswith(f"{file}: these are not the weights of mobilenet_v2: 314 missing (features.0.0.weight, ")
    assert "; 296 unexpected (_conv_stem.weight, _bn0.weight, " in message


# ---- any weights


def test_top_and_json(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [picture("a.png"), picture("b.png", 1)]
    table = printed(capsys, "mobilenet_v2", *images, "--weights", weights, "--top", 2).splitlines()
    assert len(table) == 2 * (1 + 2)
    entries = json.loads(printed(capsys, "mobilenet_v2", *images, "--weights", weights, "--top", 2, "--json"))
    assert [entry["image"] for entry in entries] == images
    for i, entry in enumerate(entries):
        for row, guess in zip(table[3 * i + 1 : 3 * i + 3], entry["guesses"], strict=True):
            match = ROW.fullmatch(row)
            assert match is not None
            assert (int(match[2]), match[3]) == (guess["class"], guess["name"])
            assert float(match[1]) == pytest.approx(100 * guess["probability"], abs=0.051)
            assert guess["name"] == cnn.data.imagenet_classes()[guess["class"]]


def test_it_is_what_the_network_computes(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = registry.entry("mobilenet_v2")
    assert entry.preprocessing is not None
    pixels = entry.preprocessing(Image.open(picture("a.png")))
    model = cnn.models.mobilenet_v2()
    model.load_state_dict(cnn.load(weights))
    with cnn.no_grad():
        x = cnn.Tensor(entry.preprocessing.normalize(pixels[np.newaxis]))
        expected = cnn.functional.softmax(model.eval()(x)).numpy()[0]
    (found,) = json.loads(printed(capsys, "mobilenet_v2", "a.png", "--weights", weights, "--top", 1000, "--json"))
    probability = np.empty(1000)
    probability[[guess["class"] for guess in found["guesses"]]] = [guess["probability"] for guess in found["guesses"]]
    np.testing.assert_allclose(probability, expected, atol=2e-6)


def test_a_file_in_pytorch_s_order_of_axes_is_turned(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = cnn.load(weights)
    turned = {n: np.ascontiguousarray(a.transpose(0, 3, 1, 2)) if a.ndim == 4 else a for n, a in ours.items()}
    cnn.save(turned, "torch.safetensors")
    picture("a.png")
    out = printed(capsys, "mobilenet_v2", "a.png", "--weights", "torch.safetensors")
    assert out == printed(capsys, "mobilenet_v2", "a.png", "--weights", weights)


def test_a_description_names_other_classes(capsys: pytest.CaptureFixture[str]) -> None:
    described = {"model": "mobilenet_v2", "classes": ["cat", "dog"], "mean": [0.5, 0.5, 0.5], "std": 0.25}
    state = cnn.models.mobilenet_v2(num_classes=2).state_dict()
    cnn.save(state, "pets.safetensors", metadata={"cnnengine": json.dumps(described)})
    picture("a.png")
    rows = printed(capsys, "mobilenet_v2", "a.png", "--weights", "pets.safetensors").splitlines()[1:]
    assert sorted(row.split()[-1] for row in rows) == ["cat", "dog"]
    one_line = printed(capsys, "pets.safetensors", "a.png")  # a file of a run says itself what it is
    assert re.fullmatch(r"a\.png  (cat|dog) +\d+\.\d %   (cat|dog) +\d+\.\d %\n", one_line)


def test_folders_and_patterns(capsys: pytest.CaptureFixture[str], weights: Path) -> None:
    Path("photos/deep").mkdir(parents=True)
    Path("photos/notes.txt").write_text("no image")
    for name in ("photos/b.JPG", "photos/a.png", "photos/deep/c.png", "odd[1].png"):
        picture(name)
    assert image_files(["photos"]) == ["photos/a.png", "photos/b.JPG"]
    assert image_files(["photos/*.png", "photos/**/c.png"]) == ["photos/a.png", "photos/deep/c.png"]
    assert image_files(["odd[1].png", "gone.png"]) == ["odd[1].png", "gone.png"]
    out = printed(capsys, "mobilenet_v2", "photos", "--weights", weights, "--top", 1)
    assert out.splitlines()[::2] == ["photos/a.png", "photos/b.JPG"]
    Path("empty").mkdir()
    assert error(capsys, "mobilenet_v2", "empty", "--weights", weights).startswith("empty: there is no image in this")
    assert error(capsys, "mobilenet_v2", "no*.png", "--weights", weights) == "no*.png: no file fits this pattern"


def test_errors_are_one_sentence(capsys: pytest.CaptureFixture[str], weights: Path) -> None:
    picture("a.png")
    assert error(capsys, "mobilenet_v2", "a.png") == (
        "mobilenet_v2 has no weights of its own: name a file of them with --weights"
    )
    assert error(capsys, "mobilenet", "a.png", "--weights", weights).startswith(
        "--weights: there is no network 'mobilenet'; there are "
    )
    assert "gone.safetensors: cannot be read" in error(capsys, "lenet5", "a.png", "--weights", "gone.safetensors")
    assert error(capsys, "mobilenet_v2", "gone.png", "--weights", weights) == "gone.png: there is no such image"
    Path("half.png").write_bytes(Path("a.png").read_bytes()[:900])
    assert error(capsys, "mobilenet_v2", "a.png", "half.png", "--weights", weights).startswith("half.png: ")
    cnn.save({"features.0.0.weight": np.zeros((1, 2, 3, 4), np.float32)}, "odd.safetensors")
    message = error(capsys, "mobilenet_v2", "a.png", "--weights", "odd.safetensors")
    assert "313 missing (features.0.1.weight, " in message
    assert "; 1 of another shape (features.0.0.weight)" in message


def test_another_backend_says_the_same(capsys: pytest.CaptureFixture[str], weights: Path) -> None:
    picture("a.png")
    arguments = ["mobilenet_v2", "a.png", "--weights", weights]
    assert printed(capsys, *arguments, "--backend", "numpy") == printed(capsys, *arguments)


def test_names_of_imagenet_s_classes() -> None:
    names = cnn.data.imagenet_classes()
    assert len(names) == len(set(names)) == 1000
    assert (names[0], names[281], names[999].split(",")[0]) == (
        "tench, Tinca tinca",
        "tabby, tabby cat",
        "toilet tissue",
    )
    assert (names[134], names[517]) == ("crane (bird)", "crane (machine)")
