"""Figures of a run, drawn without a display and without touching pyplot's global state."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gcrl_gym.checkpoint import atomic_write
from gcrl_gym.errors import UserError


def plot_learning_curve(
    rows: Sequence[dict[str, Any]], path: str | os.PathLike[str], title: str = ""
) -> Path:
    """Draw success (or return, where there is no success) of every actor against updates.

    Lines are deterministic actions over all tasks; the last actor is drawn strongest, with its
    single tasks as thin dotted lines behind it.

    Args:
        rows: rows of ``evaluations.csv`` (``callbacks.read_rows``).
        path: PNG file.
        title: of the figure.

    Returns:
        The file written.

    Raises:
        UserError: no evaluation among the rows.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in rows if row["mode"] == "deterministic"]
    if not rows:
        raise UserError(f"No evaluation to draw in {Path(path).name}; train with an eval_freq.")
    overall = [row for row in rows if row["task"] == "all"]
    success = overall[0]["success_rate"] is not None
    key, scale = ("success_rate", 100.0) if success else ("mean_return", 1.0)
    actors = sorted({row["actor"] for row in overall})
    figure = Figure(figsize=(7.0, 4.2), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for task in sorted({str(row["task"]) for row in rows} - {"all", "default"}):
        own = [row for row in rows if str(row["task"]) == task and row["actor"] == actors[-1]]
        style: dict[str, Any] = {"color": "0.6", "linewidth": 0.9, "linestyle": ":"}
        label = f"actor {actors[-1]}, single tasks" if task == "1" else None
        axes.plot([r["step"] for r in own], [scale * r[key] for r in own], label=label, **style)
    for actor in actors:
        own = [row for row in overall if row["actor"] == actor]
        last = actor == actors[-1]
        axes.plot(
            [row["step"] for row in own],
            [scale * row[key] for row in own],
            marker="o",
            markersize=4.5 if last else 3.5,
            linewidth=2.4 if last else 1.4,
            label=f"actor {actor}" if len(actors) > 1 else "all tasks",
            zorder=3 if last else 2,
        )
    axes.set_xlabel("updates")
    axes.set_ylabel("success rate (%)" if success else "mean return")
    if success:
        axes.set_ylim(-3, 103)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=11)
    axes.legend(frameon=False, fontsize=9)
    with atomic_write(path) as temporary:
        canvas.print_figure(temporary, format="png")
    return Path(path)
