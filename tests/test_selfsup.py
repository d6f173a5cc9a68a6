"""Learning without labels: losses computed by hand, labels that change nothing, runs that go on bit for bit."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import cnnengine as cnn
from cnnengine import data, nn, selfsup
from cnnengine.data import Dataset
from cnnengine.data import transforms as T
from cnnengine.errors import DataError
from cnnengine.selfsup import (
    MaskedAutoencoder,
    Pretraining,
    Rotation,
    SimCLR,
    TwoViews,
    label_curves,
    nt_xent,
    pretraining,
)
from cnnengine.selfsup.masked import chosen, patches, positions
from cnnengine.selfsup.tasks import four_turns
from cnnengine.selfsup.views import apart, simclr_views
from cnnengine.training import Interrupted

from .gradients import check_gradients

BACKEND = "native"


def _colour(train: int = 24, side: int = 16) -> Dataset:
    """Random pictures in colour of three classes."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (train, side, side, 3)).astype(np.uint8), np.arange(train) % 3
    return data.from_arrays(images, labels, images[:6], labels[:6])


# ---- the contrastive loss


def _nt_xent(z: np.ndarray, temperature: float) -> float:
    with cnn.use_backend("numpy"):  # in float64
        return nt_xent(cnn.Tensor(z), temperature).item()


def test_nt_xent_by_hand() -> None:
    """Partners are equal, all others at right angles: e^(1/t) of e^(1/t) + 2 belongs to the partner."""
    z = np.array([[1.0, 0], [0, 3], [2, 0], [0, 0.5]])
    for temperature in (1.0, 0.5, 0.1):
        share = math.exp(1 / temperature) / (math.exp(1 / temperature) + 2)
        assert _nt_xent(z, temperature) == pytest.approx(-math.log(share), rel=1e-9)
    apart_ = np.array([[1.0, 0], [1, 0], [-1, 0], [-1, 0]])  # partners are opposite, one other is equal
    expected = -math.log(math.exp(-1) / (2 * math.exp(-1) + math.exp(1)))
    assert _nt_xent(apart_, 1.0) == pytest.approx(expected, rel=1e-9)
    assert _nt_xent(np.ones((6, 4)), 0.5) == pytest.approx(math.log(5), rel=1e-9)  # five others are alike


def test_nt_xent_is_its_definition(rng: np.random.Generator) -> None:
    z, t, loss = rng.standard_normal((10, 7)), 0.3, 0.0
    for i in range(10):
        cosine = z @ z[i] / (np.linalg.norm(z, axis=1) * np.linalg.norm(z[i]))
        others = sum(math.exp(cosine[k] / t) for k in range(10) if k != i)
        loss -= math.log(math.exp(cosine[(i + 5) % 10] / t) / others) / 10
    assert _nt_xent(z, t) == pytest.approx(loss, rel=1e-9)
    with cnn.use_backend(BACKEND):
        assert nt_xent(cnn.Tensor(z.astype(np.float32)), t).item() == pytest.approx(loss, rel=1e-5)


def test_nt_xent_has_its_gradient(rng: np.random.Generator) -> None:
    check_gradients(lambda z: nt_xent(z, 0.5), [rng.standard_normal((8, 5))], rng)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nt_xent(cnn.Tensor(np.zeros((5, 2)))), r"z must be \(2N, D\) with N of at least 2, received \(5, 2\)"),
        (lambda: nt_xent(cnn.Tensor(np.zeros((2, 2)))), r"received \(2, 2\)"),
        (lambda: nt_xent(cnn.Tensor(np.zeros((4, 2))), 0), "temperature must be above 0, received 0"),
        (lambda: positions(4, 6), "dim must be a multiple of 4, received 6"),
        (lambda: selfsup.PatchEncoder(30, 3), "the side must be a multiple of 4, received 30"),
        (lambda: selfsup.headless(nn.Sequential(nn.ReLU())), "Sequential has no linear layer"),
        (lambda: selfsup.labelled_share(np.zeros(3, int), 0), r"share must lie in \(0, 1\], received 0"),
        (lambda: selfsup.linear_probe(np.zeros((3, 2)), np.zeros(4), np.zeros((1, 2)), 2), "linear_probe: features"),
        (lambda: selfsup.k_nearest(np.zeros((3, 2)), np.zeros(3), np.zeros((1, 4)), 2), "k_nearest: features"),
        (lambda: selfsup.k_nearest(np.ones((3, 2)), np.zeros(3), np.ones((1, 2)), 2, k=0), "k must be at least 1"),
        (lambda: Pretraining(method="byol"), "method must be one of simclr, rotation, masked, received 'byol'"),
        (lambda: Pretraining(model="resnet21"), "model must be one of"),
        (lambda: Pretraining(batch_size=1), "batch_size must be at least 2, received 1"),
        (lambda: Pretraining(lr=math.nan), "lr must be a finite number"),
        (lambda: Pretraining(epochs=1), "warmup must be less than the 1 epochs, received 1.0"),
        (lambda: Pretraining(temperature=0), "temperature must be above 0, received 0"),
    ],
)
def test_what_cannot_be_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# ---- views


