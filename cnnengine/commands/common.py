"""What commands share: errors of usage, warnings, kinds of arguments, and the backend that is used by default."""

from __future__ import annotations

import argparse
import os
import sys

from ..backends.registry import NAMES, unavailable
from ..errors import BackendUnavailable

PREFERRED = ("cuda", "native", "numpy")  # backends, by default the first that can run here
NATIVE_SETTINGS = ("CNNENGINE_ISA", "CNNENGINE_NUM_THREADS")  # a wrong one makes the native backend unavailable


class UsageError(Exception):
    """Something the user asked for that cannot be; the message is one sentence."""


def warn(message: str) -> None:
    """One line on standard error."""
    print(f"cnnengine: warning: {message}", file=sys.stderr)


def default_backend() -> str:
    """The name in CNNENGINE_BACKEND, else the first of PREFERRED that can run here, with a warning where that is slow.
    Raises UsageError and BackendUnavailable."""
    named = os.environ.get("CNNENGINE_BACKEND")
    if named:
        if named not in NAMES:
            raise UsageError(f"CNNENGINE_BACKEND must be one of {', '.join(NAMES)}, received {named!r}")
        if reason := unavailable(named):
            raise BackendUnavailable(f"CNNENGINE_BACKEND: backend {named!r} is not available: {reason}")
        return named
    name = next(name for name in PREFERRED if unavailable(name) is None)
    if name == "numpy":
        reason = str(unavailable("native"))
        if any(setting in reason for setting in NATIVE_SETTINGS):
            raise UsageError(reason)
        warn(f"computing with NumPy, slowly: {reason}")
    return name


def positive(text: str) -> int:
    """An argument that is an int of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, received {text}")
    return value
