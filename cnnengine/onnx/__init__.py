"""Networks as ONNX files: ``export`` writes a module, ``load`` reads one. Needs the extra ``onnx``."""

from .export import export
from .load import load
from .network import Network

__all__ = ["Network", "export", "load"]
