"""Draws the CVPO paper's Goal and Button tasks from above, at the beginning of every episode.

    python benchmarks/fixed_pictures.py     # writes docs/images/fixed_tasks.png

Everything is where the simulator has it after a reset.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from fsrl_ext.env import make

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "fixed_tasks.png"
_EDGE = 2.3  # metres


def draw(axes: Axes, id: str) -> None:
    """Draws one task."""
    env: Any = make(id)
    env.reset(seed=0)
    task = env.simulator.task
    for hazard in task.hazards.pos:
        axes.add_patch(Circle(hazard[:2], task.hazards.size, color="tab:blue", alpha=0.5, lw=0))
    for number, button in enumerate(task.buttons.pos):
        is_goal = number == task.buttons.goal_button
        axes.add_patch(Circle(button[:2], task.buttons.size, color="tab:green" if is_goal else "tab:orange"))
        axes.annotate(str(number), button[:2], ha="center", va="center", fontsize=7)
    for gremlin in task._mocaps.values():
        for centre in gremlin.locations:
            corner = np.subtract(centre, gremlin.size)
            axes.add_patch(Rectangle(corner, 2 * gremlin.size, 2 * gremlin.size, color="tab:purple"))
            axes.add_patch(Circle(centre, gremlin.travel, fill=False, color="tab:purple", ls=":"))
    (x, y), forward = task.agent.pos[:2], task.agent.mat[:2, 0]
    axes.add_patch(Circle((x, y), 0.1, color="tab:red"))
    axes.annotate(
        "", (x, y) + 0.4 * forward, (x, y), arrowprops={"arrowstyle": "->", "color": "tab:red", "lw": 1.5}
    )
    axes.set(xlim=(-_EDGE, _EDGE), ylim=(-_EDGE, _EDGE), aspect="equal", title=id)
    axes.set(xlabel="x [m]", ylabel="y [m]")
    env.close()


def main() -> None:
    figure = Figure(figsize=(9, 4.7), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, id in zip(
        figure.subplots(1, 2), ("SafetyPointGoalFixed-v0", "SafetyPointButtonFixed-v0"), strict=True
    ):
        draw(axes, id)
    figure.savefig(PICTURE, dpi=90)


if __name__ == "__main__":
    main()
