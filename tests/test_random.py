"""Seeds and states."""

from __future__ import annotations

import json

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F


def draws() -> list[float]:
    x = cnn.Tensor(np.ones(64, np.float32))
    return [
        *cnn.random.generator().standard_normal(5),
        *cnn.random.generator().integers(0, 9, 3),
        *F.dropout(x).numpy(),
    ]


def test_a_seed_repeats_everything() -> None:
    cnn.manual_seed(7)
    first = draws()
    cnn.manual_seed(7)
    assert draws() == first
    cnn.manual_seed(8)
    assert draws() != first


def test_a_state_survives_json() -> None:
    cnn.manual_seed(3)
    draws()
    state = json.loads(json.dumps(cnn.random.get_state()))
    first = draws()
    cnn.manual_seed(99)
    cnn.random.set_state(state)
    assert draws() == first


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "1", True])
def test_bad_seeds_are_named(seed) -> None:
    with pytest.raises(ValueError, match="expected an int in"):
        cnn.manual_seed(seed)


def test_incomplete_state_changes_nothing() -> None:
    cnn.manual_seed(3)
    before = cnn.random.get_state()
    with pytest.raises(ValueError, match=r"lacks \['dropout'\]"):
        cnn.random.set_state({k: v for k, v in before.items() if k != "dropout"})
    assert cnn.random.get_state() == before
    other = {**before, "counter": [9, 9, 9, 9], "dropout": [1]}
    with pytest.raises(ValueError, match="unpack"):
        cnn.random.set_state(other)
    assert cnn.random.get_state() == before
