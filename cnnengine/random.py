"""All randomness: initialisation and shuffling draw from one NumPy generator, dropout from (seed, offset).

``manual_seed`` makes both repeat; ``get_state`` and ``set_state`` let a checkpoint continue bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_DEFAULT_SEED = 0
_generator = np.random.Generator(np.random.Philox(_DEFAULT_SEED))
_dropout = [_DEFAULT_SEED, 0]  # seed, calls so far
_seeded = np.array(_dropout, np.uint64)


def manual_seed(seed: int) -> None:
    """Start all randomness anew. ``seed`` is an int in [0, 2**64). Raises ValueError."""
    global _generator
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or not 0 <= seed < 2**64:
        raise ValueError(f"manual_seed: expected an int in [0, 2**64), received {seed!r}")
    _generator = np.random.Generator(np.random.Philox(int(seed)))
    _set_dropout(int(seed), 0)


def generator() -> np.random.Generator:
    """The generator of initialisation, shuffling and augmentation."""
    return _generator


def next_dropout_state() -> np.ndarray:
    """(seed, offset) uint64 of one dropout call; every call has an offset of its own."""
    state = _seeded.copy()  # takes two thirds of what an array of two ints does
    state[1] = _dropout[1]
    _dropout[1] += 1
    return state


def _set_dropout(seed: int, calls: int) -> None:
    _dropout[:] = [seed, calls]
    _seeded[0] = seed


def get_state() -> dict[str, Any]:
    """Everything that decides the next draw, as JSON can hold it."""
    philox = _generator.bit_generator.state
    return {
        "counter": [int(v) for v in philox["state"]["counter"]],
        "key": [int(v) for v in philox["state"]["key"]],
        "buffer": [int(v) for v in philox["buffer"]],
        "buffer_pos": int(philox["buffer_pos"]),
        "has_uint32": int(philox["has_uint32"]),
        "uinteger": int(philox["uinteger"]),
        "dropout": list(_dropout),
    }


def set_state(state: dict[str, Any]) -> None:
    """Continue where ``get_state`` was called. Raises ValueError, changing nothing, if a part is missing or wrong."""
    missing = {"counter", "key", "buffer", "buffer_pos", "has_uint32", "uinteger", "dropout"} - set(state)
    if missing:
        raise ValueError(f"set_state: the state lacks {sorted(missing)}")
    seed, calls = (int(v) for v in state["dropout"])
    _generator.bit_generator.state = {
        "bit_generator": "Philox",
        "state": {"counter": np.array(state["counter"], np.uint64), "key": np.array(state["key"], np.uint64)},
        "buffer": np.array(state["buffer"], np.uint64),
        "buffer_pos": state["buffer_pos"],
        "has_uint32": state["has_uint32"],
        "uinteger": state["uinteger"],
    }
    _set_dropout(seed, calls)
