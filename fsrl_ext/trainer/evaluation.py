"""Episodes on given seeds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from tianshou.policy import BasePolicy

from fsrl_ext.data import CostCollector
from fsrl_ext.trainer.selection import Evaluation


@contextlib.contextmanager
def _private_randomness(seed: int) -> Iterator[None]:
    """Gives the block its own torch randomness, so that testing never changes a training run."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def evaluate_policy(
    collector: CostCollector,
    seeds: Sequence[int],
    *,
    cost_limit: tuple[float, ...],
    env_step: int = 0,
    stochastic: bool = False,
) -> Evaluation:
    """Runs one episode for each seed with the collector's policy.

    Episodes run in groups of the collector's number of environments; what an environment does depends on its
    seed alone, not on the group.

    :param collector: its buffer is cleared.
    :param seeds: one environment seed per episode.
    :param cost_limit: one number per cost.
    :param env_step: noted in the result.
    :param stochastic: sample actions instead of taking the deterministic ones.
    :return: returns ``[episodes]`` and costs ``[episodes, C]``.
    :raises ValueError: if the episodes do not fill whole groups.
    """
    if not seeds or len(seeds) % collector.env_num:
        raise ValueError(
            f"seeds must be a multiple of the {collector.env_num} environments, got {len(seeds)}"
        )
    policy: BasePolicy = collector.policy
    was_training_step = policy.is_within_training_step
    num_envs = collector.env_num
    returns, costs = [], []
    policy.is_within_training_step = stochastic
    try:
        with _private_randomness(int(seeds[0])):
            for start in range(0, len(seeds), num_envs):
                group = list(seeds[start : start + num_envs])
                collector.reset(gym_reset_kwargs={"seed": group})
                stats = collector.collect(n_episode=len(group))
                returns.append(stats.returns)
                costs.append(stats.costs)
    finally:
        policy.is_within_training_step = was_training_step
    return Evaluation(
        env_step=env_step,
        returns=np.concatenate(returns),
        costs=np.concatenate(costs),
        cost_limit=cost_limit,
    )
