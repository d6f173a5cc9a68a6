"""Ctrl-C and SIGTERM between two batches, where the state is whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Within the block the first Ctrl-C or SIGTERM only sets ``received``, the second ends the program at once:
    KeyboardInterrupt for Ctrl-C, SystemExit with the shell's 143 for SIGTERM.

    Python handles signals in its main thread; elsewhere the block changes nothing.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = signal.Signals(number)
        elif number == signal.SIGTERM:
            raise SystemExit(exit_status(signal.SIGTERM))
        else:
            raise KeyboardInterrupt


class Interrupted(Exception):
    """A signal ended the training; the run folder holds a checkpoint."""

    def __init__(self, by: signal.Signals = signal.SIGINT) -> None:
        super().__init__(f"ended by {by.name}")
        self.by = by


def exit_status(number: signal.Signals) -> int:
    """What a shell shows of a program that a signal ended: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + number
