"""Networks as ONNX files, written and read. Needs the extra ``onnx``."""

from .export import export

__all__ = ["export"]
