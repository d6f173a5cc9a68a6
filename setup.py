"""Builds the native extensions and maps kernels/ and csrc/ into the package; everything else is in pyproject.toml."""

import os
import platform
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import find_packages, setup

ROOT = Path(__file__).parent
X86 = platform.machine() in ("x86_64", "AMD64")
# csrc/cpu/isa_NAME.cpp compiles every kernel once for one instruction set; csrc/cpu/module.cpp picks one at run time
ISA_FLAGS = {
    "isa_avx2.cpp": ["-mavx2", "-mprfchw", "-mfma", "-mf16c"],
    "isa_avx512.cpp": [
        "-mavx512f",
        "-mavx512bw",
        "-mavx512dq",
        "-mavx512vl",
        "-mprfchw",
        "-mfma",
        "-mf16c",
        "-mprefer-vector-width=512",
    ],
}
# never -march=native: a wheel must run elsewhere; never -ffast-math: NaN and infinity keep their meaning
FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-pthread", "-Wall"]

# CNNENGINE_SANITIZE=address,undefined or thread: for tests/sanitize.py
if SANITIZE := os.environ.get("CNNENGINE_SANITIZE"):
    FLAGS += [f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g1", "-O1"]
    FLAGS += ["-Wno-maybe-uninitialized"]  # of the compiler's own vector headers
LINK_FLAGS = ["-pthread", "-ldl", *([f"-fsanitize={SANITIZE}"] if SANITIZE else [])]


class BuildExt(build_ext):
    """Adds each file's instruction-set flags."""

    def build_extensions(self):
        compile_one = self.compiler._compile

        def compile_with_isa(obj, src, ext, cc_args, extra_postargs, pp_opts):
            return compile_one(obj, src, ext, cc_args, [*extra_postargs, *ISA_FLAGS.get(Path(src).name, [])], pp_opts)

        self.compiler._compile = compile_with_isa
        super().build_extensions()


def sources(folder: str) -> list[str]:
    files = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / folder).glob("*.cpp"))
    return [f for f in files if X86 or Path(f).name not in ISA_FLAGS]


def headers(*folders: str) -> list[str]:
    return sorted(p.relative_to(ROOT).as_posix() for f in folders for e in ("*.h", "*.inl") for p in (ROOT / f).glob(e))


def extension(name: str, folder: str) -> Pybind11Extension:
    return Pybind11Extension(
        name,
        sources(folder),
        include_dirs=["csrc"],
        depends=headers("csrc", folder),
        define_macros=[("CNN_X86", "1")] if X86 else [],
        extra_compile_args=FLAGS,
        extra_link_args=LINK_FLAGS,
        cxx_std=17,
    )


ParallelCompile("CNNENGINE_BUILD_JOBS", default=os.cpu_count() or 1).install()

setup(
    packages=[*find_packages(include=["cnnengine", "cnnengine.*"]), "cnnengine.kernels", "cnnengine.csrc"],
    package_dir={"cnnengine.kernels": "kernels", "cnnengine.csrc": "csrc"},
    package_data={
        "cnnengine": ["py.typed", "*.pyi"],
        "cnnengine.data": ["*.npz", "*.txt"],
        "cnnengine.report": ["*.css", "*.js"],
        "cnnengine.trace": ["*.html", "*.css", "*.js"],
        "cnnengine.csrc": ["*.h", "cuda/*.cuh", "cuda/*/*.cuh", "emulator/*.h", "emulator/*.cpp"],
    },
    include_package_data=False,
    ext_modules=[extension("cnnengine._native", "csrc/cpu"), extension("cnnengine._launch", "csrc/launch")],
    cmdclass={"build_ext": BuildExt},
)
