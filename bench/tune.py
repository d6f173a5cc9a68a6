"""Runs every convolution that ``bench/run.py conv2d --device cuda`` times once under ``cnn.autotune()``, forward and
backward, so that its choices are measured before anything is timed. They are kept where the tuner keeps them: in
``autotune.json`` of the cache folder (``CNNENGINE_CACHE``).

    python bench/tune.py --dtype float16
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cnnengine as cnn
from bench.bench_conv2d import TUNED, tasks
from bench.contenders.device import arrays_on_device
from bench.suite import CUDA_DTYPES
from cnnengine import backends


def main(arguments: list[str] | None = None) -> int:
    """1 where a convolution failed, 2 where there is no GPU."""
    p = argparse.ArgumentParser(prog="bench/tune.py", description=(__doc__ or "").splitlines()[0])
    p.add_argument("--dtype", action="append", default=[], choices=CUDA_DTYPES, help="of it alone (may be repeated)")
    p.add_argument("--only", default="", help="only those whose pass and layer contain this")
    p.add_argument("--smoke", action="store_true", help="tiny sizes")
    options = p.parse_args(arguments)
    if (reason := backends.available()["cuda"]) is not None:
        print(f"bench/tune.py: {reason}", file=sys.stderr)
        return 2
    backend, failed, run = cnn.set_backend("cuda"), 0, 0
    start = time.perf_counter()
    for dtype in options.dtype or CUDA_DTYPES:
        for task in tasks("cuda", options.smoke, dtype):
            if options.only not in f"{task.operation} {task.case}":
                continue
            run += 1
            try:
                chosen = task.with_dtype(dtype)
                made = chosen.ours[TUNED](backend, arrays_on_device(chosen))
                assert made is not None
                made()
                backend.synchronize()
            except Exception as error:
                failed += 1
                print(f"{task.operation} {task.case} {dtype}: {type(error).__name__}: {error}")
    print(f"{run} convolutions tuned in {time.perf_counter() - start:.0f} s, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
