"""Is a layer held up by arithmetic or by memory? FLOPs, bytes and their ratio, beside what a GPU can do.

    python examples/ladder/roofline.py [--gpu "H100 SXM"]
"""

import argparse

from cnnengine.inspect.gpus import find
from cnnengine.shapes import Conv2dShape, conv2d_shape

LAYERS = {
    "3x3, 64 channels": conv2d_shape((32, 56, 56, 64), (64, 3, 3, 64), padding=1),
    "1x1, 64 channels": conv2d_shape((32, 56, 56, 64), (64, 1, 1, 64)),
    "3x3 depthwise": conv2d_shape((32, 56, 56, 64), (64, 3, 3, 1), padding=1, groups=64),
}


def row(name: str, layer: Conv2dShape, peak: float, bandwidth: float) -> str:
    """``peak`` in TFLOP/s, ``bandwidth`` in GB/s."""
    flops, nbytes = layer.flops(), layer.bytes()
    arithmetic, memory = flops / peak * 1e-6, nbytes / bandwidth * 1e-3  # microseconds
    bound = "arithmetic" if arithmetic > memory else "memory"
    return (
        f"{name:18}{flops / 1e9:8.3f}{nbytes / 1e6:8.1f}{flops / nbytes:12.1f}{arithmetic:12.1f}{memory:10.1f}  {bound}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", default="H100 SXM")
    gpu = find(parser.parse_args().gpu)

    print(f"{gpu.name}: {gpu.fp32} TFLOP/s in float32, {gpu.bandwidth} GB/s from memory")
    print(f"the two take equally long at {gpu.ridge('float32', False):.0f} FLOPs a byte\n")
    print(f"{'float32':18}{'GFLOP':>8}{'MB':>8}{'FLOPs/byte':>12}{'compute us':>12}{'memory us':>10}  bound by")
    for name, layer in LAYERS.items():
        print(row(name, layer, gpu.fp32, gpu.bandwidth))


if __name__ == "__main__":
    main()
