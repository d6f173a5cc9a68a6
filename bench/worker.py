"""One side of ``against.py``: serves timings of the engine that lies in this process's working directory.

Reads one JSON request a line, answers with one JSON line: {"list": SUITE} -> the races; {"prepare": [SUITE, i]} -> the
contender and its calls per sample; {"sample": true} -> milliseconds and whether another process disturbed it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from bench.interleave import DISTURBED_SHARE, HostTimer, waited_seconds
from bench.suite import races
from cnnengine.backends.registry import NAMES


class Worker:
    """Holds the function that is being timed."""

    def __init__(self) -> None:
        self._timer = HostTimer()
        self._run: Callable[[], Any] = lambda: None
        self._calls = 1

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Raises what the engine raises; ``main`` turns it into an answer."""
        if "list" in request:
            return {"races": [[r.operation, r.case] for r in races(request["list"], smoke=request["smoke"])]}
        if "prepare" in request:
            suite, index = request["prepare"]
            race = races(suite, smoke=request["smoke"])[index]
            name = next((n for n in race.names if n.split()[0] in NAMES or n == "call"), None)
            if name is None:
                return {"error": f"no backend takes part: {race.absent}"}
            self._run = race.build((name,))[name]
            self._calls = self._timer.calls(self._run)
            return {"contender": name, "calls": self._calls}
        self._run()
        waited = waited_seconds()
        seconds = self._timer.seconds(self._run, self._calls)
        disturbed = waited_seconds() - waited > DISTURBED_SHARE * seconds * self._calls
        return {"milliseconds": 1e3 * seconds, "disturbed": disturbed}


def main() -> None:
    worker = Worker()
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
