"""What the linker sees of the native kernels: nothing that it could take for another instruction set's copy."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLAGS = {
    "generic": [],
    "avx2": ["-mavx2", "-mprfchw", "-mfma", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprfchw", "-mfma", "-mf16c"],
}


@pytest.mark.parametrize("isa", FLAGS)
def test_objects_share_no_function(isa: str, tmp_path: Path) -> None:
    """A weak symbol may be merged with another object's: an AVX-512 copy would then run on any CPU. Without
    optimisation nothing is inlined, so every function shows."""
    compiler, nm = shutil.which("g++"), shutil.which("nm")
    if compiler is None or nm is None:
        pytest.skip("g++ or nm is not installed")
    if isa != "generic" and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip(f"{isa} is not an instruction set of {platform.machine()}")
    source, target = ROOT / "csrc" / "cpu" / f"isa_{isa}.cpp", tmp_path / "isa.o"
    command = [compiler, "-std=c++17", "-O0", "-fPIC", *FLAGS[isa], f"-I{ROOT / 'csrc'}", "-c", source, "-o", target]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    symbols = subprocess.run([nm, "-C", target], check=True, capture_output=True, text=True).stdout.splitlines()
    weak = [line for line in symbols if line[17:18] in "WwVvu"]
    assert not weak, f"isa_{isa}: {weak}"
    public = [line[19:] for line in symbols if line[17:18] in "TDBR"]
    assert public == [f"isa_{isa}::kernels"], public