def test_views_are_two_pictures(rng: np.random.Generator) -> None:
    picture = rng.integers(0, 256, (9, 8, 3)).astype(np.uint8)
    both = TwoViews(T.RandomCrop(padding=2))(picture, np.random.default_rng(5))
    once = np.random.default_rng(5)
    first, second = (T.RandomCrop(padding=2)(picture, once) for _ in range(2))
    np.testing.assert_array_equal(apart(both[np.newaxis]), [first, second])
    assert not np.array_equal(first, second)
    batch = np.stack([both, both + 1])
    np.testing.assert_array_equal(apart(batch), [first, first + 1, second, second + 1])


@pytest.mark.parametrize("channels", [1, 3])
def test_simclr_views_keep_the_size(channels: int) -> None:
    picture = np.full((20, 20, channels), 120, np.uint8)
    views = simclr_views((20, 20), channels)
    made = [views(picture, np.random.default_rng(seed)) for seed in range(30)]
    assert {view.shape for view in made} == {(20, 20, 2 * channels)}
    assert len({view.tobytes() for view in made}) > 20


def test_grayscale_and_apply_have_their_probability() -> None:
    colour = np.zeros((2, 2, 3), np.uint8)
    colour[..., 0] = 200
    grey = [T.RandomGrayscale(0.3)(colour, np.random.default_rng(seed)) for seed in range(400)]
    assert {tuple(picture[0, 0]) for picture in grey} == {(200, 0, 0), (60, 60, 60)}  # .299 of 200
    assert 0.2 < np.mean([picture[0, 0, 1] == 60 for picture in grey]) < 0.4
    np.testing.assert_array_equal(T.RandomGrayscale(1.0)(colour[..., :1], np.random.default_rng(0)), colour[..., :1])
    flips = [T.RandomApply(T.RandomDarken(0.0), 0.25)(colour, np.random.default_rng(seed)) for seed in range(400)]
    assert 0.15 < np.mean([not np.array_equal(picture, colour) for picture in flips]) < 0.35


def test_turns_by_hand() -> None:
    image = np.array([[1, 2], [3, 4]], np.uint8)[np.newaxis, :, :, np.newaxis]
    turned = four_turns(image)[..., 0].tolist()
    assert turned == [[[1, 2], [3, 4]], [[2, 4], [1, 3]], [[4, 3], [2, 1]], [[3, 1], [4, 2]]]


# ---- tasks


def test_rotation_has_four_classes() -> None:
    """A head of zeros gives each a quarter; one that knows the answer loses nothing."""
    with cnn.use_backend(BACKEND):
        task = Rotation("lenet5", data.digits().part_of(8, 4))
        task.head.weight.data[...] = 0
        task.head.bias.data[...] = 0
        images = data.digits().test_images[:3]
        loss = task.loss(images, data.digits().normalize, np.random.default_rng(0))
        assert loss.item() == pytest.approx(math.log(4), rel=1e-5)
        seen: list[int] = []
        task.encoder.register_forward_hook(lambda module, inputs, output: seen.append(len(output.data)))
        task.loss(images, data.digits().normalize, np.random.default_rng(0))
        assert seen == [12]


def test_simclr_compares_both_views() -> None:
    """Where a view is the picture itself, partners are equal."""
    digits = data.digits().part_of(16, 4)
    with cnn.use_backend(BACKEND):
        task = SimCLR("lenet5", digits, temperature=0.05).eval()
        images = np.concatenate([digits.train_images, digits.train_images], axis=3)
        equal = task.loss(images, digits.normalize, np.random.default_rng(0)).item()
        mixed = np.concatenate([digits.train_images, digits.train_images[::-1]], axis=3)
        assert equal < task.loss(mixed, digits.normalize, np.random.default_rng(0)).item() - 0.05


