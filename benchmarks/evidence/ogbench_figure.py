"""The learning curves of both sides, one panel for each agent."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.evidence.ogbench_results import Runs, curve
from gcrl_gym.checkpoint import atomic_write

OURS, THEIRS = "#0b6e99", "#d9730d"


def draw(every: Sequence[Runs], path: Path) -> None:
    """Draw what is there: our mean with a dot for each seed, and the reference's run.

    Args:
        every: runs of the agents on one set.
        path: PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 5.4), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3, sharex=True, sharey=True).flat
    for panel, runs in zip(panels, every, strict=True):
        _panel(panel, runs)
        panel.set_title(runs.agent.upper(), fontsize=11)
        panel.margins(x=0.06)
        panel.set_ylim(-4, 104)
        panel.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:.0f}k")
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("updates", fontsize=10)
    figure.supylabel("success (%), 5 tasks x 20 episodes", fontsize=10)
    lines = [line for panel in figure.axes for line in panel.get_lines()]
    named = {str(line.get_label()): line for line in lines if line.get_label()[0] != "_"}
    if named:
        figure.legend(named.values(), named.keys(), loc="outside upper center", ncols=3,
                      frameon=False, fontsize=9)  # fmt: skip
    with atomic_write(path) as temporary:
        canvas.print_figure(temporary, format="png")


def _panel(panel: Any, runs: Runs) -> None:
    curves = [curve(result) for result in runs.ours]
    if not runs.ours and not runs.reference:
        panel.text(0.5, 0.5, "not run yet", transform=panel.transAxes, ha="center", color="0.5")
    if curves:
        steps = sorted(set.intersection(*map(set, curves)))
        mean = [statistics.mean(found[step] for found in curves) for step in steps]
        panel.plot(steps, mean, color=OURS, linewidth=2.2, label="gcrl_gym, mean of seeds")
        for found in curves:
            panel.plot(
                found.keys(), found.values(), "o", color=OURS, markersize=4.5, alpha=0.55,
                label="gcrl_gym, single seeds",
            )  # fmt: skip
    for result in runs.reference:
        found = curve(result)
        panel.plot(
            found.keys(), found.values(), "s--", color=THEIRS, linewidth=1.8, markersize=5,
            label="OGBench's own agent (JAX), one seed",
        )  # fmt: skip
