"""The fake driver for sessions that need no NVRTC: a kernel's symbol is its expression, its image an empty ELF file;
the emulator's build of the same source runs. Kernels on tensor maps do nothing, since the driver's are its own."""

from __future__ import annotations

import ctypes
import os
from typing import Any

from cnnengine.backends import get
from cnnengine.jit import nvrtc
from tests.fake_gpu.family import whole

driver = ctypes.CDLL(os.environ["CNNENGINE_LIBCUDA"])
driver.fake_last.restype = ctypes.POINTER(ctypes.c_uint * 15)
driver.fake_calls.restype = ctypes.c_char_p


def build(source: Any, *_: Any) -> nvrtc.Cubin:
    module = None if "wgmma" in source.file else get("emulator").runtime.module(whole(source))
    for expression in source.expressions:
        address, index = (module.launch_address, module.index(expression)) if module else (None, 0)
        driver.fake_register(expression.encode(), ctypes.c_void_p(address), index)
    return nvrtc.Cubin(b"\x7fELF", {e: e for e in source.expressions}, "")


def last(*places: int) -> tuple[int, ...]:
    """What tests/fake_gpu/libcuda.cpp keeps in ``last``."""
    return tuple(driver.fake_last().contents[i] for i in places)


def calls() -> list[str]:
    """The graph calls that the driver got since this was last asked."""
    text: str = driver.fake_calls().decode()
    return text.split()


nvrtc.build = build
