"""Checks a built wheel: what it holds, what it does not, and that it runs by itself.

python tests/wheel_check.py build/wheel
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REQUIRED = (
    "cnnengine/__init__.py",
    "cnnengine/py.typed",
    "cnnengine/data/digits.npz",
    "cnnengine/trace/page.html",
    "cnnengine/kernels/conv2d.py",
    "cnnengine/report/page.css",
    "cnnengine/report/page.js",
    "cnnengine/csrc/shapes.h",
    "cnnengine/csrc/cuda/conv2d.cuh",
    "cnnengine/csrc/emulator/emulator.h",
)
COMPILED = ("cnnengine/_native", "cnnengine/_launch")
FOREIGN = (
    "bench/",
    "tests/",
    "examples/",
    "docs/",
    "kernels/",
    "csrc/",
    "cnnengine/csrc/cpu/",
    "cnnengine/csrc/launch/",
)
LIMIT_MB = 12

RUNS = """
import numpy as np
import cnnengine as cnn, cnnengine.functional as F
assert cnn.__file__.startswith(SITE), cnn.__file__
x, w = cnn.Tensor(np.ones((1, 4, 4, 2), np.float32)), cnn.Tensor(np.ones((3, 3, 3, 2), np.float32), requires_grad=True)
y = F.conv2d(x, w); y.sum().backward()
assert y.numpy().tolist() == [[[[18.0] * 3] * 2] * 2] and w.grad.numpy().min() == 4.0
print(cnn.__version__, cnn.backends.available())
"""


def main(folder: Path) -> int:
    """Prints what is wrong; 1 where something is."""
    (wheel,) = folder.glob("cnnengine-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        problems = [f"lacks {name}" for name in REQUIRED if name not in names]
        problems += [
            f"lacks the compiled {stem}"
            for stem in COMPILED
            if not any(n.startswith(f"{stem}.") and n.endswith(".so") for n in names)
        ]
        problems += [f"holds {name}" for name in names if name.startswith(FOREIGN)]
        if wheel.stat().st_size > LIMIT_MB * 10**6:
            problems.append(f"is {wheel.stat().st_size / 1e6:.1f} MB, more than {LIMIT_MB}")
        with tempfile.TemporaryDirectory() as site:
            archive.extractall(site)
            program = RUNS.replace("SITE", repr(str(Path(site).resolve())))
            done = subprocess.run([sys.executable, "-c", program], cwd=site, capture_output=True, text=True)
            if done.returncode:
                problems.append(f"does not run by itself: {done.stderr[-1500:]}")
    for problem in problems:
        print(f"{wheel.name} {problem}")
    print(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size / 1e6:.2f} MB, {done.stdout.strip()}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
