"""Measures what a constant metric does to the derivative of an adaptation.

    python benchmarks/frozen_metric.py RUN [--checkpoint last] [--tasks 3] [--repeats 3]

The script adapts the meta-policy of a run of ``meta_cpo`` or ``maml_trpo`` to fresh tasks of its training,
and compares two derivatives of the adapted policies in the meta-parameters. In the first the Fisher matrices
are functions of the parameters (moves); in the second those of the recorded adaptation are constants (stays).
For each repeat, on tasks of its own, it prints

- the cosine of either meta-gradient (of the reward) with the first-order gradient, which replaces every
  Jacobian by the identity;
- how far the adapted policies move, in nats on their own data, if the meta-policy takes the step of either
  gradient at ``outer_kl_bound`` and is adapted again on the stored data, by steps in the metric of where they
  start; the last row adapts again by steps in the recorded metric.
"""

from __future__ import annotations

import argparse
import dataclasses
from functools import partial
from typing import Any

import numpy as np
import torch
from tianshou.policy.base import policy_within_training_step
from torch import Tensor
from torch.func import functional_call

from fsrl_ext.data import MetaCollector
from fsrl_ext.env.meta import TaskDistribution
from fsrl_ext.experiment.saved.load import checkpoint_file, load_saved
from fsrl_ext.experiment.training_config import train_envs
from fsrl_ext.functional.conjugate_gradient import flatten, unflatten
from fsrl_ext.functional.constrained_step import constrained_step
from fsrl_ext.functional.meta_gradient import meta_gradient, replay, surrogate_gradients
from fsrl_ext.policy import MetaCPOPolicy
from fsrl_ext.policy.meta_adaptation import MovingFisher
from fsrl_ext.policy.onpolicy.trust_region import mean_kl
from fsrl_ext.report import text_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", help="a run folder or a checkpoint of a meta-learner")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="last")
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    policy, config, _ = load_saved(checkpoint_file(options.run, options.checkpoint), "cpu")
    if not isinstance(policy, MetaCPOPolicy) or policy.config.inner_steps == 0:
        parser.error(f"{options.run} must be a run of meta_cpo, maml_trpo or maml_lag, got {config.policy}")
    rows = []
    for repeat in range(options.repeats):
        torch.manual_seed(repeat)
        tasks = TaskDistribution(config.task, seed=1_000 + repeat).draw(options.tasks)
        rows += [[str(repeat), *row] for row in compare(policy, adaptations(policy, config, tasks, repeat))]
    header = ["repeat", "metric", "cosine with first order", "meta-policy moves", "adapted policies move"]
    print(text_table(header, rows))
    print("nats; cosine and moves are means over the tasks' data")


def adaptations(policy: MetaCPOPolicy, config: Any, tasks: list[Any], seed: int) -> list[Any]:
    """Adapts to each task; returns what the meta-step needs."""
    collector = MetaCollector(
        policy,
        lambda make: train_envs(make, 0, config.num_envs),
        step_per_collect=config.training.step_per_collect,
        num_envs=config.num_envs,
        num_costs=len(config.cost_limit),
    )
    with policy_within_training_step(policy):
        for number, task in enumerate(tasks):
            first = 10_000 * seed + 100 * number
            collector.start(task.env_fn(), range(first, first + config.num_envs))
            policy.begin_task(record=True)
            for _ in range(policy.config.inner_steps):
                collector.collect()
                policy.update(0, collector.buffer)
            collector.collect()
            policy.finish_task(collector.buffer)
    collector.close()
    records, policy.finished = policy.finished, []
    return records


def compare(policy: MetaCPOPolicy, records: list[Any]) -> list[list[str]]:
    parameters = list(policy.meta_actor.parameters())
    theta, bound = flatten(parameters).detach(), policy.config.outer_kl_bound
    inverse = MovingFisher(policy.meta_actor, [x.first for x in records], policy.config).inverse(theta)
    like = {name: x.detach() for name, x in policy.meta_actor.named_parameters()}

    def moved(phi: Tensor, rollout: Any) -> float:
        return float(mean_kl(partial(functional_call, policy.meta_actor, unflatten(phi, like)), [rollout]))

    first, gradients = [], {"moves": [], "stays": []}
    for x in records:
        cotangent = surrogate_gradients(x.finished.loss, x.steps[-1].adapted)[0][None]
        first.append(cotangent[0])
        for name, steps in (
            ("moves", x.steps),
            ("stays", [dataclasses.replace(step, metric=None) for step in x.steps]),
        ):
            gradients[name].append(meta_gradient(cotangent, steps).gradients[0])
    rows = []
    for name, found in gradients.items():
        g = torch.stack(found).mean(0)
        cosine = float(torch.cosine_similarity(g, torch.stack(first).mean(0), dim=0))
        step = constrained_step(g, g.new_zeros(0, len(g)), g[:0], kl_bound=bound, inverse_metric=inverse)
        with torch.no_grad():
            new = theta + step.step
            own = [moved(new, x.first) for x in records]
            adapted = [moved(replay(new, x.steps).detach(), x.finished.last) for x in records]
        rows.append([name, f"{cosine:.2f}", f"{np.mean(own):.4f}", f"{np.mean(adapted):.4f}"])
    stays = [[dataclasses.replace(step, metric=None) for step in x.steps] for x in records]
    with torch.no_grad():  # the last of the two steps again
        adapted = [
            moved(replay(new, s).detach(), x.finished.last) for s, x in zip(stays, records, strict=True)
        ]
    rows.append(["stays, and judged so", rows[-1][1], rows[-1][2], f"{np.mean(adapted):.4f}"])
    return rows


if __name__ == "__main__":
    main()
