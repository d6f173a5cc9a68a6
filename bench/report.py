"""Turns results into a Markdown report with tables and a roofline plot, and puts tables into the project's own pages.

python bench/report.py bench/results/*.jsonl --output report.md    # writes report.md and report-cpu.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.requirements import requirements_table
from bench.summary import layers, replaced, summary
from cnnengine.report.markdown import notes, origins, tables
from cnnengine.report.roofline import roofline
from cnnengine.report.rows import Row, by_machine, read, title_of


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="bench/report.py", description=(__doc__ or "").splitlines()[0])
    p.add_argument("results", nargs="+", type=Path, help="JSON lines that bench/run.py wrote")
    p.add_argument("--output", type=Path, required=True, help="the Markdown file; plots are written beside it")
    p.add_argument(
        "--summary", type=Path, metavar="PAGE", help="also put the short table between the marks of this page"
    )
    p.add_argument(
        "--layers", type=Path, metavar="PAGE", help="also put each convolution between the marks of this page"
    )
    options = p.parse_args(arguments)
    rows = [row for path in options.results for row in read(path)]
    if len(by_machine(rows)) != 1:
        p.error(f"expected the rows of one machine, received those of {', '.join(map(title_of, by_machine(rows)))}")
    text = "# Benchmark report\n\n" + "\n\n".join(sections(rows)) + "\n"
    devices = sorted({row["device"] for row in rows if row.get("flops") and "milliseconds" in row})
    pictures = {d: options.output.with_name(f"{options.output.stem}-{d}.png") for d in devices}
    text += "".join(f"\n![roofline]({picture.name})\n" for picture in pictures.values())
    options.output.write_text(text)  # before the plots, which take longer
    for device, picture in pictures.items():
        roofline(rows, device).png(picture)
    for page, table in ((options.summary, summary), (options.layers, layers)):
        if page:
            page.write_text(replaced(page.read_text(), table(rows)))
    print(text)
    return 0


def sections(rows: list[Row]) -> list[str]:
    """Headed Markdown tables, then what is absent or failed, then where the numbers come from."""
    return [*tables(rows), *requirements_table(rows), *notes(rows), origins(rows)]


if __name__ == "__main__":
    sys.exit(main())
