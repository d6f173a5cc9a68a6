"""Contenders of another process, which take turns with this one's: another commit, or another malloc."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Process:
    """A ``bench.worker`` that times the engine lying in ``root``; ``environment`` replaces variables, None removes."""

    def __init__(self, root: Path, smoke: bool, environment: Mapping[str, str | None] | None = None) -> None:
        self.root, self._smoke = root, smoke
        self._environment = {**os.environ, "PYTHONPATH": str(root), **(environment or {})}

    def __enter__(self) -> Process:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker"],
            cwd=self.root,
            env={name: value for name, value in self._environment.items() if value is not None},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.communicate()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Raises RuntimeError with what went wrong on the other side."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({**request, "smoke": self._smoke}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline() or '{"error": "the process ended"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer


class Remote:
    """One contender of ``process``, for ``interleave.race``; it stays until the process is told to ``clear``."""

    def __init__(self, process: Process, suite: str, index: int, contender: str) -> None:
        self._process, self._name = process, contender
        self._calls = int(process.ask(prepare=[suite, index], contender=contender)["calls"])

    def calls(self) -> int:
        return self._calls

    def warm_up(self) -> None:
        """The other side makes an uncounted call before each sample itself."""

    def sample(self, calls: int) -> tuple[float, bool]:
        answer = self._process.ask(sample=self._name)
        return 1e-3 * float(answer["milliseconds"]), bool(answer["disturbed"])