def test_patches_by_hand() -> None:
    image = np.arange(16).reshape(1, 4, 4, 1)
    assert patches(image, 2)[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    visible = chosen(50, 9, 3, np.random.default_rng(0))
    assert visible.shape == (50, 3, 9)
    np.testing.assert_array_equal(visible.sum(2), 1)
    places = visible.argmax(2)
    assert (np.diff(places, axis=1) > 0).all()
    assert set(places.ravel().tolist()) == set(range(9))


def test_positions_by_hand() -> None:
    """Frequencies 1 and 1/100 of dim 8: of the row first, then of the column."""
    table = positions(3, 8)[0]
    row, column = 2, 1
    expected = [f(p * w) for p in (row, column) for f in (math.sin, math.cos) for w in (1, 0.01)]
    np.testing.assert_allclose(table[row * 3 + column], expected, rtol=1e-6)


def test_the_masked_error_by_hand() -> None:
    """A painter of zeros: hidden patches have deviation 1, so the error is 1; a flat patch is brought to 0,
    from where a painter of halves is off by a quarter, squared."""
    dataset = _colour()
    with cnn.use_backend(BACKEND):
        task = MaskedAutoencoder(dataset, dim=16, depth=1, decoder=16)
        task.paint.weight.data[...] = 0
        task.paint.bias.data[...] = 0
        loss = task.loss(dataset.train_images, dataset.normalize, np.random.default_rng(0)).item()
        assert loss == pytest.approx(1, rel=1e-4)
        same = MaskedAutoencoder(data.digits(), dim=16, depth=1, decoder=16)
        same.paint.weight.data[...] = 0
        same.paint.bias.data[...] = 0.5
        flat = np.full((3, 28, 28, 1), 9, np.uint8)
        loss = same.loss(flat, data.digits().normalize, np.random.default_rng(0)).item()
        assert loss == pytest.approx(0.25, rel=1e-4)


def test_hidden_patches_are_not_seen(rng: np.random.Generator) -> None:
    with cnn.use_backend(BACKEND), cnn.no_grad():
        task = MaskedAutoencoder(_colour(), dim=16, depth=2, decoder=16)
        cut = rng.standard_normal((2, 16, 48)).astype(np.float32)
        visible = chosen(2, 16, 4, rng)
        mask = 1 - visible.sum(1)[..., np.newaxis]

        def painted(cut: np.ndarray) -> np.ndarray:
            return task.painted(cnn.Tensor(cut), cnn.Tensor(visible), cnn.Tensor(mask)).numpy()

        before = painted(cut)
        np.testing.assert_array_equal(painted(np.where(mask > 0, 7, cut).astype(np.float32)), before)
        assert np.abs(painted(np.where(mask > 0, cut, 7).astype(np.float32)) - before).max() > 1e-4
        images = rng.standard_normal((2, 16, 16, 3)).astype(
            np.float32
        )  # all seen: what the encoder gives is their mean
        everything = np.broadcast_to(np.eye(16, dtype=np.float32), (2, 16, 16)).copy()
        tokens = task.encoder.seen(cnn.Tensor(patches(images, 4)), cnn.Tensor(everything)).numpy()
        np.testing.assert_allclose(task.encoder(cnn.Tensor(images)).numpy(), tokens.mean(1), rtol=1e-4, atol=1e-5)
        with pytest.raises(ValueError, match=r"expected images \(N, 16, 16, 3\), received \(2, 20, 16, 3\)"):
            task.encoder(cnn.Tensor(np.zeros((2, 20, 16, 3), np.float32)))


@pytest.mark.parametrize(("name", "width"), [("lenet5", 84), ("resnet20", 64), ("mobilenet_v2", 1280)])
def test_networks_without_heads(name: str, width: int) -> None:
    model, features = selfsup.encoder(name)
    assert features == width
    height, across, channels = cnn.models.registry.entry(name).image if name != "mobilenet_v2" else (32, 32, 3)
    with cnn.use_backend(BACKEND), cnn.no_grad():
        x = cnn.Tensor(np.zeros((2, height, across, channels), np.float32))
        assert model.eval()(x).shape == (2, width)


# ---- how good features are


def test_neighbours_vote_by_hand() -> None:
    """Asked (1, 0): one neighbour at 0 degrees against two at 60, whose weights are e^((cos 60 - 1) / t)."""
    known = np.array([[5.0, 0], [1, 3**0.5], [1, -(3**0.5)], [-1, 0]])
    labels = np.array([1, 0, 0, 2])
    asked = np.array([[2.0, 0]])
    assert selfsup.k_nearest(known, labels, asked, 3, k=1).tolist() == [1]
    assert selfsup.k_nearest(known, labels, asked, 3, k=3, temperature=1.0).tolist() == [0]  # 2 * .61 > 1
    assert selfsup.k_nearest(known, labels, asked, 3, k=3, temperature=0.5).tolist() == [1]  # 2 * .37 < 1
    assert selfsup.k_nearest(known, labels, -asked, 3, k=99, temperature=0.1).tolist() == [2]


def test_a_probe_finds_the_plane(rng: np.random.Generator) -> None:
    train, test = rng.standard_normal((300, 6)).astype(np.float32), rng.standard_normal((100, 6)).astype(np.float32)
    train[:, 5], test[:, 5] = 4, 4  # of no deviation
    plane = np.array([1, -2, 0, 0, 1, 0], np.float32)
    predicted = selfsup.linear_probe(train * 50, (train @ plane > 0).astype(np.int64), test * 50, 2, steps=300)
    assert (predicted == (test @ plane > 0)).mean() > 0.93
    state = cnn.random.get_state()
    again = selfsup.linear_probe(train * 50, (train @ plane > 0).astype(np.int64), test * 50, 2, steps=300)
    np.testing.assert_array_equal(again, predicted)
    assert cnn.random.get_state() == state


def test_shares_are_of_each_class() -> None:
    labels = np.repeat([0, 1, 2], [100, 50, 3])
    rows = selfsup.labelled_share(labels, 0.1)
    assert np.bincount(labels[rows]).tolist() == [10, 5, 1]
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(selfsup.labelled_share(labels, 0.1), rows)
    assert not np.array_equal(selfsup.labelled_share(labels, 0.1, seed=1), rows)
    np.testing.assert_array_equal(selfsup.labelled_share(labels, 1.0), np.arange(153))


# ---- training

SMALL = Pretraining(model="lenet5", epochs=3, batch_size=32, warmup=1.0, backend=BACKEND)


@pytest.mark.parametrize("method", selfsup.METHODS)
def test_labels_are_never_looked_at(method: str, tmp_path: Path) -> None:
    dataset = data.digits().part_of(96, 10)
    settings = replace(SMALL, method=method, epochs=2)
    other = replace(dataset, train_labels=dataset.train_labels[::-1].copy())
    files = []
    for name, labelled in (("a", dataset), ("b", other)):
        selfsup.pretrain(settings, labelled, tmp_path / name, report=lambda line: None)
        files.append((tmp_path / name / pretraining.ENCODER).read_bytes())
    assert files[0] == files[1]


def test_what_was_interrupted_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = data.digits().part_of(96, 10)
    _, history = selfsup.pretrain(SMALL, dataset, tmp_path / "whole", report=lambda line: None)
    assert [row["epoch"] for row in history] == [1, 2, 3]
    step, steps = pretraining._step, 0

    def press(*arguments: object) -> float:
        nonlocal steps
        steps += 1
        if steps == 5:  # of 3 an epoch
            os.kill(os.getpid(), signal.SIGINT)
        return step(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pretraining, "_step", press)
    with pytest.raises(Interrupted):
        selfsup.pretrain(SMALL, dataset, tmp_path / "parts", report=lambda line: None)
    _, again = selfsup.pretrain(SMALL, dataset, tmp_path / "parts", resume=True, report=lambda line: None, workers=1)
    assert steps == 5 + 6
    assert [row["loss"] for row in again] == [row["loss"] for row in history]
    files = [(tmp_path / name / pretraining.ENCODER).read_bytes() for name in ("whole", "parts")]
    assert files[0] == files[1]
    with pytest.raises(DataError, match=r"another run: lr is 0\.001 there, not 0\.002; images is 96 there, not 64"):
        selfsup.pretrain(replace(SMALL, lr=0.002), dataset.part_of(64), tmp_path / "parts", resume=True)
    (tmp_path / "parts" / pretraining.CHECKPOINT).write_bytes(b"nothing")
    with pytest.raises(DataError, match=pretraining.CHECKPOINT):
        selfsup.pretrain(SMALL, dataset, tmp_path / "parts", resume=True)


def test_images_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    dataset = data.digits().part_of(20, 4)
    with pytest.raises(DataError, match="20 images make no batch of 32"):
        selfsup.pretrain(SMALL, dataset, tmp_path)
    wide = replace(dataset, train_images=dataset.train_images[:, :20], test_images=dataset.test_images[:, :20])
    for method in ("rotation", "masked"):
        with pytest.raises(DataError, match="pictures must be square, those of digits are 20 x 28"):
            selfsup.pretrain(replace(SMALL, method=method), wide, tmp_path)


def _stripes(count: int) -> Dataset:
    """Stripes of six directions, of any phase, width, contrast and brightness, under noise; labels their directions."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 6
    y, x = np.mgrid[:28, :28] / 28
    angle = np.pi * labels / 6
    along = np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y
    draws = rng.uniform(size=(4, count, 1, 1))
    wave = np.sin(2 * np.pi * ((4 + 4 * draws[0]) * along + draws[1]))
    images = 128 + 60 * (draws[2] - 0.5) + (20 + 40 * draws[3]) * wave + rng.normal(0, 20, wave.shape)
    images = np.rint(images).clip(0, 255).astype(np.uint8)
    half = 3 * count // 4
    return data.from_arrays(images[:half], labels[:half], images[half:], labels[half:])


def test_what_is_learned_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Views of stripes share their direction and little else: with 36 labels the features tell directions apart, the
    untrained ones do not, and 36 pictures teach a network less from scratch."""
    monkeypatch.setattr(label_curves, "linear_probe", partial(selfsup.linear_probe, steps=300))
    dataset, lines = _stripes(960), list[str]()
    settings = replace(SMALL, epochs=4, batch_size=48, lr=2e-3)
    task, history = selfsup.pretrain(settings, dataset, tmp_path, report=lines.append)
    assert history[-1]["loss"] < history[0]["loss"] - 0.3
    assert [line.split()[1] for line in lines] == ["1/4", "2/4", "3/4", "4/4"]
    found = selfsup.curves(
        task, settings, dataset, tmp_path, shares=(0.05, 1.0), scratch_epochs=1, report=lambda line: None
    )
    for how in ("probe", "k-NN"):
        for share, margin in ((0.05, 0.25), (1.0, 0.08)):
            assert found.accuracy(f"pretrained, {how}", share) > found.accuracy(f"untrained, {how}", share) + margin
    assert found.accuracy("pretrained, probe", 0.05) > found.accuracy("from scratch", 0.05) + 0.05
    ways = ["pretrained, probe", "pretrained, k-NN", "untrained, probe", "untrained, k-NN", "from scratch"]
    assert list(dict.fromkeys(row.how for row in found.rows)) == ways
    assert {(row.share, row.labels) for row in found.rows} == {(0.05, 36), (1.0, 720)}
    assert found.markdown().splitlines()[0] == f"| labels | {' | '.join(ways)} |"
    assert found.markdown().splitlines()[2].startswith("| 36 (5 %) |")
    with cnn.use_backend(BACKEND):
        features = [selfsup.features(task.encoder, dataset, x) for x in (dataset.train_images, dataset.test_images)]
    predicted = selfsup.k_nearest(features[0], dataset.train_labels, features[1], 6)
    assert found.accuracy("pretrained, k-NN", 1.0) == (predicted == dataset.test_labels).mean()
    with pytest.raises(KeyError):
        found.accuracy("pretrained, probe", 0.5)
    begun: list[bool] = []
    trainer = label_curves.Trainer
    monkeypatch.setattr(
        label_curves, "Trainer", lambda *a, resume: begun.append(not resume) or trainer(*a, resume=resume)
    )
    again = selfsup.curves(
        task, settings, dataset, tmp_path, shares=(0.05,), scratch_epochs=1, resume=True, report=lambda line: None
    )
    assert begun == [False]  # all its epochs were there
    assert again.rows[-1] == next(row for row in found.rows if row.how == "from scratch")


def test_turns_of_stripes_cannot_be_told(tmp_path: Path) -> None:
    """Stripes of every direction stand nowhere upright: the loss stays at log 4."""
    settings = replace(SMALL, method="rotation", batch_size=48)
    _, history = selfsup.pretrain(settings, _stripes(480), tmp_path, report=lambda line: None)
    assert history[-1]["loss"] == pytest.approx(math.log(4), abs=0.02)
    digits = data.digits().part_of(600, 10)
    _, history = selfsup.pretrain(replace(settings, lr=3e-3), digits, tmp_path, report=lambda line: None)
    assert history[-1]["loss"] < 1.2
