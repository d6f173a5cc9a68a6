"""The training loop: the same settings give the same bits, interrupted or not; a run folder holds what it promises."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cnnengine as cnn
from cnnengine import data, nn
from cnnengine.models import registry
from cnnengine.training import Interrupted, RunFolder, Settings, Trainer, evaluate, results
from cnnengine.training.evaluation import confusion_matrix
from cnnengine.training.interrupt import StopSignals
from cnnengine.training.run import RESULTS

BACKEND = cnn.backends.active_on("cpu").name
BATCHES = 5  # of an epoch: 150 images in batches of 32


def _with_dropout(num_classes: int) -> nn.Module:
    """A small network whose training draws dropout masks."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(64, num_classes),
    )


@pytest.fixture(autouse=True)
def _network_with_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.ENTRIES, "with_dropout", registry.Entry(_with_dropout, (28, 28, 1)))


@pytest.fixture(scope="module")
def dataset() -> data.Dataset:
    digits = data.digits()
    return data.Dataset(
        "a few digits",
        digits.train_images[:150],
        digits.train_labels[:150],
        digits.test_images[:70],
        digits.test_labels[:70],
        digits.classes,
        digits.mean,
        digits.std,
    )


def _settings(**changes: Any) -> Settings:
    usual = {"model": "with_dropout", "epochs": 3, "batch_size": 32, "backend": BACKEND}
    return Settings(**{**usual, **changes})


def _train(dataset: data.Dataset, folder: Path, resume: bool = False, **changes: Any) -> Trainer:
    trainer = Trainer(_settings(**changes), dataset, RunFolder(folder), resume=resume)
    trainer.run(report=lambda line: None)
    return trainer


def _history(folder: Path) -> list[dict[str, str]]:
    with (folder / "epochs.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def _press_ctrl_c_in_batch(trainer: Trainer, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Real SIGINT while the batch of that number (from 1, over all epochs) is computed."""
    step, count = trainer._step, iter(range(1, 10**9))

    def step_and_interrupt(images: np.ndarray, labels: np.ndarray) -> tuple[float, int]:
        if next(count) == number:
            signal.raise_signal(signal.SIGINT)
        return step(images, labels)

    monkeypatch.setattr(trainer, "_step", step_and_interrupt)


# ---- bit for bit


def test_the_same_seed_gives_the_same_bits_and_another_does_not(dataset: data.Dataset, tmp_path: Path) -> None:
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        _train(dataset, tmp_path / name, seed=seed)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c
    assert _history(tmp_path / "a") == _history(tmp_path / "b")


@pytest.mark.parametrize("batch", [1, 3, BATCHES, BATCHES + 2, 3 * BATCHES])
def test_an_interrupted_run_goes_on_bit_for_bit(
    dataset: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    _train(dataset, tmp_path / "whole")
    trainer = Trainer(_settings(), dataset, RunFolder(tmp_path / "parts"))
    _press_ctrl_c_in_batch(trainer, monkeypatch, batch)
    with pytest.raises(Interrupted):
        trainer.run(report=lambda line: None)
    assert trainer.progress.epoch * BATCHES + trainer.progress.batch == batch
    cnn.random.generator().random(3)  # whatever happens between
    resumed = _train(dataset, tmp_path / "parts", resume=True)
    assert resumed.progress.epoch == 3
    parts, whole = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("parts", "whole"))
    assert parts == whole
    assert _history(tmp_path / "parts") == _history(tmp_path / "whole")


def test_a_finished_run_resumes_to_itself(dataset: data.Dataset, tmp_path: Path) -> None:
    first = _train(dataset, tmp_path)
    model = (tmp_path / "model.safetensors").read_bytes()
    again = _train(dataset, tmp_path, resume=True)
    np.testing.assert_array_equal(again.predictions, first.predictions)
    assert (tmp_path / "model.safetensors").read_bytes() == model


def test_the_second_ctrl_c_ends_at_once() -> None:
    previous = signal.getsignal(signal.SIGINT)
    with StopSignals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is previous


# ---- learning


def test_lenet5_learns_a_few_digits_by_heart(dataset: data.Dataset, tmp_path: Path) -> None:
    trainer = _train(dataset, tmp_path, model="lenet5", epochs=10, batch_size=10)
    assert trainer.progress.history[-1]["train_accuracy"] > 0.97
    assert trainer.progress.history[-1]["test_accuracy"] > 0.6


def test_the_learning_rate_falls_along_a_cosine(dataset: data.Dataset, tmp_path: Path) -> None:
    rates = [row["lr"] for row in _train(dataset, tmp_path, lr=0.5).progress.history]
    steps = 3 * BATCHES
    assert rates == [cnn.optim.cosine(0.5, (epoch + 1) * BATCHES - 1, steps) for epoch in range(3)]


def test_evaluate_counts_every_image(dataset: data.Dataset) -> None:
    cnn.manual_seed(0)
    model = cnn.models.lenet5().eval()
    many = np.tile(np.arange(70), 9)  # more than one batch, and the last one smaller
    loss, accuracy, classes = evaluate(model, dataset, dataset.test_images[many], dataset.test_labels[many])
    with cnn.no_grad():
        logits = model(cnn.Tensor(dataset.normalize(dataset.test_images))).numpy().astype(np.float64)
    log_probability = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert loss == pytest.approx(-log_probability[np.arange(70), dataset.test_labels].mean(), rel=1e-5)
    assert accuracy == (logits.argmax(1) == dataset.test_labels).mean()
    np.testing.assert_array_equal(classes[:70], logits.argmax(1))


# ---- the run folder


@pytest.fixture(scope="module")
def finished(dataset: data.Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, list[str]]:
    folder = tmp_path_factory.mktemp("runs") / "deep" / "run"
    trainer = Trainer(_settings(model="lenet5", epochs=2, seed=5), dataset, RunFolder(folder))
    trainer.run(report=lambda line: None)
    return trainer, results.write_results(trainer)


def test_the_folder_holds_what_it_promises_and_nothing_half_written(finished: tuple[Trainer, list[str]]) -> None:
    trainer, lines = finished
    names = {p.name for p in trainer.folder.path.iterdir()}
    assert names == {
        "metrics.json",
        "epochs.csv",
        "confusion.csv",
        "best.safetensors",
        "model.safetensors",
        "checkpoint.safetensors",
        "curves.png",
        "confusion.png",
        "filters.png",
        "feature_maps.png",
    }
    assert all(name in lines[0] for name in names)
    assert names == {*RESULTS, "best.safetensors", "model.safetensors", "checkpoint.safetensors"}


def test_metrics_say_what_was_done(finished: tuple[Trainer, list[str]]) -> None:
    trainer, _ = finished
    metrics = json.loads((trainer.folder.path / "metrics.json").read_text())
    wrong = (trainer.predictions != trainer.dataset.test_labels).sum()
    assert metrics["test_accuracy"] == pytest.approx(1 - wrong / 70)
    assert metrics["seconds"] > 0
    expected = {
        "backend": BACKEND,
        "seed": 5,
        "epochs": 2,
        "batch_size": 32,
        "parameters": 61_706,
        "train_images": 150,
        "test_images": 70,
        "model": "lenet5",
    }
    assert {key: metrics[key] for key in expected} == expected


def test_metrics_of_a_diverged_run_are_json(tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"JSON has no {constant}")

    path = RunFolder(tmp_path).write_json("metrics.json", {"test_loss": float("nan"), "deep": {"lr": float("inf")}})
    assert json.loads(path.read_text(), parse_constant=refuse) == {"test_loss": None, "deep": {"lr": None}}


def test_the_csv_has_a_row_for_each_epoch(finished: tuple[Trainer, list[str]]) -> None:
    rows = _history(finished[0].folder.path)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["test_accuracy"]) == finished[0].progress.history[1]["test_accuracy"]


