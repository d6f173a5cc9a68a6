"""Numbers of a run for TensorBoard, by tensorboardX, the extra "tensorboard"."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import DataError


class Scalars:
    """Writes event files into ``folder``; a run that goes on at ``step`` takes the place of what lies behind it.

    With ``enabled=False`` it does nothing. Raises DataError where tensorboardX is not installed.
    """

    def __init__(self, folder: Path, step: int, enabled: bool) -> None:
        self._writer: Any = None
        if not enabled:
            return
        if find_spec("tensorboardX") is None:
            raise DataError("TensorBoard's files need tensorboardX: pip install 'cnnengine[tensorboard]'")
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step or None)

    def __enter__(self) -> Scalars:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, step: int, **values: float) -> None:
        """One point of each curve; ``train_loss`` becomes "train/loss"."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name.replace("_", "/", 1), value, step)
