"""Measures which part of the slope of an episode's cost CPO's cost gradient sees, and what its steps keep.

    python benchmarks/cost_slope.py RUN [--collects 20] [--checkpoint last]

The script collects several times with the policy of a run of ``cpo``, or with the meta-policy of a run of
``meta_cpo`` in one of its tasks. For several discount factors and lambdas of the costs, and several choices
of the data that the critic is fitted to, it computes the gradient ``a`` of the cost surrogate of each
collect. The critic is fitted ``before`` (to the earlier collects alone, as in CPO), to the ``same`` data that
it judges (as in Meta-CPO), or to the ``other`` half of the environments. It prints

- seen: the slope ``T a.x`` along steps ``x`` of other collects, over the true slope, with its standard error
  by a jackknife. The true slope comes from gradients without discount and with lambda = 1 over a critic
  fitted before, which are unbiased;
- promised: the cost that the full step ``-H^-1 a`` takes off an episode by the gradient of its own data;
- kept: the cost that this step takes off by the true slope on other data.
"""

from __future__ import annotations

import argparse
import dataclasses
from copy import deepcopy
from typing import Any, Literal

import numpy as np
import torch
from tianshou.env import DummyVectorEnv
from tianshou.policy.base import policy_within_training_step
from torch import Tensor

from fsrl_ext.data import CostCollector, CostVectorReplayBuffer
from fsrl_ext.env import env_fn
from fsrl_ext.env.meta import TaskDistribution
from fsrl_ext.experiment.saved.load import checkpoint_file, load_saved
from fsrl_ext.functional.conjugate_gradient import flatten
from fsrl_ext.policy import CPOPolicy, MetaCPOPolicy
from fsrl_ext.policy.onpolicy.base import OnpolicyPolicy, Trajectories
from fsrl_ext.policy.onpolicy.trust_region import inverse_fisher, surrogate_loss, thinned
from fsrl_ext.report import text_table

