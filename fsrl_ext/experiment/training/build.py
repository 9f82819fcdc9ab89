"""Where environments, buffers, collectors and policies meet."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from tianshou.env import DummyVectorEnv
from tianshou.policy import BasePolicy

from fsrl_ext.data import CostCollector, CostVectorReplayBuffer
from fsrl_ext.data.env_workers import build_vector
from fsrl_ext.data.randomness import seed_globals
from fsrl_ext.env import make_joint
from fsrl_ext.errors import CostCountError
from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.defaults import TUNED
from fsrl_ext.experiment.explained import explained_defaults
from fsrl_ext.experiment.registry import algorithm, algorithms
from fsrl_ext.experiment.task import TaskSpec
from fsrl_ext.experiment.training.image_task import (
    check_is_recurrent,
    check_network,
    check_sees_images,
)
from fsrl_ext.experiment.training_config import TrainCollector, named
from fsrl_ext.net import (
    AgentActors,
    FeatureActor,
    FeatureCritic,
    FeatureValueCritic,
    SharedFeatureCritic,
)

MAX_TEST_ENVS = 10
"""Environments that test episodes run in side by side, at most."""


def seed_everything(config: ExperimentConfig) -> None:
    """Seeds Python, NumPy and torch, and sets torch's CPU threads."""
    seed_globals(config.seed)
    torch.set_num_threads(config.threads)


def build_policy(config: ExperimentConfig) -> tuple[BasePolicy, TaskSpec]:
    """A fresh policy for the config's task, and the task's shapes.

    :raises ValueError: if policy, task, limit or device do not go together.
    """
    check_device(config.device)
    spec = check_task(config)
    _check_memory(config, spec)
    policy = fresh_policy(config, spec)
    _check_own_networks(config, policy)
    check_sees_images(config, spec, policy)
    check_is_recurrent(config, policy)
    if spec.team is not None and not isinstance(getattr(policy, "actor", None), AgentActors):
        raise ValueError(
            f"{config.policy} cannot train {config.task}, which has {len(spec.team.names)} agents: its "
            "networks do not tell agents apart (fsrl_ext.experiment.build_actor makes actors that do)"
        )
    return policy, spec


def _check_own_networks(config: ExperimentConfig, policy: BasePolicy) -> None:
    """:raises ValueError: if the algorithm does not use a network that is set; other packages bring some."""
    for name, kinds in (
        ("actor", (FeatureActor,)),
        ("critic", (FeatureCritic, FeatureValueCritic, SharedFeatureCritic)),
    ):
        path = getattr(config.training, name)
        if path is not None and not any(isinstance(x, kinds) for x in policy.modules()):
            raise ValueError(f"{name} must be none for {config.policy}, which builds its own, got {path}")


def check_task(config: ExperimentConfig) -> TaskSpec:
    """The shapes of the config's task, which is built once and takes one step.

    :raises ValueError: if the task and the settings do not go together.
    :raises ImportError: for a suite that is not installed.
    """
    env = make_joint(config.env_id, **config.env_arguments)
    try:
        spec = TaskSpec.from_env(env, config.env_id)
        check_actions(config, spec)
        check_network(config, spec)
        names = check_costs(env, config.task, config.cost_limit)
    finally:
        env.close()
    if spec.team is None:
        for name, value, only in (
            ("agents", config.training.agents, "shared"),
            ("cost_unit", config.training.cost_unit, "team"),
        ):
            if value != only:
                raise ValueError(
                    f"{name} must be {only!r} for {config.task}, which has one agent, got {value!r}"
                )
    return dataclasses.replace(spec, cost_names=names)


def check_actions(config: ExperimentConfig, spec: TaskSpec) -> None:
    """Checks that the algorithm can learn discrete actions, if the task has them.

    :raises ValueError: naming the algorithms that can.
    """
    if spec.num_actions is None or algorithm(config.policy).takes_discrete_actions:
        return
    able = [name for name, row in algorithms().items() if row.takes_discrete_actions]
    raise ValueError(
        f"{config.policy} cannot train {config.task}: {config.env_id} has the action space "
        f"{spec.action_space}, and {config.policy} needs a bounded Box; discrete actions are for "
        f"{', '.join(able)}"
    )


def check_effects(config: ExperimentConfig, spec: TaskSpec) -> None:
    """Checks that no setting was changed that has no effect on the discrete actions of a task.

    Runs that began go on without this check.

    :raises ValueError: naming the first setting that differs from the defaults, or from the preset that the
        settings are nearest to.
    """
    row = algorithm(config.policy)
    if spec.num_actions is None or not row.continuous_only:
        return
    values = {**vars(config.policy_config), **vars(config.training)}
    presets = [explained_defaults(config.policy, config.task, preset=x) for x in (TUNED, *row.presets)]
    changes = [
        {name: preset[name].value for name in row.continuous_only if values[name] != preset[name].value}
        for preset in presets
    ]
    for name, usual in min(changes, key=len).items():
        raise ValueError(
            f"{name} must be {usual!r} for {config.task}, because {config.policy} does not use it with "
            f"discrete actions, got {values[name]!r}"
        )


