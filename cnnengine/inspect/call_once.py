"""``python -m cnnengine.inspect.call_once REQUEST SET``: makes a call once, alone on the GPU, for a profiler.

REQUEST is JSON, as ``Request.as_json`` writes it.
"""

from __future__ import annotations

import sys

from .measured import prepared
from .operations import build
from .problem import Request

if __name__ == "__main__":
    prepared(build(Request.from_json(sys.argv[1])), sys.argv[2])()
