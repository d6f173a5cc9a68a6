"""What the settings of a training run do: optimizers, rates, averages, accumulation, precision, mixing, stopping."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
from cnnengine import data, nn, optim
from cnnengine.models import registry
from cnnengine.training import Interrupted, RunFolder, Settings, Trainer, results, scalars
from cnnengine.training.evaluation import in_top
from cnnengine.training.interrupt import StopSignals
from cnnengine.training.recipe import learning_rate, make_optimizer, training_transform
from cnnengine.training.settings import OPTIMIZERS

BACKEND = cnn.backends.active_on("cpu").name
BATCHES = 5  # of an epoch: 150 images in batches of 32


def _small(num_classes: int) -> nn.Module:
    """A network with everything that training keeps apart: filters, a norm, dropout, vectors, matrices."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(64, 12),
        nn.ReLU(),
        nn.Linear(12, num_classes),
    )


def _plain(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 5, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(72, num_classes))


@pytest.fixture(autouse=True)
def _networks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, build in (("small", _small), ("plain", _plain)):
        monkeypatch.setitem(registry.ENTRIES, name, registry.Entry(build, (28, 28, 1)))


@pytest.fixture(scope="module")
def dataset() -> data.Dataset:
    d = data.digits()
    train, test = slice(0, 10_000, 67), slice(0, 2_000, 29)  # of all classes
    return data.Dataset(
        "a few digits",
        d.train_images[train],
        d.train_labels[train],
        d.test_images[test],
        d.test_labels[test],
        d.classes,
        d.mean,
        d.std,
    )


def _settings(**changes: Any) -> Settings:
    return Settings(**{"model": "small", "epochs": 2, "batch_size": 32, "backend": BACKEND, "lr": 0.01, **changes})


def _trainer(dataset: data.ImageDataset, folder: Path, resume: bool = False, **changes: Any) -> Trainer:
    return Trainer(_settings(**changes), dataset, RunFolder(folder), resume=resume)


def _train(dataset: data.ImageDataset, folder: Path, resume: bool = False, **changes: Any) -> Trainer:
    trainer = _trainer(dataset, folder, resume, **changes)
    trainer.run(report=lambda line: None)
    return trainer


def _weights(folder: Path) -> dict[str, np.ndarray]:
    return cnn.load(folder / "model.safetensors")


def _interrupt_in_batch(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, number: int, by: signal.Signals = signal.SIGINT
) -> None:
    """A real signal while the batch of that number (from 1, over all epochs) is computed."""
    step, count = trainer._step, iter(range(1, 10**9))

    def step_and_interrupt(images: np.ndarray, labels: np.ndarray) -> tuple[float, int]:
        if next(count) == number:
            signal.raise_signal(by)
        return step(images, labels)

    monkeypatch.setattr(trainer, "_step", step_and_interrupt)


EVERYTHING = {
    "ema": 0.8,
    "ema_warmup": True,
    "mixup": 0.2,
    "cutmix": 1.0,
    "label_smoothing": 0.1,
    "clip_norm": 1.0,
    "accumulate": 2,
    "augment": ("crop", "flip"),
    "warmup": 0.5,
    "decay_vectors": False,
}