def check_device(device: str) -> None:
    """Checks that networks can compute on a device.

    :raises ValueError: naming the device and torch's reason.
    """
    try:
        if torch.device(device).type == "meta":
            raise RuntimeError("a meta device holds no numbers")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = " ".join(str(error).strip().splitlines()[0].split())
        raise ValueError(
            f"device {device!r} cannot be used: {reason}; 'cpu' is there on every machine"
        ) from error


def _check_memory(config: ExperimentConfig, spec: TaskSpec) -> None:
    """Checks that the machine gives memory for networks, data and batches, which it does not hold then.

    :raises ValueError: naming the setting that asks for too much.
    """
    training: Any = config.training
    # four pixels take the memory of one number
    obs_dim = spec.obs_dim if spec.image_shape is None else spec.obs_dim // 4
    row = 2 * obs_dim + spec.act_dim + 2 + len(config.cost_limit)
    sizes = {
        "buffer_size": getattr(training, "buffer_size", 0) * row,
        "step_per_collect": 0 if hasattr(training, "buffer_size") else training.step_per_collect * row,
        "batch_size": getattr(training, "batch_size", 0) * row,
        "num_samples": getattr(config.policy_config, "num_samples", 0) * getattr(training, "batch_size", 0),
    }
    members = max(getattr(training, "reward_ensemble", 1), getattr(training, "cost_ensemble", 1))
    for name in ("hidden_sizes", "critic_hidden_sizes"):
        widths = (obs_dim, *(getattr(training, name) or ()), 1)
        sizes[name] = members * max(a * b for a, b in pairwise(widths))
    gru_size = getattr(training, "gru_size", 1)
    sizes["gru_size"] = 3 * gru_size * (obs_dim + gru_size)
    for name, numbers in sizes.items():
        try:
            np.empty(numbers, dtype=np.float32)
        except (MemoryError, ValueError, OverflowError) as error:
            value = getattr(training, name, None) or getattr(config.policy_config, name)
            raise ValueError(
                f"{name} must be smaller, because this machine has no memory for {numbers:.2g} numbers, "
                f"got {value}"
            ) from error


def fresh_policy(config: ExperimentConfig, spec: TaskSpec) -> BasePolicy:
    """A policy with fresh networks on the config's device, for a task of these shapes."""
    return algorithm(config.policy).build(
        spec,
        config=config.policy_config,
        training=config.training,
        cost_limit=config.cost_limit,
        device=config.device,
    )


def check_costs(env: gym.Env, task: str, cost_limit: tuple[float, ...]) -> tuple[str, ...] | None:
    """Checks by one step that there is one limit for each cost of the task.

    :return: the names of the costs; ``None`` for costs without names.
    :raises CostCountError: naming both numbers, and the costs if they have names.
    """
    env.reset(seed=0)
    cost = env.step(env.action_space.sample())[4]["cost"]
    num_costs = np.size(cost)
    names = getattr(env, "cost_names", None)
    if num_costs != len(cost_limit):
        which = f" ({', '.join(names)})" if names else ""
        raise CostCountError(
            f"cost_limit must have one number per cost: {task} reports {num_costs}{which}, "
            f"got {len(cost_limit)}"
        )
    return names


def train_collector(policy: BasePolicy, config: ExperimentConfig, *, cores: int = 1) -> TrainCollector:
    """The collector of a run's training data, as the algorithm's training class makes it.

    :param cores: that the run uses.
    :raises ImportError: for Ray workers without Ray.
    """
    return config.training.collector(
        policy,
        config.task,
        num_costs=len(config.cost_limit),
        discount=discounts(config),
        seed=config.seed,
        cores=cores,
        **named(config.costs),
    )


def discounts(config: ExperimentConfig) -> float | tuple[float, ...]:
    """The discount of return and costs in the statistics of a run; one for each of them if they differ."""
    gamma, of_costs = config.policy_config.gamma, config.policy_config.discount_of_costs
    return gamma if of_costs == gamma else (gamma, *[of_costs] * len(config.cost_limit))


def test_envs(config: ExperimentConfig, episodes: int) -> int:
    """The number of environments that play ``episodes`` test episodes of a run side by side.

    A batch's size can show in the last bits of an action, so selections, final evaluations and evaluations of
    the saved policy have the same number where the numbers of episodes allow that.
    """
    both = math.gcd(config.selection_episodes, episodes)
    return _largest_divisor(both, config.selection_min_episodes)


def _largest_divisor(episodes: int, most: int) -> int:
    return next(n for n in range(min(episodes, most, MAX_TEST_ENVS), 0, -1) if episodes % n == 0)


def test_collector(
    policy: BasePolicy,
    config: ExperimentConfig,
    spec: TaskSpec,
    *,
    episodes: int,
    make_env: Callable[[], gym.Env],
) -> CostCollector:
    """A collector of test episodes, with at most ten environments and as many as divide ``episodes``.

    :param make_env: makes one environment.
    """
    num_envs = _largest_divisor(episodes, MAX_TEST_ENVS)
    buffer = CostVectorReplayBuffer(
        num_envs * (spec.max_episode_steps + 1), num_envs, num_costs=len(config.cost_limit)
    )
    envs = build_vector(DummyVectorEnv, [make_env] * num_envs)
    return CostCollector(policy, envs, buffer, discount=discounts(config))
