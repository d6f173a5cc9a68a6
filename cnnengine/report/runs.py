"""Where numbers come from: a letter for each run, its facts, and who was missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .rows import Row, disturbed_share, run_of

Run = tuple[str, str]


def runs_of(rows: Sequence[Row]) -> dict[Run, str]:
    """A letter for each run, A for the one with most rows."""
    counts = Counter(map(run_of, rows))
    ordered = sorted(counts, key=lambda run: (-counts[run], run))
    return {run: chr(ord("A") + i) if i < 26 else f"A{i}" for i, run in enumerate(ordered)}


def facts(rows: Sequence[Row]) -> dict[str, str]:
    """Of one run: machine, commit, versions, settings, roofs and how calm the machine was."""
    row = rows[0]
    timed = [r for r in rows if "milliseconds" in r]
    samples = sum(len(r["milliseconds"]) for r in timed)
    roofs = [
        f"{r['dtype']}: {r['gflops']:.0f} GFLOP/s, {r['gbps']:.1f} GB/s ({r['how']})"
        for r in rows
        if r["suite"] == "peaks"
    ]
    return {
        "date": row["date"],
        "command": row["command"],
        "commit": (row["commit"] or "unknown")[:12] + (" with uncommitted changes" if row["dirty"] else ""),
        "machine": f"{row['cpu']}, {row['cores']} cores, {row['threads']} threads; GPU: {row['gpu'] or 'none'};"
        f" {row['os']}",
        "versions": ", ".join([f"Python {row['python']}", *(f"{name} {v}" for name, v in row["versions"].items())]),
        "settings": ", ".join(f"{name}={value}" for name, value in row["settings"].items()) or "none",
        "roofs": "; ".join(roofs) or "not measured",
        "samples": f"{samples:,} of {len(timed):,} contenders, {disturbed_share(rows):.1%} of them disturbed by other"
        " processes",
    }


def missing(rows: Sequence[Row]) -> list[str]:
    """Who did not take part and what failed, each once."""
    return list(
        dict.fromkeys(
            f"{row['contender']} did not take part: {row['absent']}"
            if "absent" in row
            else f"failed: {row['operation']}, {row['case']}, {row['dtype']}: {row['failed']}"
            for row in rows
            if "absent" in row or "failed" in row
        )
    )
