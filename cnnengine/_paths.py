"""Where the kernel sources lie: beside the package in a checkout, inside it when installed."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "setup.py").is_file() and (PACKAGE.parent / "kernels").is_dir() else None


def csrc_dir() -> Path:
    """The folder with shapes.h, cuda/ and emulator/. Raises FileNotFoundError where the installation is incomplete."""
    candidates = [PACKAGE / "csrc"] + ([CHECKOUT / "csrc"] if CHECKOUT else [])
    for folder in candidates:
        if (folder / "shapes.h").is_file():
            return folder
    raise FileNotFoundError(f"cnnengine: the kernel sources are in none of {[str(c) for c in candidates]}")
