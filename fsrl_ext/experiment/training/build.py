"""Where environments, buffers, collectors and policies meet."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch
from tianshou.env import (
    BaseVectorEnv,
    DummyVectorEnv,
    RayVectorEnv,
    ShmemVectorEnv,
    SubprocVectorEnv,
)
from tianshou.policy import BasePolicy

from fsrl_ext.data import AheadCollector, CostCollector, CostVectorReplayBuffer, MetaCollector
from fsrl_ext.env import env_fn, make
from fsrl_ext.env.meta import TaskDescription
from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.registry import policy_entry
from fsrl_ext.experiment.task import TaskSpec, warn_if_episodes_can_end_early


def seed_everything(config: ExperimentConfig) -> None:
    """Seeds Python, NumPy and torch, and sets torch's CPU threads."""
    random.seed(config.seed)
    np.random.seed(config.seed)  # noqa: NPY002 - Tianshou and simulators draw from it
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)


def build_policy(config: ExperimentConfig) -> tuple[BasePolicy, TaskSpec]:
    """A fresh policy for the config's task, and the task's shapes.

    :raises ValueError: if policy, task, limit or device do not go together.
    """
    entry = policy_entry(config.policy)
    try:
        torch.empty(0, device=config.device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"device {config.device!r} cannot be used: {reason}") from error
    env = make(config.env_id)
    try:
        spec = TaskSpec.from_env(env, config.env_id)
        check_costs(env, config.task, config.cost_limit)
        if any(np.isfinite(config.cost_limit)) and config.policy_config.uses_threshold:
            warn_if_episodes_can_end_early(env, config.task)
    finally:
        env.close()
    return entry.build(config, spec), spec


def check_costs(env: gym.Env, task: str, cost_limit: tuple[float, ...]) -> None:
    """One step tells how many costs there are, before anything is written.

    :raises ValueError: if there is not one limit for each.
    """
    env.reset(seed=0)
    cost = env.step(env.action_space.sample())[4]["cost"]
    num_costs = np.size(cost)
    if num_costs != len(cost_limit):
        raise ValueError(
            f"cost_limit must have one number per cost: {task} reports {num_costs}, got {len(cost_limit)}"
        )


def train_collector(policy: BasePolicy, config: ExperimentConfig) -> CostCollector | AheadCollector:
    """Training environments with the replay buffer.

    :raises ImportError: for Ray workers without Ray.
    """
    training = config.training
    size = training.buffer_size
    if policy_entry(config.policy).kind == "on_policy":
        # One collect, in whole vector steps.
        size = -(-training.step_per_collect // config.num_envs) * config.num_envs
    buffer = CostVectorReplayBuffer(
        size,
        config.num_envs,
        num_costs=len(config.cost_limit),
        random_seed=config.seed,
    )
    make_envs = functools.partial(
        train_envs, env_fn(config.task), training.workers, training.worker_type, config.num_envs
    )
    discount = config.policy_config.gamma
    if not training.collect_ahead:
        return CostCollector(policy, make_envs(), buffer, discount=discount, replayable=True)
    # Apart from the seeds of the learner and of the environments.
    seed = int(np.random.SeedSequence([config.seed, 1]).generate_state(1)[0])
    return AheadCollector(policy, make_envs, buffer, seed=seed, discount=discount, replayable=True)


def meta_collector(policy: BasePolicy, config: ExperimentConfig) -> MetaCollector[TaskDescription]:
    """Collects the data of one task of a family after the other."""
    training = config.training

    def make_envs(task: TaskDescription) -> BaseVectorEnv:
        return train_envs(task.env_fn(), training.workers, training.worker_type, config.num_envs)

    return MetaCollector(
        policy,
        make_envs,
        step_per_collect=training.step_per_collect,
        num_envs=config.num_envs,
        num_costs=len(config.cost_limit),
        discount=config.policy_config.gamma,
    )


def train_envs(
    make_env: Callable[[], gym.Env], workers: int, worker_type: str, num_envs: int
) -> BaseVectorEnv:
    """Training environments in this process, or one in each of ``workers`` processes."""
    if not workers:
        return DummyVectorEnv([make_env] * num_envs)
    kinds = {"shmem": ShmemVectorEnv, "subproc": SubprocVectorEnv, "ray": RayVectorEnv}
    return kinds[worker_type]([make_env] * workers)


def test_collector(
    policy: BasePolicy,
    config: ExperimentConfig,
    spec: TaskSpec,
    *,
    episodes: int,
    make_env: Callable[[], gym.Env],
) -> CostCollector:
    """Environments for test episodes: at most ten, and as many as divide ``episodes``.

    :param make_env: builds one of them.
    """
    num_envs = next(n for n in range(min(episodes, 10), 0, -1) if episodes % n == 0)
    buffer = CostVectorReplayBuffer(
        num_envs * (spec.max_episode_steps + 1), num_envs, num_costs=len(config.cost_limit)
    )
    return CostCollector(policy, DummyVectorEnv([make_env] * num_envs), buffer)
