"""Plots of kernel rows: a roofline, and rate over length."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def draw(rows: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Write roofline.png and, with more than one length, length.png; return the paths."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    timed = [row for row in rows if "seconds" in row]
    written = []
    busy = [row for row in timed if row.get("flops") and row.get("bytes")]
    if busy:
        figure, axes = plt.subplots(figsize=(8, 5.5))
        roof, slope = busy[0]["ceiling_flops"], busy[0]["ceiling_bandwidth"]
        spread = [row["flops"] / row["bytes"] for row in busy]
        xs = [min(spread) / 4, roof / slope, max(spread) * 4]
        axes.plot(xs, [min(roof, slope * x) for x in xs], color="black", label="measured ceiling")
        for name in sorted({row["implementation"] for row in busy}):
            own = [row for row in busy if row["implementation"] == name]
            axes.scatter(
                [r["flops"] / r["bytes"] for r in own], [r["flops_per_second"] for r in own], label=name
            )
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="FLOP a byte that must be moved (unmasked pairs)",
            ylabel="FLOP/s",
        )
        axes.legend(fontsize=8)
        written.append(folder / "roofline.png")
        figure.savefig(written[-1], dpi=150, bbox_inches="tight")
        plt.close(figure)
    lengths = sorted({row["length"] for row in timed if "length" in row})
    if len(lengths) > 1:
        kinds = sorted({(row["kind"], row["label"]) for row in timed if "length" in row})
        figure, grid = plt.subplots(1, len(kinds), figsize=(5 * len(kinds), 4), squeeze=False)
        for axes, kind in zip(grid[0], kinds, strict=True):
            own = [row for row in timed if (row["kind"], row["label"]) == kind]
            for name in sorted({row["implementation"] for row in own}):
                line = sorted(
                    (r["length"], r["flops_per_second"]) for r in own if r["implementation"] == name
                )
                axes.plot([x for x, _ in line], [y for _, y in line], marker="o", label=name)
            axes.set(xscale="log", title=" ".join(kind), xlabel="tokens", ylabel="FLOP/s of unmasked pairs")
            axes.legend(fontsize=7)
        written.append(folder / "length.png")
        figure.savefig(written[-1], dpi=150, bbox_inches="tight")
        plt.close(figure)
    return written
