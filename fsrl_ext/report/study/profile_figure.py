"""Performance profiles: the share of runs whose score is above a threshold, over all thresholds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fsrl_ext.report.study import aggregate
from fsrl_ext.report.study.scores import ScoreTable
from fsrl_ext.report.study.style import add_legend, lines, new_figure, save


def draw_profiles(table: ScoreTable, colours: dict[str, str], path: Path) -> None:
    """Draws the profile of each policy with pointwise 95% bootstrap intervals, stratified by task.

    :param colours: by the names of the table.
    """
    highest = max(float(x.max()) for scores in table.scores.values() for x in scores)
    thresholds = np.linspace(0.0, max(highest, 1.0) * 1.02, 101)
    with new_figure(1, 1, height=2.1) as (figure, axes):
        axis, styles = axes[0, 0], lines(colours)
        for name, scores in table.scores.items():
            axis.step(
                thresholds,
                aggregate.profile(scores, thresholds),
                color=colours[name],
                linestyle=styles[name],
                where="post",
                label=name,
            )
            band = aggregate.profile_band(scores, thresholds)
            if band is not None:
                axis.fill_between(
                    thresholds, *band, step="post", color=colours[name], alpha=0.18, linewidth=0
                )
        axis.set(
            xlabel="score τ",
            ylabel="share of runs with score > τ",
            ylim=(0.0, 1.02),
            xlim=(0.0, thresholds[-1]),
        )
        axis.set_title("1 task" if len(table.problems) == 1 else f"{len(table.problems)} tasks")
        add_legend(figure, [axis])
        save(figure, path)
