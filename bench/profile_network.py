"""Where a network's time goes: each verb of the backend, and each shape it was called with, largest share first.

python bench/profile_network.py resnet50 --batch 16 --training      # forward, loss, backward, SGD with momentum
python bench/profile_network.py resnet50 --batch 1 --top 40         # inference: batch norms folded, weights prepared
python bench/profile_network.py vit_tiny --batch 16 --image 224 --steps 5 --training
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import getattr_static
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

import cnnengine as cnn
from bench.provenance import usable_cores
from bench.steps import Step, for_inference, images_and_labels, inference_step, training_step
from cnnengine.backends.contract import Backend, PackedWeight
from cnnengine.backends.ledger import VERBS
from cnnengine.backends.registry import active_on, get, using
from cnnengine.models.registry import entry
from cnnengine.shapes import Conv2dShape, GemmShape, NormShape, Pool2dShape

TIMED = (*VERBS, "empty", "to_device", "to_host")
OUTSIDE = "Python, outside verbs"


class Call(NamedTuple):
    """What calls of one line of the table have in common."""

    verb: str
    what: str  # the operation's name, algorithm and sizes
    flops: int
    bytes: int


@dataclass
class Term:
    """A line of the table: calls in a step, and their milliseconds together."""

    calls: int = 0
    milliseconds: float = 0.0

    def add(self, milliseconds: float, calls: int = 1) -> None:
        self.milliseconds += milliseconds
        self.calls += calls


class Clock:
    """The exclusive time of each call: what a verb spends in other verbs is theirs, what the clock takes nobody's
    (``overhead``, milliseconds)."""

    def __init__(self) -> None:
        self.terms: dict[Call, Term] = defaultdict(Term)
        self.overhead = 0.0
        self._within: list[float] = []  # seconds that are not its own, of each call under way

    def timed(self, backend: Any, verb: str, function: Any, arguments: tuple[Any, ...]) -> Any:
        entered = time.perf_counter()
        self._within.append(0.0)
        start = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            backend.synchronize()
            seconds = time.perf_counter() - start
            own = seconds - self._within.pop()
            self.terms[described(verb, arguments)].add(1e3 * own)
            whole = time.perf_counter() - entered
            if self._within:
                self._within[-1] += whole
            self.overhead += 1e3 * (whole - seconds)


def profiled(backend: Backend, clock: Clock) -> Backend:
    """The same backend under a clock. It shares the backend's state, and a verb that is made of others (``notes``)
    finds those timed too."""
    kind = type(backend)

    def timed(verb: str) -> Any:
        function = getattr_static(kind, verb)

        def call(self: Any, *arguments: Any) -> Any:
            return clock.timed(self, verb, function.__get__(self, kind), arguments)

        return call

    made: Backend = object.__new__(type(f"Profiled{kind.__name__}", (kind,), {verb: timed(verb) for verb in TIMED}))
    made.__dict__ = backend.__dict__
    return made


def described(verb: str, arguments: tuple[Any, ...]) -> Call:
    """Verb, sizes, and work: the flops of a convolution, product or pooling, and every array moved once."""
    shape = next((a for a in arguments if isinstance(a, Conv2dShape | GemmShape | Pool2dShape | NormShape)), None)
    found = list(arrays(arguments))
    words = [a for a in arguments if isinstance(a, str)]
    words += [w.algorithm for w in arguments if isinstance(w, PackedWeight)]
    words += [f"with {e.activation}" for e in arguments if hasattr(e, "activation") and e.activation != "identity"]
    nbytes = 0 if verb == "empty" else sum(a.nbytes for a in found)
    flops = shape.flops() if isinstance(shape, Conv2dShape | GemmShape | Pool2dShape) else 0
    return Call(verb, " ".join([sizes(shape, found, arguments), *words]), flops, nbytes)


def arrays(values: Any) -> Iterator[Any]:
    """The arrays among arguments, in tuples and lists of them, an epilogue, or a packed weight."""
    for value in values:
        if isinstance(value, PackedWeight):
            yield value.packed
        elif isinstance(value, tuple | list):
            yield from arrays(value)
        elif hasattr(value, "nbytes") and hasattr(value, "shape"):
            yield value


def sizes(shape: Any, found: list[Any], arguments: tuple[Any, ...]) -> str:
    if isinstance(shape, Conv2dShape):
        strided = f" /{shape.stride_h}" if shape.stride_h > 1 else ""
        grouped = f" groups {shape.groups}" if shape.groups > 1 else ""
        return f"{shape.N}x{shape.H}x{shape.W} {shape.R}x{shape.S} {shape.C}>{shape.K}{strided}{grouped}"
    if isinstance(shape, GemmShape):
        operands = ["a^T" if shape.transpose_a else "a", "b^T" if shape.transpose_b else "b"]
        batch = f"{shape.batch} x " if shape.batch > 1 else ""
        return f"{batch}{shape.M}x{shape.K} @ {shape.K}x{shape.N} ({' '.join(operands)})"
    if isinstance(shape, Pool2dShape):
        return f"{'x'.join(map(str, shape.x))} {shape.R}x{shape.S} /{shape.stride_h}"
    if isinstance(shape, NormShape):
        return f"N {shape.N} L {shape.L} G {shape.G} D {shape.D}"
    if len(found) > 8:
        return f"{len(found)} arrays"
    if not found:
        return "x".join(map(str, next((a for a in arguments if isinstance(a, tuple)), ())))
    return ", ".join("x".join(map(str, a.shape)) or "scalar" for a in found)


@dataclass(frozen=True)
class Profile:
    """Of one step: its milliseconds, and those of its terms, the largest first; medians over the steps."""

    milliseconds: float
    terms: dict[Call, Term]

    def by_verb(self) -> dict[str, tuple[Term, int, int]]:
        """verb -> (its calls and time, flops, bytes), the largest first, and what is no verb's."""
        found: dict[str, Term] = defaultdict(Term)
        work: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for call, term in self.terms.items():
            found[call.verb].add(term.milliseconds, term.calls)
            work[call.verb][0] += term.calls * call.flops
            work[call.verb][1] += term.calls * call.bytes
        rest = self.milliseconds - sum(term.milliseconds for term in found.values())
        found[OUTSIDE] = Term(0, max(rest, 0.0))
        ordered = sorted(found.items(), key=lambda item: -item[1].milliseconds)
        return {verb: (term, *work[verb]) for verb, term in ordered}


