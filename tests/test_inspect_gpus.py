"""The table of GPUs against arithmetic: a datasheet's rate is multiprocessors times lanes times clock."""

from __future__ import annotations

import pytest

from cnnengine.inspect import gpus
from cnnengine.inspect.architectures import LIMITS, capability

TENSOR_FLOPS = {  # a multiprocessor's a clock, float16 with float32 sums; GeForce cards half of it
    75: 1024, 80: 2048, 86: 1024, 89: 1024, 90: 4096, 100: 8192, 120: 1024,
}  # fmt: skip
TENSOR_MHZ = {"H100 PCIe": 1620, "H100 SXM": 1830, "H200": 1830, "B200": 1856}  # where it is not the boost clock
GEFORCE = ("RTX 2080 Ti", "RTX 3080", "RTX 3090", "RTX 4080", "RTX 4090", "RTX 5080", "RTX 5090")


@pytest.mark.parametrize("name", gpus.GPUS)
def test_rates_follow_from_clocks(name: str) -> None:
    gpu = gpus.GPUS[name]
    fp32 = gpu.multiprocessors * gpu.limits.fp32_lanes * 2 * gpu.boost_mhz / 1e6
    assert gpu.fp32 == pytest.approx(fp32, rel=0.01)
    flops = TENSOR_FLOPS[gpu.capability] / (2 if name in GEFORCE else 1)
    tensor = gpu.multiprocessors * flops * TENSOR_MHZ.get(name, gpu.boost_mhz) / 1e6
    assert gpu.tensor["float16"] == pytest.approx(tensor, rel=0.01)
    assert capability(gpu.arch) == gpu.capability
    assert gpu.source


def test_peaks() -> None:
    h100 = gpus.find("H100")
    assert h100.name == "H100 SXM"
    assert (h100.peak("float32", False), h100.peak("float32", True)) == (66.9, 494.7)
    assert h100.peak("float16", False) == 66.9  # computed in float32
    assert h100.ridge("float16", True) == pytest.approx(989.4e12 / 3352e9)
    with pytest.raises(ValueError, match="T4 has no tensor cores for bfloat16, it has them for float16"):
        gpus.find("T4").peak("bfloat16", True)


def test_names() -> None:
    assert gpus.find("rtx-4090") is gpus.find("RTX4090") is gpus.GPUS["RTX 4090"]
    with pytest.raises(ValueError, match=r"gpu must be one of T4, .*RTX 5090; received 'GTX 1080'"):
        gpus.find("GTX 1080")
    assert all(gpus.typical(gpu.capability) for gpu in gpus.GPUS.values())
    assert gpus.typical(87) is None


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-40GB", "A100 SXM 40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM 80GB"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80GB"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("Tesla T4", "T4"),
        ("NVIDIA L40", None),
        ("NVIDIA GeForce RTX 4080 SUPER", None),
        ("NVIDIA H100 NVL", None),
    ],
)
def test_names_of_drivers(device: str, name: str | None) -> None:
    found = gpus.of_device(device)
    assert (found and found.name) == name


def test_limits() -> None:
    assert {n: limits.warps for n, limits in LIMITS.items() if n in (75, 86, 90)} == {75: 32, 86: 48, 90: 64}
    assert LIMITS[90].shared_memory_a_block == 227 * 1024
    assert LIMITS[75].shared_memory_a_block == 64 * 1024
    assert capability("sm_120a") == 120
    with pytest.raises(ValueError, match=r"arch must be one of sm_75, .*received 'sm_70'"):
        capability("sm_70")