Fitted = Literal["before", "same", "other"]
UNBIASED: tuple[float, float, Fitted] = (1.0, 1.0, "before")
OF_CPO: tuple[tuple[float, float, Fitted], ...] = (
    (0.99, 0.95, "before"), (0.999, 0.95, "before"), (0.999, 0.97, "before"), (1.0, 0.95, "before"),
    UNBIASED,
)  # fmt: skip
OF_META: tuple[tuple[float, float, Fitted], ...] = (
    (0.99, 0.95, "same"), (0.99, 0.95, "other"), (0.99, 0.95, "before"), (0.999, 0.99, "same"),
    (0.999, 0.99, "before"), (1.0, 1.0, "same"), (1.0, 1.0, "other"), UNBIASED,
)  # fmt: skip
META_BLOCK = 4
"""Collects of one adaptation; the critic then starts again from the critic that all tasks share."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", help="a run folder or a checkpoint of cpo or meta_cpo")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="last")
    parser.add_argument("--collects", type=int, default=20, help="collects that are measured, at least 3")
    parser.add_argument("--first", type=int, default=6, help="collects before, which only the critics see")
    parser.add_argument("--task", type=int, default=1, help="number of the task of a meta-policy")
    options = parser.parse_args()
    if options.collects < 3:
        parser.error(f"--collects must be at least 3, got {options.collects}")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    file = checkpoint_file(options.run, options.checkpoint)
    policy, config, _ = load_saved(file, "cpu")
    if not isinstance(policy, CPOPolicy | MetaCPOPolicy):
        parser.error(f"{options.run} must be a run of cpo or meta_cpo, got {config.policy}")
    if isinstance(policy, MetaCPOPolicy):
        task = TaskDistribution(config.task, seed=1_000).draw(options.task + 1)[-1]
        make, choices, block = task.env_fn(), OF_META, META_BLOCK
    else:
        make, choices, block = env_fn(config.task), OF_CPO, None
    estimators = {x: Estimator(load_saved(file, "cpu")[0], *x, block=block) for x in choices}
    envs = DummyVectorEnv([make] * config.num_envs)
    envs.seed(0)
    steps = config.training.step_per_collect
    buffer = CostVectorReplayBuffer(steps, config.num_envs, num_costs=policy.num_costs)
    collector = CostCollector(policy, envs, buffer)
    collector.reset()
    costs: list[float] = []
    for number in range(options.first + options.collects):
        collector.reset_buffer(keep_statistics=True)
        with policy_within_training_step(policy):
            collector.collect(n_step=steps)
        costs += buffer.episodes.costs[:, 0].tolist()
        for estimator in estimators.values():
            estimator.see(buffer, keep=number >= options.first)
    length = policy.max_episode_steps
    print(f"{options.collects} collects of {steps:,} steps; cost of an episode {np.mean(costs):.1f}")
    kl_bound = policy.config.kl_bound
    truth = torch.stack(estimators[UNBIASED].gradients)
    rows = []
    for (gamma, decay, fitted), estimator in estimators.items():
        own = torch.stack(estimator.gradients)
        moves = torch.stack([estimator.inverse(a) for a in own])
        seen, error = ratio(moves @ own.T, moves @ truth.T)
        length_of = (own * moves).sum(1).sqrt()
        scale = length * (2 * kl_bound) ** 0.5 / length_of
        promised = (scale * (own * moves).sum(1)).mean()
        others = (moves @ truth.T).fill_diagonal_(0.0).sum(1) / (len(own) - 1)
        kept = scale * others
        rows.append(
            [
                f"{gamma:g}",
                f"{decay:g}",
                fitted,
                f"{seen:.2f} ± {error:.2f}",
                f"{promised:.1f}",
                f"{kept.mean():.1f} ± {kept.std() / len(own) ** 0.5:.1f}",
            ]
        )
    print(text_table(["cost_gamma", "cost_gae_lambda", "critic fitted to", "seen", "promised", "kept"], rows))


class Estimator:
    """Gradients of the cost surrogate by one discount factor, one lambda and one way to fit the critic."""

    def __init__(
        self, policy: Any, gamma: float, gae_lambda: float, fitted: Fitted, *, block: int | None
    ) -> None:
        self.policy: OnpolicyPolicy[Any] = policy
        if isinstance(policy, MetaCPOPolicy):
            policy.begin_task()
        self.policy.config = dataclasses.replace(policy.config, cost_gamma=gamma, cost_gae_lambda=gae_lambda)
        self.policy._prepare_critic = self._note
        self.fitted, self.block, self.seen = fitted, block, 0
        self.start = deepcopy(self.policy.critic.state_dict())
        self.gradients: list[Tensor] = []

    def _note(self, data: Trajectories) -> None:
        self.data = data

    def see(self, buffer: CostVectorReplayBuffer, *, keep: bool) -> None:
        """Estimates the gradient from a collect, and fits the critic to it."""
        policy = self.policy
        if self.block and self.seen % self.block == 0:
            policy.critic.load_state_dict(self.start)
        self.seen += 1
        batch, indices = buffer.sample(0)
        rollout = policy._rollout(policy.process_fn(batch, buffer, indices))
        advantages = rollout.advantages
        everything = slice(None)
        if self.fitted == "before":
            self._fit(everything)
        elif self.fitted == "same":
            self._fit(everything)
            advantages = self._advantages(everything)
        else:
            half = buffer.buffer_num // 2 * (len(indices) // buffer.buffer_num)
            halves, shared = (slice(half), slice(half, None)), deepcopy(policy.critic.state_dict())
            judged = []
            for own, other in (halves, halves[::-1]):
                policy.critic.load_state_dict(shared)
                self._fit(other)
                judged.append(self._advantages(own))
            advantages = torch.cat(judged)
        if keep:
            phi = flatten(policy.actor.parameters()).detach().requires_grad_()
            costs = advantages[:, 1:].T
            loss = surrogate_loss(
                policy.actor, rollout, advantages[:, 0], costs - costs.mean(1, keepdim=True)
            )
            self.gradients.append(torch.autograd.grad(loss(phi)[1][0], phi)[0])
            if len(self.gradients) == 1:
                states = thinned([rollout.obs], policy.config.fisher_fraction)
                self.inverse = inverse_fisher(policy.actor, states, phi, policy.config)

    def _part(self, rows: slice) -> Trajectories:
        return Trajectories(*(x[rows] for x in self.data))

    @torch.no_grad()
    def _advantages(self, rows: slice) -> Tensor:
        config = self.policy.config
        return self.policy._advantages(self._part(rows), config.gae_lambda, config.cost_gae_lambda).advantages

    def _fit(self, rows: slice) -> None:
        part = self._part(rows)
        with torch.no_grad():
            returns = self.policy._advantages(part, 1.0, 1.0).returns
        self.policy._fit_critic(part.obs, returns, 256, 10)


def ratio(own: Tensor, truth: Tensor) -> tuple[float, float]:
    """Returns the ratio of the sums over the products ``[N, N]`` of different collects.

    :return: the ratio, and its standard error by a jackknife over the collects.
    """

    def of(kept: np.ndarray) -> float:
        part, apart = np.ix_(kept, kept), ~np.eye(len(kept), dtype=bool)
        return float(own.numpy()[part][apart].sum() / truth.numpy()[part][apart].sum())

    everyone = np.arange(len(own))
    without = np.array([of(np.delete(everyone, i)) for i in everyone])
    return of(everyone), float(np.sqrt((len(everyone) - 1) * without.var()))


if __name__ == "__main__":
    main()
