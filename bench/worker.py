"""The other process of ``remote.py``: serves timings of the benchmarks that lie in this process's working directory.

Reads one JSON request a line, answers with one JSON line: {"list": SUITE} -> the races; {"prepare": [SUITE, i]} and
perhaps "contender" -> the contender (else the first backend) and its calls per sample; {"sample": CONTENDER} ->
milliseconds and whether others disturbed it; {"clear": true} -> forgets all contenders and their arrays.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from bench.interleave import HostTimer, Local, PinnedThreads
from bench.suite import Race, races
from cnnengine.backends.registry import NAMES


class Worker:
    """Holds the functions that are being timed."""

    def __init__(self) -> None:
        self._races: dict[tuple[str, bool], list[Race]] = {}
        self._entered: dict[str, tuple[Local, int]] = {}  # with the calls a sample

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Raises what the engine raises; ``main`` turns it into an answer."""
        smoke = request["smoke"]
        if "list" in request:
            return {"races": [[r.operation, r.case] for r in self._suite(request["list"], smoke)]}
        if "prepare" in request:
            suite, index = request["prepare"]
            return self._prepare(self._suite(suite, smoke)[index], request.get("contender"))
        if "clear" in request:
            self._entered.clear()
            return {}
        contender, calls = self._entered[request["sample"]]
        with PinnedThreads() as pins:
            pins.settle()
            contender.warm_up()
            seconds, disturbed = contender.sample(calls)
        return {"milliseconds": 1e3 * seconds, "disturbed": disturbed}

    def _suite(self, suite: str, smoke: bool) -> list[Race]:
        if (suite, smoke) not in self._races:
            self._races[suite, smoke] = races(suite, smoke=smoke)
        return self._races[suite, smoke]

    def _prepare(self, race: Race, name: str | None) -> dict[str, Any]:
        if name is None:
            name = next((n for n in race.names if n.split()[0] in NAMES or n == "call"), None)
        if name is None:
            return {"error": f"no backend takes part: {race.absent}"}
        run = race.build((name,)).get(name)
        if run is None:
            return {"error": f"{name} does not compute {race.operation} {race.case}"}
        contender = Local(run, HostTimer())
        self._entered[name] = contender, contender.calls()
        return {"contender": name, "calls": self._entered[name][1]}


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
