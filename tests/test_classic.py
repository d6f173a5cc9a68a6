"""Features designed by hand: answers computed by hand, and a linear SVM that is judged as networks are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cnnengine import classic, data
from cnnengine.classic import HOG, LBP, BagOfFeatures, ClassicModel, Edges, Pixels
from cnnengine.classic.images import grey, in_cells
from cnnengine.data import Dataset
from cnnengine.errors import DataError
from cnnengine.training import evaluate

for module in ("scipy", "skimage", "sklearn"):
    pytest.importorskip(module, reason=f"{module} is not installed: pip install 'cnnengine[classic]'")


def _grey(rows: list[list[int]]) -> np.ndarray:
    """One image (1, H, W, 1)."""
    return np.array(rows, np.uint8)[np.newaxis, :, :, np.newaxis]


def _digits(train: int, test: int) -> Dataset:
    digits = data.digits()
    return data.from_arrays(
        digits.train_images[:train], digits.train_labels[:train], digits.test_images[:test], digits.test_labels[:test]
    )


# ---- edges


def test_sobel_of_a_step_and_of_a_dot() -> None:
    step = np.zeros((1, 5, 6, 1), np.uint8)
    step[:, :, 3:] = 255
    # across the step (1, 0, -1) gives 1 at the two pixels beside it, along it 0: the root of 1 / 2
    inside = classic.sobel(step)[0, 2]
    np.testing.assert_allclose(inside, [0, 0, 0.5**0.5, 0.5**0.5, 0, 0], atol=1e-6)
    dot = np.zeros((1, 5, 5, 1), np.uint8)
    dot[0, 2, 2] = 255
    # beside it 2 / 4 in one direction, at the corners 1 / 4 in both
    expected = np.array([[0.25, 0.5 * 0.5**0.5, 0.25], [0.5 * 0.5**0.5, 0, 0.5 * 0.5**0.5]])
    np.testing.assert_allclose(classic.sobel(dot)[0, 1:3, 1:4], expected, atol=1e-6)


def test_canny_draws_a_line_of_one_pixel() -> None:
    step = np.zeros((1, 20, 20, 1), np.uint8)
    step[:, :, 10] = 120
    step[:, :, 11:] = 240
    lines = classic.canny(step)
    assert (lines.dtype, lines.shape) == (np.bool_, (1, 20, 20))
    assert lines[0, 2:-2, 10].all()
    assert lines[0].sum() == lines[0, :, 10].sum()
    faint = step // 20  # 12 levels within about two pixels: 4 * 12 / 255 * 0.7 = 0.13, between the thresholds
    assert not classic.canny(faint).any()
    np.testing.assert_array_equal(classic.canny(faint, high=0.1), lines)


def test_cells_are_means() -> None:
    maps = np.arange(2 * 5 * 4, dtype=np.float64).reshape(2, 5, 4)  # the fifth row fills no cell
    cells = in_cells(maps, 2)
    assert cells.dtype == np.float32
    np.testing.assert_array_equal(cells, [[2.5, 4.5, 10.5, 12.5], [22.5, 24.5, 30.5, 32.5]])
    step = np.zeros((1, 8, 8, 1), np.uint8)
    step[:, :, 4:] = 255
    for kind in ("sobel", "canny"):
        left, right = np.split(Edges(kind, cell=8)(np.concatenate([step, step * 0])), 2)  # type: ignore[arg-type]
        assert left.shape == (1, 1)
        assert left[0, 0] > 0 == right[0, 0]


def test_grey_weighs_colours() -> None:
    colours = np.zeros((1, 1, 4, 3), np.uint8)
    colours[0, 0, :3] = np.eye(3) * 255
    colours[0, 0, 3] = 255
    np.testing.assert_allclose(grey(colours)[0, 0], [0.2125, 0.7154, 0.0721, 1], atol=1e-12)


# ---- histograms


def test_hog_of_a_ramp() -> None:
    """To the right only: direction 0. The first and the last column have no gradient, so the four cells are equal: 1/2
    each, 0.2 when clipped, 1/2 when scaled again."""
    ramp = np.broadcast_to(np.arange(8, dtype=np.uint8)[:, np.newaxis] * 10, (1, 8, 8, 1))
    across = HOG().blocks(ramp)
    assert across.shape == (1, 1, 1, 36)
    expected = np.zeros((4, 9))
    expected[:, 0] = 0.5
    np.testing.assert_allclose(across.reshape(4, 9), expected, atol=1e-5)
    down = HOG()(ramp.swapaxes(1, 2)).reshape(4, 9)  # 90 degrees: the fifth of nine bins of 20
    np.testing.assert_allclose(down, np.roll(expected, 4, axis=1), atol=1e-5)


def test_hog_does_not_see_brightness(rng: np.random.Generator) -> None:
    images = rng.integers(0, 128, (3, 28, 28, 1)).astype(np.uint8)
    features = HOG()(images)
    assert (features.dtype, features.shape) == (np.float32, (3, 1296))
    np.testing.assert_allclose(HOG()(images * 2), features, atol=1e-4)
    np.testing.assert_allclose(HOG()(np.repeat(images, 3, axis=3)), features, atol=1e-6)
    assert HOG(orientations=6, cell=7, block=1)(images).shape == (3, 4 * 4 * 6)


def test_lbp_by_hand() -> None:
    """Flat: every neighbour is as bright, pattern 8; at the edge those outside, black, are darker: an arc of 5, at
    corners of 3. A brighter pixel has no neighbour as bright as it: pattern 0."""
    flat = np.full((1, 4, 4, 1), 100, np.uint8)
    codes = [[3, 5, 5, 3], [5, 8, 8, 5], [5, 8, 8, 5], [3, 5, 5, 3]]
    np.testing.assert_array_equal(LBP().codes(flat)[0], codes)
    features = LBP(cell=4)(flat).reshape(10)
    np.testing.assert_allclose(features, np.bincount(np.ravel(codes), minlength=10) / 16)
    bright = flat.copy()
    bright[0, 1, 1] = 200
    assert LBP().codes(bright)[0, 1, 1] == 0
    between = _grey([[99, 0, 99], [0, 5, 0], [99, 0, 99]])  # bright and dark in turns: no one arc
    assert LBP().codes(between)[0, 1, 1] == 9


def test_lbp_does_not_see_brightness(rng: np.random.Generator) -> None:
    images = rng.integers(0, 128, (2, 28, 28, 1)).astype(np.uint8)
    features = LBP()(images)
    assert (features.dtype, features.shape) == (np.float32, (2, 16 * 10))
    np.testing.assert_allclose(features.reshape(2, 16, 10).sum(2), 1, atol=1e-6)
    np.testing.assert_array_equal(LBP()(images * 2), features)


# ---- visual words


def test_a_bag_counts_the_nearest_words() -> None:
    images = data.digits().train_images[:40]
    bag = BagOfFeatures(words=12, grid=2, seed=3)
    bag.fit(images)
    words, features = bag.vocabulary, bag(images)
    assert (words.shape, features.shape, features.dtype) == ((12, 36), (40, 48), np.float32)
    blocks = HOG().blocks(images[:1])[0]  # 6 x 6 blocks, the middles of those of rows 0 to 2 in the upper half
    nearest = ((blocks[:, :, np.newaxis] - words) ** 2).sum(3).argmin(2)
    parts = [nearest[:3, :3], nearest[:3, 3:], nearest[3:, :3], nearest[3:, 3:]]
    counts = np.stack([np.bincount(part.ravel(), minlength=12) for part in parts]) / 9
    np.testing.assert_allclose(features[0].reshape(4, 12) ** 2, counts, atol=1e-6)
    again = BagOfFeatures(words=12, grid=2, seed=3)
    again.fit(images)
    np.testing.assert_array_equal(again(images), features)


def test_sift_finds_nothing_in_a_flat_picture() -> None:
    images = np.concatenate([data.digits().train_images[:12], np.full((1, 28, 28, 1), 90, np.uint8)])
    bag = BagOfFeatures(words=8, descriptor="sift", grid=1)
    bag.fit(images)
    features = bag(images)
    assert features.shape == (13, 8)
    np.testing.assert_allclose((features[:12] ** 2).sum(1), 1, atol=1e-5)
    assert not features[12].any()
    found, owners, places = bag.describe(images)
    assert found.shape == (len(owners), 128)
    assert 12 not in owners
    assert 0 <= places.min() <= places.max() < 1


# ---- the classifier


def test_planes_lie_between_classes() -> None:
    """Two classes by one pixel: brightness 40 and 200. The plane lies between, and the scores are by its sides."""
    images = np.array([40, 40, 200, 200] * 10, np.uint8).reshape(-1, 1, 1, 1)
    labels = np.array([0, 0, 1, 1] * 10)
    dataset = data.from_arrays(images, labels, images[:4], labels[:4])
    model = ClassicModel(Pixels(), c=100).fit(dataset)
    assert model.size == 4
    edge = np.arange(256, dtype=np.uint8).reshape(-1, 1, 1, 1)
    predicted = model.predict(edge)
    assert (np.diff(predicted) >= 0).all()
    assert 110 <= predicted.argmax() <= 130
    scores = model.scores(edge)
    np.testing.assert_array_equal(scores[:, 0], -scores[:, 1])
    np.testing.assert_allclose(scores[[40, 200], 1], [-1, 1], atol=0.05)  # c is large: both lie on the margin


def test_it_is_judged_as_networks_are() -> None:
    dataset = _digits(600, 200)
    model = classic.create("hog").fit(dataset)
    loss, accuracy, predictions = evaluate(model, dataset, dataset.test_images, dataset.test_labels)
    scores = model.scores(dataset.test_images).astype(np.float64)
    np.testing.assert_array_equal(predictions, scores.argmax(1))
    np.testing.assert_array_equal(predictions, model.predict(dataset.test_images))
    assert accuracy == (predictions == dataset.test_labels).mean() > 0.88
    own = scores[np.arange(200), dataset.test_labels]
    assert loss == pytest.approx((np.log(np.exp(scores).sum(1)) - own).mean(), rel=1e-5)
    assert model.size == 10 * 1297
    again = classic.create("hog").fit(dataset)
    np.testing.assert_array_equal(again.scores(dataset.test_images), model.scores(dataset.test_images))


@pytest.mark.parametrize(
    ("name", "least"), [("pixels", 0.7), ("sobel", 0.6), ("canny", 0.6), ("lbp", 0.5), ("bag", 0.7)]
)
def test_every_feature_tells_digits_apart(name: str, least: float) -> None:
    dataset = _digits(400, 150)
    model = ClassicModel(BagOfFeatures(words=40)) if name == "bag" else classic.create(name)
    predicted = model.fit(dataset).predict(dataset.test_images)
    assert (predicted == dataset.test_labels).mean() > least


def test_colour_pictures() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    images = rng.integers(0, 90, (40, 16, 16, 3)).astype(np.uint8)
    images[labels == 1, 4:12, 4:12] += 160
    dataset = data.from_arrays(images[:30], labels[:30], images[30:], labels[30:])
    for name in ("pixels", "sobel", "hog"):
        model = classic.create(name).fit(dataset)
        assert (model.predict(dataset.test_images) == dataset.test_labels).all(), name


# ---- what is refused

IMAGES = np.zeros((4, 28, 28, 1), np.uint8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: classic.sobel(IMAGES[0]),
            r"sobel: images must be \(N, H, W, 1\) or \(N, H, W, 3\), received \(28, 28",
        ),
        (lambda: classic.sobel(IMAGES[:0]), "sobel: there are no images"),
        (lambda: classic.canny(IMAGES, low=0.3), "canny: 0 <= low <= high expected, received low 0.3 and high 0.2"),
        (lambda: Edges("prewitt"), "kind must be 'sobel' or 'canny', received 'prewitt'"),
        (lambda: Edges(cell=0), "Edges: cell must be at least 1, received 0"),
        (lambda: Edges(cell=30)(IMAGES), "images of 28 x 28 are smaller than a cell of 30 x 30"),
        (lambda: HOG(block=0), "HOG: block must be at least 1, received 0"),
        (
            lambda: HOG(cell=16)(IMAGES),
            r"HOG: images must be at least 32 x 32, a block's size, received \(4, 28, 28, 1\)",
        ),
        (lambda: LBP(radius=0), "LBP: radius must be above 0, received 0"),
        (lambda: LBP(points=0), "LBP: points must be at least 1, received 0"),
        (lambda: LBP(cell=29)(IMAGES), "LBP: images must be at least 29 x 29"),
        (lambda: BagOfFeatures(words=0), "BagOfFeatures: words must be at least 1, received 0"),
        (lambda: BagOfFeatures(descriptor="orb"), "descriptor must be 'dense' or 'sift', received 'orb'"),
        (lambda: BagOfFeatures()(IMAGES), "BagOfFeatures: fit the bag to training images first"),
        (lambda: BagOfFeatures(words=200).fit(IMAGES), "200 words need as many descriptors, 144 found"),
        (lambda: ClassicModel(HOG(), c=0), "ClassicModel: c must be above 0, received 0"),
        (lambda: ClassicModel(HOG()).predict(IMAGES), "ClassicModel: fit the model to a data set first"),
        (lambda: classic.create("haar"), "there are no features 'haar'; there are pixels, sobel, canny, lbp, hog, bag"),
        (lambda: classic.warp(IMAGES, scale=[1, 1, 0, 1]), "warp: scale must be above 0, received 0"),
    ],
)
def test_what_cannot_be_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_floats_are_refused() -> None:
    for call in (HOG(), LBP(), Pixels(), Edges(), classic.sobel, classic.disturbed):
        with pytest.raises(TypeError, match=r"images must be uint8 in \[0, 255\], received float32"):
            call(IMAGES.astype(np.float32))


def test_data_sets_that_teach_nothing_are_refused() -> None:
    labels = np.array([0, 0, 2, 2])
    with pytest.raises(DataError, match="two classes or more, there is no training image of 1, 3"):
        classic.create("hog").fit(data.from_arrays(IMAGES, labels, IMAGES, labels, classes="0123"))
    with pytest.raises(DataError, match="two classes or more, there is one class alone"):
        classic.create("hog").fit(data.from_arrays(IMAGES, labels * 0, IMAGES, labels * 0))


def test_images_of_another_size_are_refused() -> None:
    model = classic.create("sobel").fit(_digits(200, 10))
    with pytest.raises(ValueError, match=r"fitted to images \(28, 28, 1\), received \(32, 32, 1\)"):
        model.predict(np.zeros((1, 32, 32, 1), np.uint8))


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "skimage.feature", None)
    with pytest.raises(ImportError, match=r"pip install 'cnnengine\[classic\]'"):
        HOG()(IMAGES)
