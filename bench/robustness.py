"""The tables of docs/classic.md: `cnnengine compare` on Fashion-MNIST and MNIST, and where the numbers come from.

python bench/robustness.py --root DIR --output bench/results/NAME    # NAME-mnist.json, .md, .png, and -fashion_mnist

Most of the time is ResNet-20's; a second call goes on where the first was ended.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.provenance import provenance, usable_cores
from cnnengine import cli

DATA = ("fashion_mnist", "mnist")
METHODS = "hog,lenet5,lenet5+augment,resnet20"


def main(arguments: list[str] | None = None) -> int:
    """The first exit status of a comparison that is not 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", required=True, help="folder of the data sets")
    parser.add_argument("--output", type=Path, required=True, help="the files' name, to which each data set's is added")
    parser.add_argument("--data", default=",".join(DATA))
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the networks are kept (default: runs)")
    parser.add_argument("--train", help="only so many training images")
    parser.add_argument("--test", help="only so many test images")
    options = parser.parse_args(arguments)
    for data in options.data.split(","):
        folder = options.runs / f"robustness-{data}"
        words = ["--data", data, "--root", options.root, "--methods", options.methods, "--output", str(folder)]
        for name in ("train", "test"):
            words += [f"--{name}", getattr(options, name)] * (getattr(options, name) is not None)
        if status := cli.main(["compare", *words, "--resume"]):
            return status
        publish(folder, options.output.with_name(f"{options.output.name}-{data}"))
    return 0


def publish(folder: Path, name: Path) -> None:
    """The comparison's files as NAME.json, NAME.md and NAME.png, the first two with the run's provenance."""
    record = provenance(len(usable_cores()))
    content = json.loads((folder / "robustness.json").read_text(encoding="utf-8")) | {"provenance": record}
    beside(name, ".json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    origin = (
        f"`{record['command']}` at commit {str(record['commit'])[:10]}, {record['cpu']}, {record['cores']} virtual"
        f" cores, {record['date'][:10]}."
    )
    table = (folder / "robustness.md").read_text(encoding="utf-8")
    beside(name, ".md").write_text(f"{table}\n{origin}\n", encoding="utf-8")
    beside(name, ".png").write_bytes((folder / "robustness.png").read_bytes())


def beside(name: Path, suffix: str) -> Path:
    """NAME and a suffix, also where the name has dots."""
    return name.with_name(name.name + suffix)


if __name__ == "__main__":
    sys.exit(main())
