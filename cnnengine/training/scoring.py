"""How often a network is right about a folder of labelled images; what was interrupted can go on."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

from .. import functional as F
from ..autograd import no_grad
from ..backends.registry import use_backend
from ..data import FileList, ImageFolder, batch_count
from ..data.part import OnError, epoch_order
from ..errors import DataError
from ..serialize import write_atomically
from .interrupt import Interrupted, StopSignals
from .predict import Classifier

TOP = 5
SAVE_SECONDS = 10.0  # how much work is lost at most when the process is killed


@dataclass(frozen=True, slots=True)
class Score:
    """What is known behind ``batches`` batches: of ``images`` so many were right at once, or among the likeliest five.

    ``skipped`` has the images that could not be read, by name, with the reason.
    """

    batches: int = 0
    images: int = 0
    top1: int = 0
    top5: int = 0
    seconds: float = 0.0
    skipped: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.top1 <= self.top5 <= self.images or self.batches < 0 or self.seconds < 0:
            raise ValueError(f"counts that cannot be: {asdict(self)}")

    def with_batch(self, right: np.ndarray, seconds: float) -> Score:
        """The score behind one more batch; ``right`` (N,) is the place of each label among the predictions."""
        top1, top5 = self.top1 + int((right < 1).sum()), self.top5 + int((right < TOP).sum())
        return Score(self.batches + 1, self.images + len(right), top1, top5, self.seconds + seconds, self.skipped)

    @property
    def top1_error(self) -> float:
        """The share of images whose likeliest class is not their label; NaN without images."""
        return 1 - self.top1 / self.images if self.images else float("nan")

    @property
    def top5_error(self) -> float:
        """The share of images whose label is not among the likeliest five classes; NaN without images."""
        return 1 - self.top5 / self.images if self.images else float("nan")


@dataclass(frozen=True, slots=True)
class Results:
    """The file of an evaluation: what is evaluated, and its score so far. It is written beside and renamed."""

    path: Path
    facts: dict[str, Any]

    def write(self, score: Score, done: bool) -> None:
        """Keeps the score."""
        content = json.dumps({"evaluated": self.facts, "done": done, "score": asdict(score)}, indent=2)
        write_atomically(self.path, (content + "\n").encode())

    def read(self) -> tuple[Score, bool]:
        """The score so far, and whether it is that of all images. Raises DataError where the file is missing, is none,
        or is of another evaluation."""
        try:
            content = json.loads(self.path.read_bytes())
            score, facts, done = Score(**content["score"]), dict(content["evaluated"]), bool(content["done"])
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self.path}: not the results of an evaluation: {error!r}") from error
        differ = [
            f"{key} is {facts.get(key)!r} there, not {mine!r}"
            for key, mine in self.facts.items()
            if facts.get(key) != mine
        ]
        if differ:
            raise DataError(f"{self.path}: the results of another evaluation: {'; '.join(differ)}")
        return score, done


def labelled_images(
    classifier: Classifier,
    root: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    on_error: OnError = "raise",
) -> FileList:
    """The images of ``root/CLASS/`` with the classifier's numbers for labels, read as it wants them.

    Which class a folder is: its line in the file ``labels``, whose lines begin with the folders' names in the order of
    the classes; else its name, where the network has classes of these names; else its place among the sorted folders,
    as with ImageNet's wnids, of which there must then be one for each class. ``limit`` takes so many images at random,
    always the same. Raises DataError.
    """
    outputs = len(classifier.classes)
    if labels is not None:
        names = _folder_names(Path(labels))
        if len(names) > outputs:
            raise DataError(f"{labels}: {len(names)} lines, but the network has {outputs} classes")
    else:
        names = tuple(classifier.classes)
        folders = ImageFolder(root).classes
        if not set(folders) <= set(names):
            if len(folders) != outputs:
                raise DataError(
                    f"{root}: {len(folders)} folders, but the network has {outputs} classes; a file of the folders'"
                    " names in the order of the classes tells which they are"
                )
            names = folders
    images = ImageFolder(root, classes=names)
    if not len(images):
        raise DataError(f"{root}: there are no images in its folders")
    rows = np.sort(epoch_order(len(images), 0, 0)[:limit])
    files = [(images.paths[row], int(images.labels[row])) for row in rows]
    return FileList(files, names, name=str(root), read=classifier.read, on_error=on_error)


def _folder_names(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    names = tuple(line.split()[0] for line in lines if line.strip())
    if len(set(names)) != len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise DataError(f"{path}: {twice} is there twice")
    return names


def fingerprint(images: FileList) -> str:
    """Changes with the files' names in their folder, their order and their labels."""
    names = (os.path.relpath(path, images.name) for path in images.paths)
    lines = (f"{name} {label}\n" for name, label in zip(names, images.labels.tolist(), strict=True))
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def places(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,): how many classes come before each label; of equal ones the lower number comes first, NaN last."""
    order = np.argsort(-logits, axis=1, kind="stable")
    place: np.ndarray = (order == labels[:, np.newaxis]).argmax(1)
    return np.where(np.isnan(logits[np.arange(len(labels)), labels]), logits.shape[1], place)


def score_images(
    classifier: Classifier,
    images: FileList,
    backend: str,
    *,
    batch_size: int = 64,
    workers: int = 0,
    score: Score | None = None,
    save: Callable[[Score, bool], object] = lambda score, done: None,
) -> Score:
    """The score of all images, from that of the first batches on. The network is fused, for good.

    ``save`` gets the score now and then, and at the end. Raises Interrupted behind the batch in which Ctrl-C or
    SIGTERM came, DataError for images that cannot be read; whatever is raised, the score was saved.
    """
    score = score or Score()
    images.faults.update(score.skipped)
    total = batch_count(len(images), batch_size)
    walk = images.batches(batch_size, start=score.batches, workers=workers)
    bar = tqdm(walk, images.name, total, initial=score.batches, unit="batch", leave=False, disable=None)
    saved = began = time.monotonic()
    with use_backend(backend) as kernels, no_grad(), StopSignals() as signals, bar:
        model = classifier.model.to(kernels.device).fuse()
        try:
            for pictures, labels in bar:
                x = F.normalize_images(kernels.to_device(pictures), classifier.mean, classifier.std)
                right = places(model(x).numpy(), labels)
                now = time.monotonic()
                score, began = score.with_batch(right, now - began), now
                score.skipped.update(images.faults)
                bar.set_postfix_str(f"top-1 error {100 * score.top1_error:.2f} %", refresh=False)
                if signals.received and score.batches < total:
                    raise Interrupted(signals.received)
                if now - saved > SAVE_SECONDS:
                    save(score, False)
                    saved = now
        finally:
            if score.batches:
                save(score, score.batches == total)
            walk.close()  # type: ignore[attr-defined]
    return score