def profile(step: Step, backend: Backend, steps: int, warm_up: int = 2) -> Profile:
    """Runs the step under a clock, ``warm_up`` times before it counts."""
    runs: list[tuple[float, dict[Call, Term]]] = []
    for _ in range(warm_up):
        step()
    for _ in range(steps):
        clock = Clock()
        with using(profiled(backend, clock)):
            start = time.perf_counter()
            step()
            backend.synchronize()
            runs.append((1e3 * (time.perf_counter() - start) - clock.overhead, clock.terms))
    calls = {call: term.calls for call, term in runs[-1][1].items()}
    terms = {
        call: Term(n, statistics.median(found[call].milliseconds if call in found else 0.0 for _, found in runs))
        for call, n in calls.items()
    }
    ordered = dict(sorted(terms.items(), key=lambda item: -item[1].milliseconds))
    return Profile(statistics.median(total for total, _ in runs), ordered)


def tables(found: Profile, top: int) -> str:
    """Two Markdown tables: by verb, and the ``top`` largest lines by verb and size."""
    lines = ["| verb | calls | ms | share | GFLOP/s | GB/s |", "|---|--:|--:|--:|--:|--:|"]
    for verb, (term, flops, nbytes) in found.by_verb().items():
        lines.append(f"| {verb} | {cells(term, found.milliseconds, flops, nbytes)} |")
    lines += ["", "| verb | sizes | calls | ms | share | GFLOP/s | GB/s |", "|---|---|--:|--:|--:|--:|--:|"]
    for call, term in list(found.terms.items())[:top]:
        work = cells(term, found.milliseconds, term.calls * call.flops, term.calls * call.bytes)
        lines.append(f"| {call.verb} | {call.what} | {work} |")
    if top < len(found.terms):
        left = list(found.terms.values())[top:]
        rest = sum(term.milliseconds for term in left)
        lines.append(f"| | {len(left)} more (--top) | | {rest:.3f} | {rest / found.milliseconds:.1%} | | |")
    return "\n".join(lines)


def cells(term: Term, total: float, flops: int, nbytes: int) -> str:
    seconds = 1e-3 * term.milliseconds
    rates = (f"{1e-9 * n / seconds:.1f}" if n and seconds else "" for n in (flops, nbytes))
    return " | ".join([str(term.calls or ""), f"{term.milliseconds:.3f}", f"{term.milliseconds / total:.1%}", *rates])


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="bench/profile_network.py", description=(__doc__ or "").splitlines()[0])
    p.add_argument("network", help="a name that cnnengine.models.create knows")
    p.add_argument("--batch", type=int, default=16, help="images a step (default: 16)")
    p.add_argument("--image", type=int, help="height and width (default: what the network was designed for)")
    p.add_argument("--classes", type=int, help="of the last layer (default: the network's own)")
    p.add_argument("--training", action="store_true", help="a training step instead of inference")
    p.add_argument("--unfused", action="store_true", help="inference with the layers as they are in training")
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    p.add_argument("--backend", help="by name (default: the device's active one)")
    p.add_argument("--steps", type=int, default=5, help="that are counted, after two that are not (default: 5)")
    p.add_argument("--top", type=int, default=30, help="lines of the second table (default: 30)")
    return p


def step_of(options: argparse.Namespace) -> Step:
    """The step that is profiled, over random images."""
    known = entry(options.network)
    height, width, channels = known.image
    image = (options.image or height, options.image or width, channels)
    cnn.manual_seed(0)
    model = cnn.models.create(options.network, **({"num_classes": options.classes} if options.classes else {}))
    model = model.to(options.device)
    x, labels = images_and_labels(options.batch, image, options.classes or 10)
    images = cnn.Tensor(x).to(options.device)
    if options.training:
        return training_step(model, images, active_on(options.device).to_device(labels))
    return inference_step(model.eval() if options.unfused else for_inference(model), images)


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    backend = get(options.backend) if options.backend else active_on(options.device)
    with using(backend):
        step = step_of(options)
        found = profile(step, backend, options.steps)
    what = "training step" if options.training else "inference"
    print(f"{options.network}, batch {options.batch}, {what} on {backend.name}, {len(usable_cores())} cores, ", end="")
    print(f"NumPy {np.__version__}: {found.milliseconds:.3f} ms\n\n{tables(found, options.top)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
