"""A meta-learned policy on the held-out tasks of its family.

Dimension letters: ``N`` tasks, ``C`` costs.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsrl_ext.cost_names import cost_word
from fsrl_ext.data.stats import any_cost_above
from fsrl_ext.env.meta import TaskDescription, held_out_suite
from fsrl_ext.env.meta.held_out import Where
from fsrl_ext.errors import checked
from fsrl_ext.experiment.algorithms.meta import MetaTraining
from fsrl_ext.experiment.registry import algorithm
from fsrl_ext.experiment.saved.adapt import AdaptationPoint, adapt
from fsrl_ext.experiment.training.checkpoint import read_checkpoint
from fsrl_ext.report import text_table
from fsrl_ext.report.folder import Which, checkpoint_file
from fsrl_ext.report.statistics import (
    cost_interval,
    interval_note,
    mean_interval,
    mean_text,
    share_interval,
    share_text,
)
from fsrl_ext.trainer import Evaluation
from fsrl_ext.trainer.progress import progress


@dataclass(frozen=True, kw_only=True)
class SuiteEvaluation:
    """The result of :func:`evaluate_suite`.

    :param tasks: the N tasks.
    :param before: for each task the deterministic episodes of the meta-policy itself.
    :param during: for each task the episodes with sampled actions in the data that all steps learnt from,
        which show what the adaptation costs while it lasts. ``None`` for no steps, or if no episode ended.
    :param after: for each task the deterministic episodes of the policy adapted to it; the same as
        ``before`` for no steps.
    """

    family: str
    suite: str
    adapt_steps: int
    cost_limit: tuple[float, ...]
    tasks: tuple[TaskDescription, ...]
    before: tuple[Evaluation, ...]
    during: tuple[Evaluation | None, ...]
    after: tuple[Evaluation, ...]


@checked(
    at_least_zero=("adapt_steps",),
    at_least_one=("episodes",),
    seed=("seed",),
    own=("cost_limit", "checkpoint", "suite", "num_tasks"),
)
def evaluate_suite(
    run: str | os.PathLike[str],
    suite: Where = "outside",
    *,
    adapt_steps: int = 0,
    episodes: int = 10,
    seed: int = 0,
    checkpoint: Which = "best",
    cost_limit: float | Sequence[float] | None = None,
    cost_margin: float | None = None,
    kl_bound: float | None = None,
    family: str | None = None,
    num_tasks: int | None = None,
    step_per_collect: int | None = None,
    device: str | None = None,
    allow_import: bool = False,
    show_progress: bool = False,
) -> SuiteEvaluation:
    """Plays a saved policy on all held-out tasks of a family, before and after an adaptation to each.

    :param suite: ``"inside"`` of the range of meta-training, or ``"outside"``.
    :param adapt_steps: steps of the adaptation; 0 for none.
    :param family: the family whose tasks are played; by default the family that the run learnt from, which
        only meta-learned policies have.
    :param num_tasks: only the first ones of the suite; all if not given.
    :param show_progress: whether to show on a terminal how many tasks were played.
    :raises CheckpointError: if there is no usable checkpoint.
    :raises ValueError: for arguments that cannot be used, naming them.

    The other parameters are those of :func:`~fsrl_ext.experiment.saved.adapt`.
    """
    if family is None:
        trained = read_checkpoint(checkpoint_file(run, checkpoint))["config"]
        if not issubclass(algorithm(trained["policy"]).training, MetaTraining):
            raise ValueError(
                f"suite needs a meta-learned policy, got {trained['policy']} on {trained['task']}"
            )
        family = trained["task"]
    tasks = held_out_suite(family, suite)
    if num_tasks is not None and not 1 <= num_tasks <= len(tasks):
        raise ValueError(f"num_tasks must be 1 to {len(tasks)}, got {num_tasks}")
    tasks = tasks[:num_tasks]
    before, during, after = [], [], []
    numbered = progress(enumerate(tasks), "tasks", total=len(tasks), show=show_progress, unit="task")
    for number, task in numbered:
        adaptation = adapt(
            run,
            task,
            steps=adapt_steps,
            episodes=episodes,
            seed=seed + number,
            checkpoint=checkpoint,
            cost_limit=cost_limit,
            cost_margin=cost_margin,
            kl_bound=kl_bound,
            step_per_collect=step_per_collect,
            test_at=(0, adapt_steps),
            collect_last=False,
            device=device,
            allow_import=allow_import,
        )
        before.append(_tested(adaptation.points[0]))
        during.append(_collected(adaptation.points[:-1]))
        after.append(_tested(adaptation.points[-1]))
    return SuiteEvaluation(
        family=family,
        suite=suite,
        adapt_steps=adapt_steps,
        cost_limit=adaptation.cost_limit,
        tasks=tuple(tasks),
        before=tuple(before),
        during=tuple(during),
        after=tuple(after),
    )


def _tested(point: AdaptationPoint) -> Evaluation:
    assert point.tested is not None, "adapt tests at steps 0 and adapt_steps"
    return point.tested


def _collected(points: Sequence[AdaptationPoint]) -> Evaluation | None:
    """All episodes that ended in the collects of these points."""
    collects = [x.collected for x in points if x.collected is not None]
    if not collects:
        return None
    return functools.reduce(Evaluation.followed_by, collects)


def suite_report(evaluation: SuiteEvaluation) -> dict[str, Any]:
    """The evaluation as plain numbers for JSON, with 95% intervals over tasks.

    Tasks count as independent. Episodes of one task do not, so the share of the episodes is a mean over tasks
    of their shares, with the interval of a mean.

    ``seeds`` are those of the deterministic episodes, which are the same for every task, before and after.
    """
    rows = zip(evaluation.tasks, evaluation.before, evaluation.during, evaluation.after, strict=True)
    during = [x for x in evaluation.during if x is not None]
    return {
        "family": evaluation.family,
        "suite": evaluation.suite,
        "adapt_steps": evaluation.adapt_steps,
        "cost_limit": list(evaluation.cost_limit),
        "limit_unit": evaluation.before[0].limit_unit,
        "intervals": interval_note("tasks"),
        "seeds": list(evaluation.before[0].seeds or ()),
        "before": _over_tasks(evaluation.before),
        "during": _over_tasks(during) if during else None,
        "after": _over_tasks(evaluation.after),
        "tasks": [
            {
                **task.as_dict(),
                "before": before.summary(),
                "during": None if collected is None else collected.summary(),
                "after": after.summary(),
            }
            for task, before, collected, after in rows
        ],
    }


def suite_table(evaluation: SuiteEvaluation) -> str:
    """A table with a row before, during, and after the adaptation, over all tasks."""
    report, steps = suite_report(evaluation), evaluation.adapt_steps
    points = {"meta-policy": report["before"]}
    if steps:
        if report["during"] is not None:
            points["data adapted to"] = report["during"]
        points[f"after {steps} step{'s' if steps > 1 else ''}"] = report["after"]
    rows = []
    for name, point in points.items():
        costs = zip(point["cost_mean"], point["cost_interval"], strict=True)
        rows.append(
            [
                name,
                mean_text(point["return_mean"], point["return_interval"], 2),
                ", ".join(mean_text(mean, interval, 2) for mean, interval in costs),
                share_text(point["tasks_above_limit"], point["tasks_above_limit_interval"]),
                share_text(point["share_above_limit"], point["share_above_limit_interval"]),
            ]
        )
    cost = cost_word(report["limit_unit"])
    return text_table(["", "return", cost, "tasks above", "episodes above"], rows)


def _over_tasks(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    returns = [x.return_mean for x in evaluations]
    costs = np.stack([x.cost_mean for x in evaluations])  # [N, C]
    above = any_cost_above(costs, evaluations[0].cost_limit)
    shares = [x.share_above_limit for x in evaluations]
    others = [x.other_cost_mean for x in evaluations if x.other_cost_mean is not None]
    return {
        "return_mean": float(np.mean(returns)),
        "return_interval": mean_interval(returns),
        "cost_mean": costs.mean(0).tolist(),
        "cost_interval": [cost_interval(c.tolist()) for c in costs.T],
        "tasks_above_limit": float(above.mean()),
        "tasks_above_limit_interval": share_interval(int(above.sum()), len(above)),
        "share_above_limit": float(np.mean(shares)),
        "share_above_limit_interval": mean_interval(shares, lowest=0.0, highest=1.0),
        **({"other_cost_mean": np.mean(others, axis=0).tolist()} if len(others) == len(evaluations) else {}),
    }
