"""Batches that are prepared in worker processes and handed over in shared memory.

Batch i goes to worker i mod W, which puts it into one of its two slots of the ring and says so through its pipe; the
batches come out in order. Pixels are never pickled. The memory has no name any more once all workers have it, and the
workers own nothing, so that they can be killed at any moment: whatever ends, nothing is left behind.
"""

from __future__ import annotations

import errno
import gc
import multiprocessing
import os
import pickle
import queue
import shutil
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from ..errors import DataError, WorkerDied
from .part import Prepare, Prepared, Sample

SLOTS = 2  # of each worker: one is read while the next is filled
MEMORY = "/dev/shm"  # where Linux keeps shared memory; writing past what is free there kills a process


@dataclass(frozen=True, slots=True)
class _Reply:
    """What a worker says of a batch whose images lie in its slot, or follow in the pipe where they do not fit."""

    shape: tuple[int, ...]
    dtype: str
    labels: np.ndarray
    faults: tuple[tuple[str, str], ...]
    in_slot: bool


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    connection: Connection[Any, Any]


def in_workers(
    tasks: Iterator[list[Sample]], prepare: Prepare, batch_size: int, count: int
) -> Generator[Prepared, None, None]:
    """``map(prepare, tasks)`` by ``count`` processes, in the same order with the same bytes.

    Raises what ``prepare`` raises, at the batch where it does; WorkerDied where a process ended; OSError where there is
    too little shared memory.
    """
    first = next(tasks, None)
    if first is None:
        return
    pool = _Pool(prepare, batch_size * _image_bytes(first, prepare), count)
    try:
        yield from pool.run(chain([first], tasks))
    finally:
        pool.close()


def _image_bytes(samples: list[Sample], prepare: Prepare) -> int:
    """What an image takes, by the first that can be read: others that differ still come through, by the pipe."""
    for sample in samples:
        try:
            return prepare.one(sample).nbytes
        except DataError:
            continue
    return 0


def _context() -> BaseContext:
    """The start method that ``multiprocessing`` was told to use; else fork on Linux, where it is safe: workers touch
    neither a GPU nor the native backend, whose own threads are made anew in a child. Elsewhere Python's default."""
    method: str | None = multiprocessing.get_start_method(allow_none=True)
    return multiprocessing.get_context("fork" if not method and sys.platform == "linux" else method)


class _Pool:
    def __init__(self, prepare: Prepare, slot_bytes: int, count: int) -> None:
        self.slot_bytes = slot_bytes
        self.workers: list[_Worker] = []
        size = max(1, count * SLOTS * slot_bytes)
        if os.path.isdir(MEMORY) and size > (free := shutil.disk_usage(MEMORY).free):
            raise OSError(
                errno.ENOSPC,
                f"{count} data workers need {size / 1e6:.0f} MB of shared memory, {free / 1e6:.0f} MB are free: take"
                " fewer workers or smaller batches",
                MEMORY,
            )
        self.memory = SharedMemory(create=True, size=size)
        try:
            context = _context()
            for number in range(count):
                self._start(context, number, prepare)
            for number in range(count):
                self._receive(number, "it started")  # it has the memory now
        except BaseException:
            self.close()
            raise
        finally:
            self.memory.unlink()

    def _start(self, context: BaseContext, number: int, prepare: Prepare) -> None:
        ours, theirs = context.Pipe()
        arguments = (number, theirs, self.memory, self.slot_bytes, prepare)
        process = context.Process(target=_work, args=arguments, name=f"data worker {number}", daemon=True)  # type: ignore[attr-defined]
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
                process.start()
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.workers.append(_Worker(process, ours))

    def run(self, tasks: Iterator[list[Sample]]) -> Iterator[Prepared]:
        """The batches in order. An error of ``tasks`` comes behind the batches before it."""
        sent, failure = 0, None
        for done in range(sys.maxsize):
            ahead = SLOTS * len(self.workers) - (sent - done)
            try:
                for task in islice(tasks, ahead if failure is None else 0):
                    self._send(sent, task)
                    sent += 1
            except WorkerDied:
                raise
            except Exception as error:
                failure = error
            if done == sent:
                break
            yield self._batch(done)
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Ends the workers and frees the memory."""
        for worker in self.workers:
            worker.process.kill()  # also where it is stopped; it has nothing to tidy up
        for worker in self.workers:
            worker.process.join()
            worker.process.close()
            worker.connection.close()
        self.workers.clear()
        self.memory.close()

    def _send(self, number: int, samples: list[Sample]) -> None:
        index, worker = self._of(number)
        try:
            worker.connection.send((number // len(self.workers) % SLOTS, samples))
        except (BrokenPipeError, ConnectionResetError):
            raise self._died(index, f"before batch {number}") from None

    def _batch(self, number: int) -> Prepared:
        index, worker = self._of(number)
        reply = self._receive(index, f"it prepared batch {number} of this walk")
        if not reply.in_slot:
            images = np.empty(reply.shape, reply.dtype)
            worker.connection.recv_bytes_into(images.reshape(-1).view(np.uint8))
            return Prepared(images, reply.labels, reply.faults)
        slot = index * SLOTS + number // len(self.workers) % SLOTS
        there: np.ndarray = np.ndarray(reply.shape, reply.dtype, self.memory.buf, slot * self.slot_bytes)
        return Prepared(there.copy(), reply.labels, reply.faults)

    def _of(self, number: int) -> tuple[int, _Worker]:
        """Who prepares a batch."""
        index = number % len(self.workers)
        return index, self.workers[index]

    def _receive(self, index: int, doing: str) -> Any:
        worker = self.workers[index]
        wait([worker.connection, worker.process.sentinel])
        try:
            reply = worker.connection.recv() if worker.connection.poll() else None
        except (EOFError, ConnectionResetError):
            reply = None
        if reply is None:
            raise self._died(index, f"while {doing}")
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _died(self, index: int, when: str) -> WorkerDied:
        process = self.workers[index].process
        process.join()
        code = process.exitcode or 0
        how = f"ended with exit status {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
        return WorkerDied(f"data worker {index} (process {process.pid}) {how} {when}")


def _work(
    number: int, connection: Connection[Any, Any], memory: SharedMemory, slot_bytes: int, prepare: Prepare
) -> None:
    """A worker's life: slots and samples come in, replies go out, until the pipe closes or it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.freeze()  # a forked child leaves its parent's objects alone
    tasks: queue.SimpleQueue[tuple[int, list[Sample]]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, tasks), daemon=True).start()
    connection.send("ready")
    while True:
        slot, samples = tasks.get()
        try:
            batch = prepare(samples)
        except Exception as error:
            connection.send(_portable(error, number))
            continue
        images = batch.images
        fits = images.nbytes <= slot_bytes
        if fits:
            there: np.ndarray = np.ndarray(images.shape, images.dtype, memory.buf, (number * SLOTS + slot) * slot_bytes)
            there[...] = images
        connection.send(_Reply(images.shape, images.dtype.str, batch.labels, batch.faults, fits))
        if not fits:
            connection.send_bytes(images.tobytes())


def _listen(connection: Connection[Any, Any], tasks: queue.SimpleQueue[Any]) -> None:
    """Takes tasks out of the pipe while others are being prepared, so that their sender never waits."""
    while True:
        try:
            tasks.put(connection.recv())
        except (EOFError, OSError):  # the parent is gone
            os._exit(0)


def _portable(error: Exception, number: int) -> Exception:
    """The error as another process can raise it, with the worker's traceback in a note."""
    trace = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"in data worker {number}:\n{trace}")
    return error
