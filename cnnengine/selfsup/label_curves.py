"""How many labels are needed: accuracy by the share of the training labels, with and without pretraining."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ..backends.registry import use_backend
from ..data import Dataset
from ..training import RunFolder, Settings, Trainer
from .encoder import features
from .pretraining import Pretraining, make_task
from .probe import k_nearest, labelled_share, linear_probe
from .tasks import Task

SHARES = (0.01, 0.1, 1.0)
MOST_EPOCHS = 10  # times as many from scratch where there are few labels


@dataclass(frozen=True, slots=True)
class Row:
    """With ``labels`` labels, a share of all, the share ``accuracy`` of the test images is right by ``how``: a linear
    probe or the nearest neighbours of pretrained or untrained features, or the whole network trained from scratch."""

    share: float
    labels: int
    how: str
    accuracy: float


@dataclass(frozen=True, slots=True)
class Curves:
    """``rows`` of all shares and ways."""

    rows: list[Row]

    def accuracy(self, how: str, share: float) -> float:
        """Raises KeyError where it is not known."""
        for row in self.rows:
            if (row.how, row.share) == (how, share):
                return row.accuracy
        raise KeyError((how, share))

    def as_list(self) -> list[dict[str, object]]:
        """As JSON has it."""
        return [asdict(row) for row in self.rows]

    def markdown(self) -> str:
        """A line for each share, a column for each way, in %."""
        ways = list(dict.fromkeys(row.how for row in self.rows))
        lines = [f"| labels | {' | '.join(ways)} |", "|--:|" + "--:|" * len(ways)]
        for share, labels in dict.fromkeys((row.share, row.labels) for row in self.rows):
            cells = (f"{100 * self.accuracy(how, share):.2f}" for how in ways)
            lines.append(f"| {labels:,} ({100 * share:g} %) | {' | '.join(cells)} |")
        return "\n".join(lines)


def curves(
    task: Task,
    settings: Pretraining,
    dataset: Dataset,
    folder: Path,
    *,
    shares: Sequence[float] = SHARES,
    scratch_epochs: int = 10,
    resume: bool = False,
    report: Callable[[str], object] = print,
) -> Curves:
    """The rows of a pretrained task. Features of all images are computed once, by it and by the same network as it was
    before; for each share of the labels a linear probe and the nearest neighbours tell classes by them.

    From scratch the network of ``settings.model`` is trained on the labelled images alone, cropped and mirrored:
    ``scratch_epochs`` epochs with all labels, with fewer as many more as keep the steps, but at most ten times as many;
    0 leaves it out, as there is nothing of the kind for "masked". Each run is in a folder of its own in ``folder``;
    with ``resume`` it goes on from its checkpoint.
    Raises ValueError for shares outside (0, 1].
    """
    classes, test_labels = len(dataset.classes), dataset.test_labels
    rows_of = {share: labelled_share(dataset.train_labels, share, settings.seed) for share in shares}
    found: list[Row] = []

    def add(share: float, how: str, predicted: np.ndarray) -> None:
        found.append(Row(share, len(rows_of[share]), how, float((predicted == test_labels).mean())))
        report(f"{how}, {found[-1].labels:,} labels: {100 * found[-1].accuracy:.2f} %")

    with use_backend(settings.backend) as backend:
        untrained = make_task(settings, dataset).to(backend.device)
        for name, encoder in (("pretrained", task.encoder), ("untrained", untrained.encoder)):
            train, test = (features(encoder, dataset, part) for part in (dataset.train_images, dataset.test_images))
            for share, rows in rows_of.items():
                known = train[rows], dataset.train_labels[rows], test, classes
                add(share, f"{name}, probe", linear_probe(*known, seed=settings.seed))
                add(share, f"{name}, k-NN", k_nearest(*known))
    if scratch_epochs and settings.method != "masked":
        for share, rows in rows_of.items():
            predicted = _from_scratch(settings, dataset, rows, scratch_epochs, share, folder, resume, report)
            add(share, "from scratch", predicted)
    return Curves(found)


def _from_scratch(
    settings: Pretraining,
    dataset: Dataset,
    rows: np.ndarray,
    epochs: int,
    share: float,
    folder: Path,
    resume: bool,
    report: Callable[[str], object],
) -> np.ndarray:
    """The classes that the network predicts of the test images, behind its last epoch."""
    part = replace(dataset, train_images=dataset.train_images[rows], train_labels=dataset.train_labels[rows])
    augment = ("crop", "flip") if dataset.train_images.shape[3] == 3 else ("crop",)
    how = Settings(
        model=settings.model,
        epochs=min(round(epochs / share), MOST_EPOCHS * epochs),
        batch_size=min(64, max(8, len(rows) // 16)),  # enough steps where there are few
        optimizer="adam",
        lr=1e-3,
        weight_decay=1e-4,
        seed=settings.seed,
        backend=settings.backend,
        augment=augment,
    )
    run = RunFolder(folder / f"scratch-{len(rows)}")
    resume = resume and run.checkpoint.is_file() and run.read_checkpoint().settings == how.as_dict()
    trainer = Trainer(how, part, run, resume=resume)
    if not resume:
        run.prepare()
    trainer.run(lambda line: report(f"  {line}"))
    return trainer.predictions
