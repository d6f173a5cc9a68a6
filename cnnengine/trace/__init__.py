"""``cnnengine trace``: one block of a kernel in the emulator, step by step, as a page that shows which thread reads and
writes what. docs/trace.md."""

from typing import TYPE_CHECKING, Any

from .rungs import ALGORITHMS as ALGORITHMS
from .rungs import VERBS as VERBS

if TYPE_CHECKING:
    from .page import page_of as page_of
    from .recording import Recording as Recording
    from .recording import record as record


def __getattr__(name: str) -> Any:
    """The rest is imported when it is used: the command line works where the extension is not built."""
    from importlib import import_module

    modules = {"page_of": "page", "Recording": "recording", "record": "recording"}
    if name not in modules:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{modules[name]}"), name)
