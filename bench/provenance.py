"""Where a number comes from: machine, commit, versions, command. Every result row carries it."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "cnnengine",
    "numpy",
    "torch",
    "onnx",
    "onnxruntime",
    "openvino",
    "numba",
    "numba-cuda",
    "cupy-cuda13x",
    "cupy-cuda12x",
    "nvidia-cudnn-cu13",
    "nvidia-cudnn-frontend",
    "nvidia-cuda-nvrtc",
    "pytest-benchmark",
    "scipy",
    "scikit-image",
    "scikit-learn",
)
# glibc hands large freed blocks back to the system and faults them in again page by page; these settings keep them
KEEP_FREED_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}
SETTINGS = (
    *KEEP_FREED_MEMORY,
    "CNNENGINE_NUM_THREADS",
    "CNNENGINE_ISA",
    "OMP_NUM_THREADS",
    "OPENBLAS_THREAD_TIMEOUT",
    "NUMBA_ENABLE_CUDASIM",
)


def provenance(threads: int, root: Path = ROOT) -> dict[str, Any]:
    """One flat record. ``root`` is the checkout that is measured, ``command`` this process's own command line; where
    the checkout came without its history, the environment variable CNNENGINE_COMMIT names the commit."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command(),
        "commit": _git(root, "rev-parse", "HEAD") or os.environ.get("CNNENGINE_COMMIT"),
        "dirty": bool(_git(root, "status", "--porcelain", "--untracked-files=no")),
        "cpu": cpu_model(),
        "cores": len(usable_cores()),
        "threads": threads,
        "gpu": gpu_model(),
        "os": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions(),
        "settings": {k: os.environ[k] for k in SETTINGS if k in os.environ},
    }


def command() -> str:
    """The command line as one would type it in the checkout, without this machine's paths."""
    script, *arguments = sys.orig_argv[1:] or [""]
    if script != "-m":
        script = _relative(script)
    return shlex.join(["python", script, *(_relative(a) for a in arguments)])


def cpu_model() -> str:
    """The processor's name, or the architecture where the system does not tell."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_cores() -> list[int]:
    """The cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def gpu_model() -> str | None:
    """Name and driver of the first NVIDIA GPU, None where there is none."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        out = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return out.splitlines()[0] if out else None


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _relative(argument: str) -> str:
    """A path inside the checkout relative to it, one outside by its last part, anything else as it is."""
    path = Path(argument)
    if not path.is_absolute():
        return argument
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