@pytest.mark.parametrize("name", ["curves", "confusion", "filters", "feature_maps"])
def test_the_pictures_are_pictures(finished: tuple[Trainer, list[str]], name: str) -> None:
    with Image.open(finished[0].folder.path / f"{name}.png") as image:
        assert min(image.size) >= 300
        assert len(np.unique(np.asarray(image.convert("L")))) > 20  # not blank


def test_without_matplotlib_one_line_says_so(
    finished: tuple[Trainer, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "find_spec", lambda name: None)
    lines = results.write_results(finished[0])
    assert lines[1] == "no pictures: matplotlib is not installed (pip install 'cnnengine[plot]')"


def test_the_confusion_matrix_counts_true_rows_and_predicted_columns() -> None:
    matrix = confusion_matrix(np.array([0, 1, 1, 2]), np.array([0, 2, 1, 0]), 3)
    assert matrix.tolist() == [[1, 0, 0], [0, 1, 1], [1, 0, 0]]


def test_a_broken_checkpoint_is_named(dataset: data.Dataset, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(cnn.DataError, match=r"there is no checkpoint\.safetensors here, so nothing to resume"):
        folder.read_checkpoint()
    _train(dataset, folder.path, epochs=1)
    whole = folder.checkpoint.read_bytes()
    folder.checkpoint.write_bytes(whole[:-100])
    with pytest.raises(cnn.DataError, match="truncated or corrupt"):
        folder.read_checkpoint()
    cnn.save({"a": np.zeros(3)}, folder.checkpoint)
    with pytest.raises(cnn.DataError, match="not a checkpoint of this version of cnnengine"):
        folder.read_checkpoint()
    folder.checkpoint.write_bytes(whole)
    with pytest.raises(cnn.DataError, match=r"does not fit the model: missing: conv1\.weight .*, and [0-9]+ more"):
        Trainer(_settings(model="lenet5"), dataset, folder, resume=True)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("batch", "three", "epoch, batch, correct and seen must be counts"),
        ("epoch", -1, "must be counts"),
        ("epoch", 10**30, "history must hold a row of .* for each of 10{30} epochs"),
        ("seconds", None, "loss_sum, seconds and epoch_seconds must be numbers"),
        ("history", [], "history must hold a row of epoch, lr, .* for each of 1 epochs"),
        ("history", 3, "not iterable"),
    ],
)
def test_progress_that_cannot_be_is_named(
    dataset: data.Dataset, tmp_path: Path, part: str, value: object, message: str
) -> None:
    folder = RunFolder(tmp_path / "run")
    trainer = _train(dataset, folder.path, epochs=1)
    setattr(trainer.progress, part, value)
    trainer.save()
    with pytest.raises(cnn.DataError, match=f"not a checkpoint of this version of cnnengine: .*{message}"):
        folder.read_checkpoint()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "resnet"}, "model must be one of .*lenet5.*received 'resnet'"),
        ({"data": "imagenet"}, "data must be one of digits, mnist, .*, received 'imagenet'"),
        ({"epochs": -1}, "epochs must be at least 1, received -1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"epochs": 1.5}, "epochs must be at least 1, received 1.5"),
        ({"seed": -1}, "seed must lie in"),
        ({"seed": 1.5}, "seed must lie in"),
        ({"lr": float("nan")}, "lr must be a finite number, 0 or above, received nan"),
        ({"weight_decay": -1}, "weight_decay must be a finite number"),
        ({"backend": "tpu"}, "backend must be one of native, .*, received 'tpu'"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _settings(**changes)
