"""Matrix products."""

from __future__ import annotations

from dataclasses import dataclass

from cnnengine.shapes import GemmShape, gemm_shape


@dataclass(frozen=True)
class GemmCase:
    name: str
    tier: str
    batch: int
    M: int
    N: int
    K: int
    transpose_a: bool = False
    transpose_b: bool = False
    shared_a: bool = False
    shared_b: bool = False

    @property
    def shape(self) -> GemmShape:
        flags = (self.transpose_a, self.transpose_b, self.shared_a, self.shared_b)
        return gemm_shape(self.batch, self.M, self.N, self.K, *flags)

    @property
    def a(self) -> tuple[int, ...]:
        matrix = (self.K, self.M) if self.transpose_a else (self.M, self.K)
        return matrix if self.shared_a else (self.batch, *matrix)

    @property
    def b(self) -> tuple[int, ...]:
        matrix = (self.N, self.K) if self.transpose_b else (self.K, self.N)
        return matrix if self.shared_b else (self.batch, *matrix)

    def __str__(self) -> str:
        flags = "".join(
            letter
            for letter, on in zip(
                ("_ta", "_tb", "_sa", "_sb"),
                (self.transpose_a, self.transpose_b, self.shared_a, self.shared_b),
                strict=True,
            )
            if on
        )
        return self.name + flags


def _transposed(name: str, tier: str, batch: int, M: int, N: int, K: int) -> list[GemmCase]:
    return [GemmCase(name, tier, batch, M, N, K, ta, tb) for ta in (False, True) for tb in (False, True)]


CASES = [
    GemmCase("one_element", "tiny", 1, 1, 1, 1),
    *_transposed("uneven", "tiny", 1, 3, 5, 7),
    GemmCase("row", "tiny", 1, 1, 9, 5, False, True),
    GemmCase("column", "tiny", 1, 9, 1, 5),
    GemmCase("outer", "tiny", 1, 4, 5, 1),
    GemmCase("batched", "tiny", 3, 2, 3, 4),
    GemmCase("batched", "tiny", 2, 3, 2, 4, shared_a=True),
    GemmCase("batched", "tiny", 2, 3, 2, 4, shared_b=True, transpose_a=True),
    *_transposed("primes", "small", 1, 37, 29, 31),
    *_transposed("one_off_tiles", "small", 1, 65, 33, 17),
    GemmCase("batched_primes", "small", 3, 17, 19, 23, True, False),
    GemmCase("lenet_fc1", "small", 1, 4, 120, 400, False, True),
    GemmCase("lenet_fc1_dw", "small", 1, 120, 400, 4, True, False),
    GemmCase("lenet_fc3", "small", 1, 4, 10, 84, False, True),
    GemmCase("lenet_fc1_batch_64", "layer", 1, 64, 120, 400, False, True),
    GemmCase("alexnet_fc_batch_1", "layer", 1, 1, 4096, 2304, False, True),
    *_transposed("square", "layer", 1, 257, 255, 259),
    *_transposed("past_the_rows_of_an_item", "small", 1, 500, 37, 23),
    GemmCase("large_b_one_row", "layer", 1, 1, 1024, 300),
    GemmCase("large_b", "layer", 1, 7, 531, 530),
    GemmCase("large_b_40_rows", "layer", 2, 40, 1056, 300, shared_b=True),
    GemmCase("attention", "layer", 6, 197, 197, 64, False, True),
]
