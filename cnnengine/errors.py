"""The errors the engine raises beside ValueError (bad shapes and values) and TypeError (bad types)."""


class Unsupported(TypeError):
    """A backend refuses an operation, a dtype or an algorithm, and says what to do instead."""


class BackendUnavailable(RuntimeError):
    """A backend cannot run on this machine; the message is the reason ``cnn.backends.available()`` gives."""


class KernelError(RuntimeError):
    """A kernel failed to compile or to run: compiler log, driver error, or the emulator's report."""


class DataError(ValueError):
    """A data or weight file is missing, truncated or corrupt; the message names the file and what was expected."""


class WorkerDied(RuntimeError):
    """A process that prepares data ended before its work was done; the message names it and says how it ended."""
