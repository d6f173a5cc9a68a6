"""Calls in processes of their own, a few at a time. They are started anew and not through ``multiprocessing``, which
runs the caller's script again in each of them: a script without ``if __name__ == "__main__"`` may call this."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from .._paths import PACKAGE
from ..errors import KernelError

T = TypeVar("T")
COMMAND = "from cnnengine.jit.workers import serve; serve()"


def run(calls: Sequence[Callable[[], T]], processes: int) -> list[T]:
    """The results of ``calls``, in their order, which travel pickled. Raises the first exception that a call raises,
    KernelError where a process dies."""
    if processes < 1:
        raise ValueError(f"processes must be at least 1, received {processes}")
    waiting: SimpleQueue[tuple[int, Callable[[], T]]] = SimpleQueue()
    for item in enumerate(calls):
        waiting.put(item)
    results: dict[int, T] = {}

    def attend() -> None:
        """Feeds one process until nothing is left."""
        folders = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, folders))}
        command = [sys.executable, "-P", "-c", COMMAND]  # -P: not from the current folder
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
            while True:
                try:
                    number, call = waiting.get_nowait()
                except Empty:
                    return
                results[number] = _ask(process, call)

    count = min(processes, len(calls))
    with ThreadPoolExecutor(max(count, 1)) as pool:
        attendants = [pool.submit(attend) for _ in range(count)]
        try:
            for attendant in attendants:
                attendant.result()
        finally:  # what nobody has begun is left out where one has failed
            while not waiting.empty():
                waiting.get()
    return [results[number] for number in range(len(calls))]


def _ask(process: subprocess.Popen[bytes], call: Callable[[], T]) -> T:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        pickle.dump(call, process.stdin)
        process.stdin.flush()
        failed, result = pickle.load(process.stdout)
    except (EOFError, BrokenPipeError):
        raise KernelError(f"a process that compiles kernels ended with status {process.wait()}") from None
    if failed:
        raise result
    return result  # type: ignore[no-any-return]


def serve() -> None:
    """The loop of such a process: calls come on the standard input, (whether it failed, its result) goes to the
    standard output, and what anybody else writes there to the standard error."""
    calls, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            call: Callable[[], Any] = pickle.load(calls)
        except EOFError:
            return
        try:
            answer = False, call()
        except Exception as error:
            answer = True, error
        pickle.dump(answer, answers)
        answers.flush()