# ---- bit for bit


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_goes_on_bit_for_bit(
    dataset: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    """Interrupted in the first batch of a group of two: the checkpoint is behind the second"""
    settings = {**EVERYTHING, "optimizer": optimizer}
    _train(dataset, tmp_path / "whole", **settings)
    trainer = _trainer(dataset, tmp_path / "parts", **settings)
    _interrupt_in_batch(trainer, monkeypatch, 3)
    with pytest.raises(Interrupted):
        trainer.run(report=lambda line: None)
    assert trainer.progress.batch == 4
    cnn.random.generator().random(3)  # whatever happens between
    _train(dataset, tmp_path / "parts", resume=True, **settings)
    parts, whole = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("parts", "whole"))
    assert parts == whole


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_mixed_precision_goes_on_bit_for_bit(
    dataset: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """float16 has a loss scale beside, which the first steps halve"""
    settings = {"model": "plain", "backend": "numpy", "precision": precision, "clip_norm": 1.0, "epochs": 1}
    whole = _train(dataset, tmp_path / "whole", **settings)
    trainer = _trainer(dataset, tmp_path / "parts", **settings)
    trainer.step.scaler._set(2.0**40, 0) if precision == "float16" else None
    _interrupt_in_batch(trainer, monkeypatch, 2)
    with pytest.raises(Interrupted):
        trainer.run(report=lambda line: None)
    resumed = _trainer(dataset, tmp_path / "parts", resume=True, **settings)
    assert resumed.step.scaler.get_scale() == (2.0**38 if precision == "float16" else 1.0)
    assert all(p.dtype == np.float32 for p in resumed.model.parameters())
    if precision == "bfloat16":
        resumed.run(report=lambda line: None)
        assert _weights(tmp_path / "parts").keys() == _weights(tmp_path / "whole").keys()
        for name, array in _weights(tmp_path / "whole").items():
            np.testing.assert_array_equal(_weights(tmp_path / "parts")[name], array)
    assert whole.progress.history[0]["train_loss"] < 2.4


def test_precision_that_a_backend_lacks_is_refused(dataset: data.Dataset, tmp_path: Path) -> None:
    with pytest.raises(cnn.Unsupported, match="precision float16: backend 'native' computes in float32"):
        _trainer(dataset, tmp_path, backend="native", precision="float16")


def test_checkpoints_between_epochs(dataset: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is behind a whole group, and as often as asked for"""
    trainer = _trainer(dataset, tmp_path, accumulate=2, checkpoint_every=3, epochs=1)
    places: list[int] = []
    write = trainer._write_checkpoint
    monkeypatch.setattr(trainer, "_write_checkpoint", lambda: (places.append(trainer.progress.batch), write()))
    trainer.run(report=lambda line: None)
    assert places == [4, 0]  # of 5 batches in groups 2, 2, 1; then that of the epoch
    trainer = _trainer(dataset, tmp_path / "often", checkpoint_seconds=1e-9, epochs=1)
    places.clear()
    monkeypatch.setattr(trainer, "_write_checkpoint", lambda: places.append(trainer.progress.batch))
    trainer.run(report=lambda line: None)
    assert places == [1, 2, 3, 4, 5, 0]


# ---- what the settings do


def test_a_group_of_batches_is_one_large_batch(dataset: data.Dataset, tmp_path: Path) -> None:
    """The mean over all images of the group, also where the last batch is smaller (150 = 4 * 32 + 22)"""
    for name, batch, group in (("groups", 32, 2), ("large", 64, 1)):
        _train(dataset, tmp_path / name, model="plain", batch_size=batch, accumulate=group, epochs=3)
    groups, large = (_weights(tmp_path / name) for name in ("groups", "large"))
    for name, array in large.items():
        np.testing.assert_allclose(groups[name], array, rtol=1e-4, atol=1e-6)


def test_the_average_is_evaluated_and_saved(dataset: data.Dataset, tmp_path: Path) -> None:
    trainer = _train(dataset, tmp_path, ema=0.9)
    assert trainer.step.ema is not None
    averages, saved = trainer.step.ema.state_dict()["averages"], _weights(tmp_path)
    assert all((saved[name] == averages[name]).all() for name in saved)
    assert any((saved[name] != t.numpy()).any() for name, t in trainer.model.state_dict().items())
    model = _small(10).eval()
    model.load_state_dict(saved)
    with cnn.no_grad():
        guess = model(cnn.Tensor(dataset.normalize(dataset.test_images))).numpy().argmax(1)
    np.testing.assert_array_equal(guess, trainer.predictions)


def test_the_norm_of_the_gradients_is_limited(dataset: data.Dataset, tmp_path: Path) -> None:
    """With SGD without momentum a step is at most lr times the limit long"""
    trainer = _trainer(dataset, tmp_path, momentum=0.0, weight_decay=0.0, clip_norm=0.01, schedule="constant", epochs=1)
    before = np.concatenate([p.numpy().ravel() for p in trainer.model.parameters()])
    images, labels = next(dataset.train.batches(32))
    with cnn.use_backend(BACKEND):
        trainer._step(images, labels)
    after = np.concatenate([p.numpy().ravel() for p in trainer.model.parameters()])
    assert np.linalg.norm(after - before) == pytest.approx(0.01 * 0.01, rel=1e-2)


def test_early_stopping_keeps_the_best(dataset: data.Dataset, tmp_path: Path) -> None:
    trainer = _train(dataset, tmp_path, epochs=30, lr=0.0, patience=2, model="plain")  # nothing is ever better
    assert trainer.progress.epoch == 3
    assert (trainer.best_epoch, trainer.stopped_early) == (1, True)
    again = _train(dataset, tmp_path, resume=True, epochs=30, lr=0.0, patience=2, model="plain")
    assert again.progress.epoch == 3
    assert len(again.predictions) == len(dataset.test)
    trainer = _train(dataset, tmp_path / "b", epochs=4, lr=0.3, momentum=0.0, schedule="constant", monitor="test_loss")
    losses = [row["test_loss"] for row in trainer.progress.history]
    assert trainer.best_epoch == losses.index(min(losses)) + 1
    model = _small(10).eval()
    model.load_state_dict(cnn.load(tmp_path / "b" / "best.safetensors"))
    with cnn.no_grad():
        logits = model(cnn.Tensor(dataset.normalize(dataset.test_images)))
        assert cnn.functional.cross_entropy(logits, dataset.test_labels).item() == pytest.approx(min(losses), rel=1e-5)


def test_a_diverged_run_has_no_best(dataset: data.Dataset, tmp_path: Path) -> None:
    trainer = _train(dataset, tmp_path, lr=1e30, monitor="test_loss", patience=2, epochs=3, model="plain")
    assert trainer.best_epoch == 0
    assert not (tmp_path / "best.safetensors").exists()


def test_top5_and_the_confusion_matrix_are_written(
    dataset: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "find_spec", lambda name: None)  # no pictures, to save time
    trainer = _train(dataset, tmp_path, model="plain")
    results.write_results(trainer)
    with (tmp_path / "confusion.csv").open() as file:
        head, *rows = csv.reader(file)
    assert head == ["true", *dataset.classes]
    counts = np.array([row[1:] for row in rows], int)
    assert counts.sum(1).tolist() == np.bincount(dataset.test_labels, minlength=10).tolist()
    last = trainer.progress.history[-1]
    assert counts.trace() / counts.sum() == last["test_accuracy"]
    with cnn.no_grad():
        scores = trainer.model.eval()(cnn.Tensor(dataset.normalize(dataset.test_images))).numpy()
    ranks = (scores > scores[np.arange(len(scores)), dataset.test_labels][:, None]).sum(1)
    assert last["test_top5"] == (ranks < 5).mean() > last["test_accuracy"]


def test_the_five_likeliest() -> None:
    scores = np.array([[9, 8, 7, 6, 5, 4], [9, 8, 7, 6, 5, 4], [np.nan] * 6])
    assert in_top(scores, np.array([4, 5, 0])) == 1
    assert in_top(scores[:, :3], np.array([0, 2, 1])) == 2


SCHEDULES: dict[str, tuple[dict[str, Any], list[float]]] = {  # four epochs of five steps: steps 0, 4, 5, 10, 19
    "constant": ({}, [1, 1, 1, 1, 1]),
    "cosine": ({}, [optim.cosine(1, s, 20) for s in (0, 4, 5, 10, 19)]),
    "one_cycle": ({}, [optim.one_cycle(1, s, 20) for s in (0, 4, 5, 10, 19)]),
    "step": ({"milestones": (1,)}, [1, 1, 0.1, 0.01, 0.001]),
    "multi_step": ({"milestones": (1, 3), "factor": 0.5, "warmup": 0.6}, [0.25, 1, 0.5, 0.5, 0.25]),
    "exponential": ({"factor": 0.01}, [1, 0.01**0.2, 0.01**0.25, 0.1, 0.01**0.95]),
    "polynomial": ({"warmup": 1}, [1 / 6, 5 / 6, 1, 2 / 3, 1 / 15]),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_learning_rates(schedule: str) -> None:
    options, expected = SCHEDULES[schedule]
    settings = _settings(schedule=schedule, lr=1.0, epochs=4, **options)
    assert [learning_rate(settings, step, 5) for step in (0, 4, 5, 10, 19)] == pytest.approx(expected)


def test_optimizers_have_their_groups_and_rates(dataset: data.Dataset, tmp_path: Path) -> None:
    model = _small(10)
    for name, kind in zip(
        OPTIMIZERS,
        (optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop, optim.RMSpropTF, optim.LAMB, optim.Muon),
        strict=True,
    ):
        for vectors in (True, False):
            optimizer = make_optimizer(_settings(optimizer=name, weight_decay=0.25, decay_vectors=vectors), model)
            assert type(optimizer) is kind
            assert len(optimizer.parameters) == len(list(model.parameters()))
            for group in optimizer.param_groups:
                for p in group["params"]:
                    assert group["weight_decay"] == (0.25 if vectors or p.ndim > 1 else 0.0)
    trainer = _trainer(dataset, tmp_path, optimizer="muon", schedule="constant", lr=0.02)
    images, labels = next(dataset.train.batches(32))
    with cnn.use_backend(BACKEND):
        trainer._step(images, labels)
    assert [g["lr"] for g in trainer.optimizer.param_groups] == pytest.approx([0.02, 0.001])


def test_transforms_come_in_one_order() -> None:
    names = {"flip", "crop", "erasing", "randaugment", "color", "trivialaugment", "affine", "darken"}
    transform = training_transform(_settings(augment=sorted(names)))
    assert transform is not None
    picture = np.arange(28 * 28 * 1, dtype=np.uint8).reshape(28, 28, 1)
    assert transform(picture, np.random.default_rng(0)).shape == (28, 28, 1)
    assert training_transform(_settings()) is None


# ---- other data, other ends


def test_files_of_all_sizes_are_cut_to_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for c, colour in enumerate(("dark", "light")):
            (tmp_path / part / colour).mkdir(parents=True)
            for i in range(6):
                picture = rng.integers(0, 100, (20 + i, 30, 3)) + 150 * c
                Image.fromarray(picture.astype(np.uint8)).save(tmp_path / part / colour / f"{i}.png")

    def build(num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(16 * 16 * 3, num_classes))

    monkeypatch.setitem(registry.ENTRIES, "colour", registry.Entry(build, (16, 16, 3)))
    settings = {"model": "colour", "data": "folder", "batch_size": 4, "augment": ("resized_crop", "flip"), "epochs": 3}
    trainer = _train(data.image_folders(tmp_path), tmp_path / "run", **settings)
    assert trainer.progress.history[-1]["test_accuracy"] == 1
    assert trainer.progress.history[-1]["test_top5"] == 1
    assert results.write_results(trainer)


def test_images_that_a_model_does_not_take_are_named(dataset: data.Dataset, tmp_path: Path) -> None:
    small = data.from_arrays(*(np.zeros(s, t) for s, t in (((4, 8, 8, 3), np.uint8), ((4,), int)) * 2), classes="ab")
    with pytest.raises(
        cnn.DataError, match=r"lenet5 is for images of \(28, 28, 1\), those of arrays are \(8, 8, 3\): conv"
    ):
        _trainer(small, tmp_path, model="lenet5")


def test_sigterm_is_a_clean_end(dataset: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = _trainer(dataset, tmp_path)
    _interrupt_in_batch(trainer, monkeypatch, 2, signal.SIGTERM)
    with pytest.raises(Interrupted) as caught:
        trainer.run(report=lambda line: None)
    assert caught.value.by == signal.SIGTERM
    assert RunFolder(tmp_path).read_checkpoint().progress.batch == 2
    previous = signal.getsignal(signal.SIGTERM)
    with StopSignals():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is previous


def test_what_a_killed_process_left_is_removed(dataset: data.Dataset, tmp_path: Path) -> None:
    _train(dataset, tmp_path, epochs=1)
    for name in (".checkpoint.safetensors.abc", ".best.safetensors.x_1", ".epochs.csv.q"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".mine").write_text("mine")
    _trainer(dataset, tmp_path, resume=True, epochs=1)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == [".mine"]


def test_tensorboard_names_its_extra(dataset: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scalars, "find_spec", lambda name: None)
    with pytest.raises(cnn.DataError, match=r"need tensorboardX: pip install 'cnnengine\[tensorboard\]'"):
        _train(dataset, tmp_path, tensorboard=True)


def test_tensorboard_gets_a_point_an_epoch(dataset: data.Dataset, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    trainer = _train(dataset, tmp_path, tensorboard=True, model="plain")
    (file,) = (tmp_path / "tensorboard").iterdir()
    content = file.read_bytes()
    for tag in (b"train/loss", b"test/accuracy", b"test/top5"):
        assert content.count(tag) == trainer.progress.epoch == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "rprop"}, "optimizer must be one of sgd, adam, .*received 'rprop'"),
        ({"schedule": "linear"}, "schedule must be one of cosine, .*received 'linear'"),
        ({"precision": "float64"}, "precision must be one of float32, float16, bfloat16, received 'float64'"),
        ({"augment": ["crop", "mirror"]}, "augment must be of crop, .*received 'mirror'"),
        ({"monitor": "train_loss"}, "monitor must be one of"),
        ({"accumulate": 0}, "accumulate must be at least 1, received 0"),
        ({"patience": -1}, "patience must be at least 0, received -1"),
        ({"ema": 1.0}, r"ema must lie in \[0, 1\), received 1.0"),
        ({"label_smoothing": -0.1}, r"label_smoothing must lie in \[0, 1\)"),
        ({"factor": 0.0}, r"factor must lie in \(0, 1\], received 0.0"),
        ({"mixup": float("inf")}, "mixup must be a finite number"),
        ({"nesterov": True, "optimizer": "adam"}, "nesterov is for sgd, the optimizer is adam"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov needs a momentum above 0"),
        ({"schedule": "one_cycle", "warmup": 1}, "warmup must be 0 with one_cycle"),
        ({"warmup": 2}, "warmup must be less than the 2 epochs, received 2"),
        ({"schedule": "step"}, r"milestones must be one number for the schedule step, received \(\)"),
        ({"schedule": "multi_step"}, "milestones must be given for the schedule multi_step"),
        ({"milestones": [3]}, "milestones are for the schedules step and multi_step, not for cosine"),
        ({"schedule": "step", "milestones": [0]}, r"milestones must be epochs above 0, received \(0,\)"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _settings(**changes)


def test_settings_survive_json_and_free_ones_may_change() -> None:
    settings = _settings(augment=("crop", "flip"), schedule="step", milestones=(1.5,))
    assert Settings(**settings.as_dict()) == settings
    assert settings.conflicts({"augment": ("crop", "flip"), "workers": 3, "tensorboard": True}) == []
    assert settings.conflicts({"ema": 0.5}) == ["ema is 0.0 there, not 0.5"]


def test_workers_do_not_change_the_outcome(dataset: data.Dataset, tmp_path: Path) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("no processes to fork here")
    for workers in (0, 2):
        _train(dataset, tmp_path / str(workers), augment=("crop", "erasing"), workers=workers, epochs=1, model="plain")
    none, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("0", "2"))
    assert none == two
