"""A picture of where a robot went, on a task with a circle and two walls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np


def plot_trajectories(
    paths: Mapping[str, Sequence[np.ndarray]], *, radius: float, wall: float, path: Path, title: str = ""
) -> None:
    """Draws trajectories over the circle that is rewarded, and the walls that cost.

    :param paths: by label, the positions ``[T, 2]`` of each trajectory, in metres; one colour for each label.
    :param radius: of the circle around the origin.
    :param wall: the absolute x beyond which a step costs.
    :param path: of a new ``.png``, ``.pdf`` or ``.svg`` file.
    :param title: above the picture.
    :raises ValueError: without trajectories, and for positions of another shape.
    """
    if not any(len(group) for group in paths.values()):
        raise ValueError("paths must have at least one trajectory, got none")
    # Without pyplot there is no global state and no display is looked for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    figure = Figure(figsize=(5, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.add_patch(Circle((0.0, 0.0), radius, fill=False, color="grey", linestyle=":"))
    for number, (label, group) in enumerate(paths.items()):
        for i, points in enumerate(group):
            if points.ndim != 2 or points.shape[1] != 2:
                raise ValueError(f"paths must be [T, 2], got {list(points.shape)} in {label!r}")
            x, y = points.T
            axis.plot(x, y, color=f"C{number}", alpha=0.7, linewidth=1, label=None if i else label)
    for side in (-wall, wall):
        axis.axvline(side, color="tab:red", linewidth=1)
    axis.set(xlabel="x in m", ylabel="y in m", title=title, aspect="equal")
    figure.legend(loc="outside lower center", ncols=max(1, len(paths)), fontsize="small")
    figure.savefig(path, dpi=150)
