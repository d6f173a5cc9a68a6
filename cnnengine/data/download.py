"""Fetching one file from the first mirror that has it, checked before it is kept."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import sys
import urllib.request
import zlib
from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError
from ..serialize import write_atomically

TIMEOUT_SECONDS = 20


def fetch(title: str, mirrors: Sequence[str], name: str, sha256: str, folder: Path) -> Path:
    """Fetches ``name``.gz from one of ``mirrors`` and keeps it unpacked as ``folder/name``.

    ``sha256`` is that of the unpacked file. Raises DataError with every mirror's reason, and keeps nothing.
    """
    reasons = []
    for mirror in mirrors:
        address = f"{mirror}{name}.gz"
        print(f"{title}: downloading {address}", file=sys.stderr)
        try:
            with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as response:
                content = gzip.decompress(response.read())
        except (OSError, EOFError, zlib.error, http.client.HTTPException) as error:
            reasons.append(f"{address}: {error}")
            continue
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            reasons.append(f"{address}: SHA-256 {sha256} expected, {found} received")
            continue
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, content)
        return folder / name
    raise DataError(f"{title}: {name} is missing and could not be downloaded ({'; '.join(reasons)})")
