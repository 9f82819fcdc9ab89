"""An adaptation as numbers and as a table."""

from __future__ import annotations

from typing import Any

from fsrl_ext.cost_names import cost_word
from fsrl_ext.experiment.saved.adapt import Adaptation
from fsrl_ext.experiment.saved.evaluate import evaluation_report
from fsrl_ext.report import text_table
from fsrl_ext.report.table import error_text
from fsrl_ext.trainer import Evaluation


def adaptation_report(adaptation: Adaptation) -> dict[str, Any]:
    """The adaptation as plain numbers for JSON: policy, task, and every point with all of its episodes."""
    return {
        "checkpoint": str(adaptation.checkpoint),
        "task": adaptation.task,
        "task_seed": adaptation.task_seed,
        "parameters": adaptation.parameters,
        "cost_limit": list(adaptation.cost_limit),
        "limit_unit": adaptation.limit_unit,
        "points": [
            {
                "steps": point.steps,
                "env_step": point.env_step,
                "collected": None if point.collected is None else evaluation_report(point.collected),
                "tested": None if point.tested is None else evaluation_report(point.tested),
            }
            for point in adaptation.points
        ],
    }


def adaptation_table(adaptation: Adaptation) -> str:
    """A table with a row per point: the data that it collected, and its deterministic episodes."""
    cost = cost_word(adaptation.limit_unit)
    header = ["steps", "environment steps", "return", cost, "above limit", "test return", f"test {cost}"]
    rows = [
        [str(x.steps), f"{x.env_step:,}", *_cells(x.collected, above=True), *_cells(x.tested)]
        for x in adaptation.points
    ]
    return text_table(header, rows)


def _cells(evaluation: Evaluation | None, *, above: bool = False) -> list[str]:
    if evaluation is None:
        return ["-"] * (2 + above)
    episodes = len(evaluation.returns)
    cost = ", ".join(
        error_text(mean, error, episodes)
        for mean, error in zip(evaluation.cost_mean, evaluation.cost_stderr, strict=True)
    )
    cells = [error_text(evaluation.return_mean, evaluation.return_stderr, episodes, 2), cost]
    return [*cells, f"{evaluation.share_above_limit:.0%} of {episodes}"] if above else cells
