"""GPUs by the figures of their makers: what a kernel could reach at best.

Rates are of dense operands; where a datasheet states them for sparse ones only, half of it. Tensor cores multiply
float16, bfloat16 or TF32 and add in float32: GeForce cards do that at half the rate of float16 sums. Data centre
GPUs clock tensor cores lower than their boost clock, so their rates do not follow from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .architectures import LIMITS, Limits

MAKERS = {"nvidia", "geforce", "tesla", "generation"}  # of a device's name
TURING = "NVIDIA Turing GPU Architecture, whitepaper WP-09183, appendix A"
AMPERE = "NVIDIA A100 Tensor Core GPU Architecture, whitepaper v1.0, table 4"
GEFORCE_AMPERE = "NVIDIA Ampere GA102 GPU Architecture, whitepaper v2.1, appendix A"
ADA = "NVIDIA Ada GPU Architecture, whitepaper v2.1, appendix A"
HOPPER = "NVIDIA H100 Tensor Core GPU Architecture, whitepaper v1.04, table 2"
GEFORCE_BLACKWELL = "NVIDIA RTX Blackwell GPU Architecture, whitepaper v1.1, appendix A"


@dataclass(frozen=True, slots=True)
class GPU:
    """Rates in TFLOP/s (2 a multiply-add), memory in GB/s, the L2 cache in MiB, clocks in MHz."""

    name: str
    architecture: str
    arch: str  # what its kernels are compiled for
    capability: int  # 90 for compute capability 9.0
    multiprocessors: int
    boost_mhz: int
    fp32: float  # on CUDA cores
    tensor: dict[str, float] = field(hash=False)  # dense, by dtype of the operands, with float32 sums
    bandwidth: float
    l2: float
    memory: int  # GB
    source: str

    @property
    def limits(self) -> Limits:
        """Threads, blocks, registers and shared memory of a multiprocessor."""
        return LIMITS[self.capability]

    def peak(self, dtype: str, tensor_cores: bool) -> float:
        """TFLOP/s of operands of ``dtype``: float32 on tensor cores is TF32; without them every dtype is computed in
        float32. Raises ValueError where the GPU has no tensor cores for it."""
        if not tensor_cores:
            return self.fp32
        name = "tf32" if dtype == "float32" else dtype
        if name not in self.tensor:
            raise ValueError(f"{self.name} has no tensor cores for {name}, it has them for {', '.join(self.tensor)}")
        return self.tensor[name]

    def ridge(self, dtype: str, tensor_cores: bool) -> float:
        """FLOPs a byte from which on arithmetic and not memory is the bound."""
        return 1000 * self.peak(dtype, tensor_cores) / self.bandwidth


def _rates(float16: float, *, bfloat16: bool = True) -> dict[str, float]:
    """TF32 has half the rate of float16, bfloat16 the same; Turing has float16 alone."""
    return {"tf32": float16 / 2, "float16": float16, "bfloat16": float16} if bfloat16 else {"float16": float16}


_ALL = (
    GPU("T4", "Turing", "sm_75", 75, 40, 1590, 8.1, _rates(65, bfloat16=False), 320, 4, 16,
        f"NVIDIA T4 datasheet; L2, clock: {TURING}"),
    GPU("RTX 2080 Ti", "Turing", "sm_75", 75, 68, 1545, 13.4, _rates(53.8, bfloat16=False), 616, 5.5, 11, TURING),
    GPU("A100 SXM 40GB", "Ampere", "sm_80", 80, 108, 1410, 19.5, _rates(312), 1555, 40, 40, AMPERE),
    GPU("A100 SXM 80GB", "Ampere", "sm_80", 80, 108, 1410, 19.5, _rates(312), 2039, 40, 80,
        f"NVIDIA A100 datasheet (80 GB); multiprocessors, L2: {AMPERE}"),
    GPU("A100 PCIe 80GB", "Ampere", "sm_80", 80, 108, 1410, 19.5, _rates(312), 1935, 40, 80,
        f"NVIDIA A100 datasheet (80 GB); multiprocessors, L2: {AMPERE}"),
    GPU("A10", "Ampere", "sm_86", 86, 72, 1695, 31.2, _rates(125), 600, 6, 24,
        f"NVIDIA A10 datasheet; L2: {GEFORCE_AMPERE}"),
    GPU("RTX A6000", "Ampere", "sm_86", 86, 84, 1800, 38.7, _rates(154.8), 768, 6, 48, GEFORCE_AMPERE),
    GPU("RTX 3080", "Ampere", "sm_86", 86, 68, 1710, 29.8, _rates(59.5), 760, 5, 10, GEFORCE_AMPERE),
    GPU("RTX 3090", "Ampere", "sm_86", 86, 82, 1695, 35.6, _rates(71.2), 936, 6, 24, GEFORCE_AMPERE),
    GPU("L4", "Ada Lovelace", "sm_89", 89, 58, 2040, 30.3, _rates(121), 300, 48, 24,
        "NVIDIA L4 datasheet (sparse rates halved; its 7,424 cores are 58 multiprocessors)"),
    GPU("L40S", "Ada Lovelace", "sm_89", 89, 142, 2520, 91.6, _rates(366), 864, 96, 48,
        f"NVIDIA L40S datasheet (sparse rates halved); L2 of the full AD102: {ADA}"),
    GPU("RTX 4080", "Ada Lovelace", "sm_89", 89, 76, 2505, 48.7, _rates(97.5), 717, 64, 16, ADA),
    GPU("RTX 4090", "Ada Lovelace", "sm_89", 89, 128, 2520, 82.6, _rates(165.2), 1008, 72, 24, ADA),
    GPU("RTX 6000 Ada", "Ada Lovelace", "sm_89", 89, 142, 2505, 91.1, _rates(364.2), 960, 96, 48, ADA),
    GPU("H100 PCIe", "Hopper", "sm_90a", 90, 114, 1755, 51.2, _rates(756), 2039, 50, 80, HOPPER),
    GPU("H100 SXM", "Hopper", "sm_90a", 90, 132, 1980, 66.9, _rates(989.4), 3352, 50, 80, HOPPER),
    GPU("H200", "Hopper", "sm_90a", 90, 132, 1980, 67, _rates(989.4), 4800, 50, 141,
        f"NVIDIA H200 datasheet (sparse rates halved); multiprocessors, clock, L2 as the H100 SXM: {HOPPER}"),
    GPU("B200", "Blackwell", "sm_100a", 100, 148, 1965, 75, _rates(2250), 8000, 126, 180,
        "NVIDIA HGX B200 datasheet (an eighth of eight GPUs, sparse rates halved); multiprocessors, clock and L2: as"
        " the driver reports them"),
    GPU("RTX 5080", "Blackwell", "sm_120", 120, 84, 2617, 56.3, _rates(112.6), 960, 64, 16, GEFORCE_BLACKWELL),
    GPU("RTX 5090", "Blackwell", "sm_120", 120, 170, 2407, 104.8, _rates(209.5), 1792, 96, 32, GEFORCE_BLACKWELL),
)  # fmt: skip
GPUS: dict[str, GPU] = {gpu.name: gpu for gpu in _ALL}
MEANT = {"A100": "A100 SXM 80GB", "H100": "H100 SXM", "A100 SXM": "A100 SXM 80GB", "A100 PCIe": "A100 PCIe 80GB"}
TYPICAL = {  # of a compute capability, where no GPU is named
    75: "T4", 80: "A100 SXM 80GB", 86: "RTX 3090", 89: "RTX 4090", 90: "H100 SXM", 100: "B200", 120: "RTX 5090",
}  # fmt: skip


def find(name: str) -> GPU:
    """A GPU by its name, whatever its case, blanks and hyphens; ``A100`` is the SXM of 80 GB, ``H100`` the SXM. Raises
    ValueError with the names there are."""
    by_key = {_key(n): gpu for n, gpu in GPUS.items()} | {_key(n): GPUS[full] for n, full in MEANT.items()}
    if _key(name) not in by_key:
        raise ValueError(f"gpu must be one of {', '.join(GPUS)}; received {name!r}")
    return by_key[_key(name)]


def typical(capability: int) -> GPU | None:
    """The GPU to predict for where an architecture is named and no GPU; None where the table has none of it."""
    return GPUS[TYPICAL[capability]] if capability in TYPICAL else None


def of_device(device_name: str) -> GPU | None:
    """The row of a GPU by what its driver calls it, such as ``NVIDIA A100-SXM4-80GB``; None where there is none."""
    words = set(re.split(r"[\s-]+", device_name.lower().replace("sxm4", "sxm"))) - MAKERS
    if words <= {"h100", "80gb", "hbm3"} and "h100" in words:
        words |= {"sxm"}  # its PCIe card says so, the SXM module does not
    for gpu in GPUS.values():
        own = set(gpu.name.lower().split())
        if own <= words and words - own <= {"80gb", "hbm3"}:
            return gpu
    return None


def _key(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()
