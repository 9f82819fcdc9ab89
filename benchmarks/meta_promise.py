"""How much of what Meta-CPO's meta-step promises holds when tasks are played and adapted to anew.

    python benchmarks/meta_promise.py RUN [--checkpoint best] [--tasks 3] [--repeats 4]

Takes the meta-policy of a run of ``meta_cpo`` and adapts it to the same tasks several times, on data of its
own each time. The meta-step of each time, at full length, changes the cost of an adapted policy's episode by

- promised: its own gradient times the step, which is what the constraint of the step is about;
- held out: the mean gradient of the other times, which the step was not chosen by. What is missing to the
  promise is noise that the step took for a way to lower the cost;
- straight: half of the difference between the costs that the policies adapted anew have after the step and
  after its opposite. What is missing to the gradient of the other times is the gradient's own error;
- played: the change of these costs after the step. What is missing to the straight part is curvature.
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
from fsrl_ext.policy.onpolicy.surrogates import MovingFisher
from fsrl_ext.report import text_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", help="a run folder or a checkpoint of meta_cpo")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="last")
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=4, help="of the adaptation, at least 2")
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
    costs = [_cost(outcomes) for outcomes in times]
    print(f"cost of an adapted policy's episode: {np.mean(costs):.1f}, limit {policy.cost_limit[0]:g}")
    gradients = [torch.stack([x.gradients[1] for x in outcomes]).mean(0) for outcomes in times]
    rows = []
    for number, outcomes in enumerate(times):
        step, case = _meta_step(policy, outcomes)
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


def _cost(outcomes: list[Any]) -> float:
    return float(np.mean([x.episode_cost for x in outcomes]))


def _meta_step(policy: MetaCPOPolicy, outcomes: list[Any]) -> tuple[Tensor, str]:
    """The step of the mean problem ``[P]``, before any line search, and its case."""
    gradients = torch.stack([x.gradients for x in outcomes]).mean(0)
    surplus = torch.stack([x.surplus for x in outcomes]).mean(0)
    metric = MovingFisher(policy.meta_actor, [x.first for x in outcomes], policy.config)
    found = constrained_step(
        gradients[0],
        gradients[1:],
        surplus,
        kl_bound=policy.config.outer_kl_bound,
        inverse_metric=metric.inverse(flatten(policy.meta_actor.parameters()).detach()),
    )
    return found.step, found.case


@torch.no_grad()
def _put(policy: MetaCPOPolicy, theta: Tensor) -> None:
    like = dict(policy.meta_actor.named_parameters())
    for name, value in unflatten(theta, like).items():
        like[name].copy_(value)


def _cost_after(policy: MetaCPOPolicy, step: Tensor, config: Any, tasks: list[Any], *, seed: int) -> float:
    """The cost of policies adapted from a step away; the meta-policy is put back afterwards."""
    theta = flatten(policy.meta_actor.parameters()).detach().clone()
    _put(policy, theta + step)
    try:
        return _cost(adaptations(policy, config, tasks, seed))
    finally:
        _put(policy, theta)


if __name__ == "__main__":
    main()
