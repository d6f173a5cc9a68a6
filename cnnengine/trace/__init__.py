"""``cnnengine trace``: one block of a kernel in the emulator, step by step, as a page that shows which thread reads and
writes what. docs/trace.md."""

from .page import page_of as page_of
from .record import ALGORITHMS as ALGORITHMS
from .record import VERBS as VERBS
from .record import Recording as Recording
from .record import record as record
