"""How long the kernels of ResNet-50's training take to compile, from an empty cache. Needs NVRTC, no GPU.

python bench/precompile.py                      # float16, batch 64, for sm_90a, one worker and then two
python bench/precompile.py --workers 4 --arch sm_80 --kernels

CPU seconds are those of all processes: where others use the machine they say more than the clock.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cnnengine as cnn
from cnnengine import nn
from cnnengine.cuda.precompile import DTYPES, plan, precompile
from cnnengine.errors import BackendUnavailable, KernelError


class Bottleneck(nn.Module):
    """1x1, 3x3 (which has the stride: v1.5) and 1x1 to four times the width, beside a skip connection."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.project = None
        if channels != 4 * width or stride > 1:
            self.project = nn.Conv2d(channels, 4 * width, 1, stride, bias=False)
            self.project_bn = nn.BatchNorm2d(4 * width)

    def forward(self, x: cnn.Tensor) -> cnn.Tensor:
        y = self.bn1(self.conv1(x), "relu")
        y = self.bn2(self.conv2(y), "relu")
        skip = x if self.project is None else self.project_bn(self.project(x))
        return self.bn3(self.conv3(y), "relu", skip)


class ResNet50(nn.Module):
    """Images (N, 224, 224, 3) -> logits (N, 1000)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, 1)
        blocks, channels = {}, 64
        for stage, (width, count) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
            for block in range(count):
                blocks[f"{stage}_{block}"] = Bottleneck(channels, width, 2 if stage and not block else 1)
                channels = 4 * width
        self.blocks = nn.Sequential(blocks)
        self.average = nn.GlobalAvgPool2d()
        self.linear = nn.Linear(channels, 1000)

    def forward(self, x: cnn.Tensor) -> cnn.Tensor:
        y = self.average(self.blocks(self.pool(self.bn1(self.conv1(x), "relu"))))
        return self.linear(y.reshape((y.shape[0], -1)))


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="bench/precompile.py", description=(__doc__ or "").splitlines()[0])
    p.add_argument("--arch", default="sm_90a")
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--dtype", choices=DTYPES, default="float16", help="of convolutions and products (default: float16)")
    p.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes, one run each (default: 1 2)")
    p.add_argument("--kernels", action="store_true", help="list the kernels and compile nothing")
    options = p.parse_args(arguments)
    model, shape = ResNet50(), (options.batch, 224, 224, 3)
    try:
        if options.kernels:
            for kernel in plan(model, [shape], True, options.dtype, None, options.arch)[0]:
                print(f"{kernel.file:38} {kernel.expressions[0]}")
            return 0
        for workers in options.workers:
            with tempfile.TemporaryDirectory() as folder:
                os.environ["CNNENGINE_CACHE"] = folder
                made = precompile(model, shape, dtype=options.dtype, arch=options.arch, workers=workers)
            print(
                f"ResNet-50, a training step in {options.dtype}, batch {options.batch}, {made.arch}: {made.compiled}"
                f" kernels, workers {workers}: {made.seconds:.1f} s, {made.cpu_seconds:.1f} CPU seconds"
            )
    except (BackendUnavailable, KernelError, ValueError) as error:
        print(f"bench/precompile.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
