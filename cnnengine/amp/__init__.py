"""Mixed precision: products in float16 or bfloat16, parameters and whatever needs range in float32. See docs/amp.md."""

from .autocast import autocast
from .grad_scaler import GradScaler

__all__ = ["GradScaler", "autocast"]
