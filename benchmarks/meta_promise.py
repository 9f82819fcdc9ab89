"""Measures how much of what Meta-CPO's meta-step promises holds when tasks are played and adapted to again.

    python benchmarks/meta_promise.py RUN [--checkpoint best] [--tasks 3] [--repeats 4]

The script adapts the meta-policy of a run of ``meta_cpo`` to the same tasks several times, each time on data
of its own. For the meta-step of each time, at full length, it prints four estimates of the change of the cost
of an adapted policy's episode:

- promised: the gradient of the same data times the step, which the constraint of the step is about;
- held out: the mean gradient of the other times, times the step. The step was not chosen by these gradients,
  so the difference from the promise is noise of the data;
- straight: half of the difference between the costs of the policies adapted again after the step and after
  its opposite. The difference from the held-out change is the error of the gradients;
- played: the change of these costs after the step. The difference from the straight part is curvature.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from frozen_metric import adaptations
from torch import Tensor

from fsrl_ext.env.meta import TaskDistribution
from fsrl_ext.experiment.saved.load import checkpoint_file, load_saved
from fsrl_ext.functional.conjugate_gradient import flatten, unflatten
from fsrl_ext.functional.constrained_step import constrained_step
from fsrl_ext.policy import MetaCPOPolicy
from fsrl_ext.policy.meta_adaptation import MovingFisher
from fsrl_ext.report import text_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", help="a run folder or a checkpoint of meta_cpo")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="last")
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=4, help="repeats of the adaptation, at least 2")
    options = parser.parse_args()
    if options.repeats < 2:
        parser.error(f"--repeats must be at least 2, got {options.repeats}")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    policy, config, _ = load_saved(checkpoint_file(options.run, options.checkpoint), "cpu")
    if not isinstance(policy, MetaCPOPolicy) or config.policy != "meta_cpo":
        parser.error(f"{options.run} must be a run of meta_cpo, got {config.policy}")
    tasks = TaskDistribution(config.task, seed=1_000).draw(options.tasks)
    times = [adaptations(policy, config, tasks, repeat) for repeat in range(options.repeats)]
    costs = [_cost(records) for records in times]
    print(f"cost of an adapted policy's episode: {np.mean(costs):.1f}, limit {policy.cost_limit[0]:g}")
    gradients = [torch.stack([x.finished.gradients[1] for x in records]).mean(0) for records in times]
    rows = []
    for number, records in enumerate(times):
        step, case = _meta_step(policy, records)
        per_step = [float(a @ step) for a in gradients]
        promised = per_step.pop(number)
        forth, back = (
            _cost_after(policy, sign * step, config, tasks, seed=1_000 + number) for sign in (1.0, -1.0)
        )
        changes = [promised * policy.max_episode_steps, np.mean(per_step) * policy.max_episode_steps]
        changes += [(forth - back) / 2, forth - np.mean(costs)]
        rows.append([str(number), case, *(f"{x:+.1f}" for x in changes)])
    print(text_table(["repeat", "case", "promised", "held out", "straight", "played"], rows))
    print("change of the cost of an adapted policy's episode, mean over the tasks")


def _cost(records: list[Any]) -> float:
    return float(np.mean([x.finished.episode_cost for x in records]))


def _meta_step(policy: MetaCPOPolicy, records: list[Any]) -> tuple[Tensor, str]:
    """Returns the step ``[P]`` of the mean problem, before any line search, and its case."""
    gradients = torch.stack([x.finished.gradients for x in records]).mean(0)
    surplus = torch.stack([x.finished.surplus for x in records]).mean(0)
    metric = MovingFisher(policy.meta_actor, [x.first for x in records], policy.config)
    step = constrained_step(
        gradients[0],
        gradients[1:],
        surplus,
        kl_bound=policy.config.outer_kl_bound,
        inverse_metric=metric.inverse(flatten(policy.meta_actor.parameters()).detach()),
    )
    return step.step, step.case


@torch.no_grad()
def _put(policy: MetaCPOPolicy, theta: Tensor) -> None:
    like = dict(policy.meta_actor.named_parameters())
    for name, value in unflatten(theta, like).items():
        like[name].copy_(value)


def _cost_after(policy: MetaCPOPolicy, step: Tensor, config: Any, tasks: list[Any], *, seed: int) -> float:
    """Returns the cost of policies adapted from a step away; the meta-policy is put back afterwards."""
    theta = flatten(policy.meta_actor.parameters()).detach().clone()
    _put(policy, theta + step)
    try:
        return _cost(adaptations(policy, config, tasks, seed))
    finally:
        _put(policy, theta)


if __name__ == "__main__":
    main()
