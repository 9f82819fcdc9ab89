"""A task other than the one that a policy was trained on: what it is, and whether the policy fits it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from fsrl_ext.env import env_fn, make_joint
from fsrl_ext.env.builders import EnvFn
from fsrl_ext.env.meta import TaskDescription, find_family, list_families
from fsrl_ext.errors import CostCountError
from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.task import TaskSpec
from fsrl_ext.experiment.training.build import check_costs
from fsrl_ext.experiment.training_config import named


@dataclass(frozen=True)
class ChosenTask:
    """An environment's id, the seed that draws a family's task, and names of costs as in training."""

    id: str
    task_seed: int | None = None
    costs: tuple[str, ...] | None = None

    @classmethod
    def of(cls, task: str | TaskDescription, task_seed: int | None = None) -> ChosenTask:
        """The task of an id or of a description; a family's task has the seed 0 if none is given.

        :raises ValueError: for a task seed beside a description, which has its own, or for a task that is no
            family's.
        """
        if isinstance(task, TaskDescription):
            if task_seed is not None:
                raise ValueError(f"task_seed must be None for a TaskDescription, got {task_seed!r}")
            return cls(task.id, task.task_seed)
        families = [find_family(name) for name in list_families()]
        if task in {family.id(level) for family in families for level in family.levels}:
            return cls(task, 0 if task_seed is None else task_seed)
        if task_seed is not None:
            raise ValueError(
                f"task_seed must be None for {task}, which is no family's task, got {task_seed!r}"
            )
        return cls(task)

    def __str__(self) -> str:
        return self.id if self.task_seed is None else f"{self.id}, task seed {self.task_seed}"

    def make(self, render_mode: str | None = None, **kwargs: Any) -> gym.Env:
        """One environment of the task."""
        return make_joint(self.id, render_mode, **self._arguments(), **kwargs)

    def env_fn(self, **kwargs: Any) -> EnvFn:
        """What makes environments of the task in vectorised ones."""
        return env_fn(self.id, **self._arguments(), **kwargs)

    def with_costs_of(self, config: ExperimentConfig) -> ChosenTask:
        """The task with the costs that a policy was trained with."""
        return dataclasses.replace(self, costs=config.costs)

    def _arguments(self) -> dict[str, Any]:
        seeded = {} if self.task_seed is None else {"task_seed": self.task_seed}
        return {**seeded, **named(self.costs)}

    def check(
        self, trained_on: TaskSpec, config: ExperimentConfig, limit: tuple[float, ...]
    ) -> tuple[TaskSpec, dict[str, Any]]:
        """Checks that a policy fits the task; returns the task's shapes and drawn parameters.

        :param trained_on: shapes of the task that the policy was trained on.
        :param config: of that training.
        :param limit: what the policy is to be judged by, one number per cost.
        :raises ValueError: if shapes or costs differ.
        """
        env = self.make(**config.training.env_arguments)
        try:
            spec = TaskSpec.from_env(env, self.id)
            parameters = dict(getattr(env.unwrapped, "task_parameters", {}))
            shape, trained_shape = _obs_shape(spec), _obs_shape(trained_on)
            if (shape, spec.act_dim) != (trained_shape, trained_on.act_dim):
                raise ValueError(
                    f"task must have observations and actions as in training: {self.id} has {shape} "
                    f"and [{spec.act_dim}], {config.task} has {trained_shape} and [{trained_on.act_dim}]"
                )
            if _dims(spec) != _dims(trained_on):
                raise ValueError(
                    f"task must divide observations and actions among agents as in training: {self.id} has "
                    f"{_dims(spec)}, {config.task} has {_dims(trained_on)}"
                )
            bounds, trained_bounds = (
                np.array([x.action_low, x.action_high], dtype=np.float32) for x in (spec, trained_on)
            )
            first, trained_first = (x.num_actions and x.first_action for x in (spec, trained_on))
            if not np.array_equal(bounds, trained_bounds) or first != trained_first:
                raise ValueError(
                    f"task must have actions within the same bounds as in training: {self.id} has "
                    f"{spec.action_space}, {config.task} has {trained_on.action_space}"
                )
            if len(limit) != len(config.cost_limit):
                raise CostCountError(
                    f"cost_limit must have one number per cost: {config.task} has {len(config.cost_limit)}, "
                    f"got {len(limit)}"
                )
            check_costs(env, self.id, limit)
        finally:
            env.close()
        return spec, parameters


def _obs_shape(spec: TaskSpec) -> list[int]:
    """The shape of an observation."""
    return [spec.obs_dim] if spec.image_shape is None else list(spec.image_shape)


def _dims(spec: TaskSpec) -> str:
    """The agents' observations and actions, in words."""
    if spec.team is None:
        return "one agent"
    return f"observations {list(spec.team.obs_dims)} and actions {list(spec.team.act_dims)}"


def other_task(task: str | TaskDescription | None, task_seed: int | None) -> ChosenTask | None:
    """The task of the arguments; ``None`` for the task of the training.

    :raises ValueError: for a task seed without a task, or one that the task does not take.
    """
    if task is not None:
        return ChosenTask.of(task, task_seed)
    if task_seed is not None:
        raise ValueError(f"task_seed needs a task that it draws, got {task_seed!r} alone")
    return None
