"""Multi-head self-attention as a module, with timm's names."""

from __future__ import annotations

from .. import functional as F
from ..tensor import Tensor
from .dropout import Dropout
from .linear import Linear
from .module import Module


class Attention(Module):
    """x (N, L, dim) -> (N, L, dim): ``qkv``, a Linear(dim, 3 * dim), then ``F.multi_head_attention`` of ``num_heads``
    heads of dim / num_heads, then ``proj``, a Linear(dim, dim).

    ``attn_drop`` is the dropout of the softmax, ``proj_drop`` that of the result. ``forward`` takes a ``bias`` of the
    scores too. Raises ValueError for a dim that is no multiple of ``num_heads``.
    """

    def __init__(
        self, dim: int, num_heads: int = 8, qkv_bias: bool = False, attn_drop: float = 0.0, proj_drop: float = 0.0
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"Attention: dim must be a multiple of num_heads, received {dim} and {num_heads}")
        self.num_heads = num_heads
        self.qkv = Linear(dim, 3 * dim, qkv_bias)
        self.attn_drop = Dropout(attn_drop)
        self.proj = Linear(dim, dim)
        self.proj_drop = Dropout(proj_drop)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        p = self.attn_drop.p if self.training else 0.0
        y = F.multi_head_attention(self.qkv(x), self.num_heads, bias, p)
        return self.proj_drop(self.proj(y))  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}"
