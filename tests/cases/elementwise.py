"""Sizes for elementwise operations, operand pairs that broadcast, and axes to reduce."""

from __future__ import annotations

SIZES = {  # name: (tier, shape)
    "one_element": ("tiny", (1,)),
    "prime": ("tiny", (7,)),
    "one_past_a_block": ("tiny", (33,)),
    "image": ("tiny", (1, 3, 5, 2)),
    "four_off_a_vector": ("small", (2, 5, 7, 29)),
    "one_past_many_blocks": ("small", (4097,)),
    "layer": ("layer", (4, 56, 56, 64)),
}

BROADCAST = {  # name: (tier, a, b)
    "equal": ("tiny", (3, 5), (3, 5)),
    "scalar": ("tiny", (2, 3), ()),
    "scalar_first": ("tiny", (), (2, 3)),
    "bias": ("tiny", (2, 3, 2, 5), (5,)),
    "column": ("tiny", (4, 3), (4, 1)),
    "outer": ("tiny", (4, 1), (1, 3)),
    "both_ways": ("tiny", (2, 1, 3, 1), (1, 2, 1, 3)),
    "per_image": ("tiny", (2, 1, 1, 3), (2, 2, 2, 3)),
    "one_element": ("tiny", (1,), (1,)),
    "four_axes": ("small", (3, 1, 5, 1), (1, 4, 1, 7)),
    "channels": ("small", (2, 9, 7, 33), (33,)),
    "long": ("small", (5001,), (5001,)),
    "layer_bias": ("layer", (2, 56, 56, 64), (64,)),
    "layer_equal": ("layer", (2, 56, 56, 64), (2, 56, 56, 64)),
}

REDUCE = {  # name: (tier, outer, reduced, inner)
    "one_element": ("tiny", 1, 1, 1),
    "all": ("tiny", 1, 37, 1),
    "rows": ("tiny", 5, 7, 1),
    "columns": ("tiny", 1, 9, 5),
    "middle": ("tiny", 2, 3, 5),
    "one_past_a_block": ("tiny", 1, 65, 3),
    "bias_gradient": ("small", 1, 1033, 17),
    "all_long": ("small", 1, 5003, 1),
    "long_rows": ("small", 3, 1025, 1),
    "wide": ("small", 1, 3, 1030),
    "middle_long": ("small", 3, 129, 7),
    "layer_bias": ("layer", 1, 2 * 56 * 56, 64),
    "layer_all": ("layer", 1, 401408, 1),
    "layer_rows": ("layer", 4096, 101, 1),
}
