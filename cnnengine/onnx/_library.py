"""The onnx library, which is an extra: imported where it is needed, and named where it is missing."""

from __future__ import annotations

from typing import Any


def library() -> Any:
    """The package ``onnx``. Raises ImportError that says how to install it."""
    try:
        import onnx
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise ImportError(
            f"cnnengine.onnx needs the onnx library ({error}); install it with: pip install 'cnnengine[onnx]'"
        ) from error
    return onnx
