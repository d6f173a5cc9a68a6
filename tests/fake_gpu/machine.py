"""A process in which there seems to be a GPU: kernels are compiled for the emulator, loaded from the fake driver and
run where a GPU would launch them; PyTorch's device "cuda" is the CPU. The environment names the fake driver
(CNNENGINE_LIBCUDA), and PYTHONPATH this folder, where the fake CuPy and cuDNN are."""

from __future__ import annotations

import ctypes
import os
import re
from importlib.util import find_spec
from typing import Any

from cnnengine import _launch
from cnnengine.jit.host import HostModule
from cnnengine.jit.launch import CudaRuntime, EmulatorRuntime
from cnnengine.jit.source import KernelSource, fingerprint
from cnnengine.jit.tensor_map import TensorMap
from tests.emulator.machine import machine as emulator_machine
from tests.fake_gpu.family import whole

CUBIN = b"\x7fELF"  # what the fake driver takes for one


class Emulated:
    """Gives the CUDA runtime what NVRTC would compile, built by g++, under a symbol of its own."""

    def __init__(self) -> None:
        self._driver = ctypes.CDLL(os.environ["CNNENGINE_LIBCUDA"])
        self._emulators: dict[str, EmulatorRuntime] = {}
        self._modules: dict[KernelSource, int] = {}

    def emulator(self, runtime: CudaRuntime) -> EmulatorRuntime:
        return self._emulators.setdefault(str(runtime.cache), EmulatorRuntime(runtime.cache))

    def module(self, runtime: CudaRuntime, source: KernelSource) -> HostModule:
        """A test kernel of tests/emulator comes from the build that the emulator's tests use."""
        probe = re.match(r'#line 1 ".*/(\w+\.cuh)"', source.prelude)
        return emulator_machine(probe[1]).module if probe else self.emulator(runtime).module(whole(source))

    def function(self, runtime: CudaRuntime, source: KernelSource, expression: str, device: int) -> int:
        module = self.module(runtime, source)
        if source not in self._modules:
            self._modules[source] = _launch.module_load(CUBIN)
        symbol = f"{fingerprint(source)} {expression}".encode()
        address = ctypes.c_void_p(module.launch_address)
        self._driver.fake_register(symbol, address, module.index(expression))
        return int(_launch.module_function(self._modules[source], symbol.decode()))

    def tensor_map(self, runtime: CudaRuntime, source: KernelSource, spec: TensorMap, array: Any) -> bytes:
        return spec.encode(self.emulator(runtime).module(whole(source)), array.dtype.name, array.data.ptr)


def install() -> None:
    emulated = Emulated()
    CudaRuntime.function = lambda *arguments: emulated.function(*arguments)  # type: ignore[method-assign]
    CudaRuntime.tensor_map = lambda *arguments: emulated.tensor_map(*arguments)  # type: ignore[method-assign]
    for name in ("encode_tensor_map_tiled", "encode_tensor_map_im2col"):
        setattr(_launch, name, lambda *arguments, name=name: encoded(name, *arguments))
    if find_spec("torch") is not None:
        import torch

        pretend(torch)


def encoded(name: str, *arguments: Any) -> bytes:
    """By a module of the emulator: any has the functions."""
    made: bytes = getattr(emulator_machine("asynchronous.cuh").module, name)(*arguments)
    return made


def pretend(torch: Any) -> None:
    """PyTorch finds a GPU, whose memory is the CPU's; on one core, since tests share the others."""

    def moved(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            here = ["cpu" if isinstance(a, str) and a == "cuda" else a for a in arguments]
            return function(*here, **{k: "cpu" if v == "cuda" else v for k, v in options.items()})

        return call

    torch.cuda.is_available = torch.cuda.is_bf16_supported = lambda *arguments: True
    torch.set_num_threads(1)
    torch.set_num_threads = lambda n: None
    torch.backends.cudnn.version = lambda: 91500
    torch.Tensor.to, torch.nn.Module.to, torch.randn = map(moved, (torch.Tensor.to, torch.nn.Module.to, torch.randn))
