"""The file of a comparison, robustness.json: what is compared, and each method's rows as soon as they are there."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..serialize import write_atomically
from .comparison import Row
from .disturbances import DISTURBANCES


@dataclass(slots=True)
class Comparison:
    """``facts`` decide the outcome, ``methods`` say of each its size and the seconds of its training, ``rows`` how it
    did on each test set. ``about`` is where the numbers come from: command, versions, machine."""

    facts: dict[str, Any]
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)

    def add(self, method: str, parameters: int, seconds: float, rows: list[Row]) -> None:
        """A method that is done."""
        self.methods[method] = {"parameters": parameters, "seconds": round(seconds, 1)}
        self.rows += rows

    def accuracy(self, method: str, test_set: str) -> float:
        """In [0, 1]. Raises KeyError where it is not known."""
        for row in self.rows:
            if (row.method, row.test_set) == (method, test_set):
                return row.accuracy
        raise KeyError((method, test_set))

    def as_dict(self) -> dict[str, Any]:
        """As the file has it."""
        return asdict(self)

    def write(self, path: Path) -> None:
        """Beside its place, and renamed. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n").encode())

    def markdown(self) -> str:
        """A table: a line for each test set, a column for each method, accuracies in %."""
        heads = [f"| test set | {' | '.join(self.methods)} |", "|---|" + "--:|" * len(self.methods)]
        body = [
            f"| {name} | {' | '.join(f'{100 * self.accuracy(method, name):.2f}' for method in self.methods)} |"
            for name in DISTURBANCES
        ]
        counts = [f"{method['parameters']:,}" for method in self.methods.values()]
        sizes = [f"| numbers learned | {' | '.join(counts)} |"]
        return "\n".join([*heads, *body, *sizes])


def read(path: Path, facts: dict[str, Any] | None = None) -> Comparison:
    """The comparison in a file. Raises DataError where it is missing, is none, or is of other ``facts``."""
    try:
        content = json.loads(path.read_bytes())
        known = Comparison(
            dict(content["facts"]),
            {str(name): dict(method) for name, method in content["methods"].items()},
            [Row(**row) for row in content["rows"]],
            dict(content["about"]),
        )
        if {(row.method, row.test_set) for row in known.rows} != {(m, t) for m in known.methods for t in DISTURBANCES}:
            raise ValueError("rows are missing")
        if not all(0 <= row.accuracy <= 1 for row in known.rows):
            raise ValueError("accuracies must lie in [0, 1]")
        if not all(isinstance(method.get("parameters"), int) for method in known.methods.values()):
            raise ValueError("parameters are missing")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not the file of a comparison: {error!r}") from error
    if facts is not None and known.facts != facts:
        differ = [
            f"{k} is {known.facts.get(k)!r} there, not {v!r}" for k, v in facts.items() if known.facts.get(k) != v
        ]
        raise DataError(f"{path}: another comparison: {'; '.join(differ)}")
    return known
