"""A wrapper of a vectorised environment that reads ``info["cost"]`` of every step.

Tianshou turns the infos of a step into one ``Batch``. That takes longer than many policies, and it fills a
key that one environment does not report with 0, so a missing cost would read as "safe". The wrapper reads the
costs from the dictionaries, before Tianshou sees them.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from tianshou.env import BaseVectorEnv, VectorEnvWrapper
from tianshou.env.utils import gym_new_venv_step_type

from fsrl_ext.data.action_boxes import ActionSpaces
from fsrl_ext.data.env_calls import EnvWorkers, raise_failures
from fsrl_ext.data.errors import check_finite
from fsrl_ext.data.history import EnvHistory
from fsrl_ext.data.seeds import restart_seeds


class CostVectorEnv(VectorEnvWrapper):
    """Reads the costs of each step; ``R`` environments step, each with ``C`` costs.

    After a step, ``ids [R]`` holds the environments that stepped and ``cost [R, C]`` (float64) their costs.
    What an environment receives lies in its action space and has its dtype, if that is a ``Box`` of
    floating-point numbers. Nothing that the wrapper returns or keeps changes when an environment changes its
    action, or what it returned, afterwards.

    After an exception of an environment its random numbers are in an unknown state. If it was seeded before,
    its next reset therefore has a new seed, which follows from the former ones.

    :param venv: the environments; each reports ``info["cost"]`` at each step, a number or ``C`` numbers.
    :param num_costs: number of costs ``C``.
    :param pass_info: hand the infos on; otherwise they are replaced by None.
    :raises ValueError: two environments are one object.
    """

    def __init__(self, venv: BaseVectorEnv, num_costs: int, pass_info: bool = False) -> None:
        super().__init__(venv)
        self.num_costs = num_costs
        self.pass_info = pass_info
        self._workers = EnvWorkers(venv)
        spaces = venv.action_space
        self.action_spaces = ActionSpaces(spaces if isinstance(spaces, list) else [spaces] * len(venv))
        """One for each environment; a reset with a seed seeds it, too."""
        self.steps = 0
        """Steps of all environments together, since the last reset of the collector's counters."""
        self.ids = np.array([], dtype=int)
        self.cost = np.zeros((0, num_costs))
        self.history: EnvHistory | None = None
        """If given, it notes the seeds, actions and resets of every environment."""
        self._seeds: list[int | None] = [None] * len(venv)
        self._failed: set[int] = set()
        self._obs_shape: tuple[int, ...] | None = None
        self._is_open = True

    def __getattr__(self, key: str) -> Any:
        # A wrapped environment may offer more than BaseVectorEnv has, for example `get_obs_rms`.
        if key == "venv":
            raise AttributeError(key)
        return getattr(self.venv, key)

    def reset(
        self, env_id: int | list[int] | np.ndarray | None = None, **kwargs: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """Reset some environments (default: all).

        :param kwargs: passed to each environment; ``seed`` may be a sequence with one seed for each.
        :return: initial observations ``[R, ...]`` and infos ``[R]`` (None without ``pass_info``).
        :raises NonFiniteStepError: an initial observation holds NaN or infinity.
        :raises ValueError: there is not one seed per environment, an observation has another shape than those
            before, or a reset returned no info.
        :raises RuntimeError: the environments are closed.
        """
        self._check_open()
        ids = np.arange(len(self)) if env_id is None else np.atleast_1d(np.asarray(env_id))
        try:
            obs, infos = self._reset(ids, kwargs)
        except BaseException:
            self._fail(ids)
            raise
        check_finite("obs", obs, ids, self.steps)
        return obs, self._outgoing(infos, ids)

    def _reset(self, ids: np.ndarray, kwargs: dict[str, Any]) -> tuple[np.ndarray, Sequence[Any]]:
        kwargs = self._with_new_seeds(ids, kwargs)
        if self.history is not None:
            kwargs = self.history.reset(ids, kwargs)
        seeds = kwargs.get("seed")
        if seeds is None or np.ndim(seeds) == 0:
            each = [seeds] * len(ids)
        elif len(seeds) == len(ids):
            each = [None if s is None else int(s) for s in seeds]
        else:
            raise ValueError(f"seed must have {len(ids)} entries, got {len(seeds)}")
        arguments = [{**kwargs, "seed": s} if "seed" in kwargs else dict(kwargs) for s in each]
        self.action_spaces.seed(ids, each)
        for i, s in zip(ids.tolist(), each, strict=True):
            if s is not None:
                self._seeds[i] = int(s)
        if self._workers.can_call:
            answers = self._workers.reset(ids.tolist(), arguments)
            rows, infos = [row for row, _ in answers], [info for _, info in answers]
        else:
            self._workers.renew(ids.tolist())
            alike = len(set(each)) == 1
            calls = [(ids, arguments[0])] if alike else zip(ids[:, None], arguments, strict=True)
            parts = [self.venv.reset(some, **entry) for some, entry in calls]
            rows, infos = [row for obs, _ in parts for row in obs], [x for _, part in parts for x in part]
            raise_failures(ids.tolist(), infos)
        self._failed.difference_update(ids.tolist())
        return self._stack(rows, ids), infos

    def _with_new_seeds(self, ids: np.ndarray, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Add seeds for environments whose last call failed, if they were seeded before and are not now."""
        failed = self._failed.intersection(ids.tolist())
        if not failed or kwargs.get("seed") is not None:
            return kwargs
        new = restart_seeds(self.steps, self._seeds, len(self))
        seeds = [new[i] if i in failed and self._seeds[i] is not None else None for i in ids.tolist()]
        return {**kwargs, "seed": seeds} if any(s is not None for s in seeds) else kwargs

    def seed(self, seed: int | list[int] | None = None) -> list[list[int] | None]:
        """Seed the environments, see Tianshou, and the spaces that random actions are drawn from."""
        ids = np.arange(len(self))
        seeds = seed if isinstance(seed, list) or seed is None else (seed + ids).tolist()
        if seeds is not None:
            self.action_spaces.seed(ids, seeds)
            self._seeds = list(seeds)
        return self.venv.seed(seed)

    def step(
        self,
        action: np.ndarray | torch.Tensor | None,
        id: int | list[int] | np.ndarray | None = None,
    ) -> gym_new_venv_step_type:
        """Step some environments (default: all) and read their costs.

        :raises NonFiniteStepError: an action holds NaN or infinity (the environments did not step).
        :raises ValueError: an environment reports no cost or not ``C`` numbers, returned something else than
            five values, or an observation of another shape than those before.
        :raises RuntimeError: the environments are closed.
        """
        self._check_open()
        ids = np.arange(len(self)) if id is None else np.atleast_1d(np.asarray(id))
        check_finite("act", action, ids, self.steps)
        action = self.action_spaces.fit(action, ids)
        # An environment may change the action that it is given.
        given = deepcopy(action)
        try:
            if self._workers.can_call and len(ids):
                answers = self._workers.step(ids.tolist(), given)
            else:
                answers = list(zip(*self.venv.step(given, id), strict=True))
                raise_failures(ids.tolist(), [answer[-1] for answer in answers])
            if self.history is not None:
                self.history.step(ids, action)
        except BaseException:
            self._fail(ids)
            raise
        rows, rew, terminated, truncated, infos = zip(*answers, strict=True)
        obs = self._stack(rows, ids)
        self.ids, self.cost = ids, read_costs(infos, ids, self.num_costs)
        self.steps += len(ids)
        ends = np.array(terminated), np.array(truncated)
        return obs, np.array(rew), *ends, self._outgoing(infos, ids)

    def close(self) -> None:
        """Close the environments and give back what their processes used; may be called again."""
        if not self._is_open:
            return
        self._is_open = False
        self._workers.close()
        if not self._workers.closed:
            self.venv.close()

    def _check_open(self) -> None:
        if not self._is_open:
            raise RuntimeError("the environments are closed")

    def _fail(self, ids: np.ndarray) -> None:
        """Note that a call of the environments ``ids [R]`` failed."""
        self._failed.update(ids.tolist())
        if not self._workers.can_call:
            self._workers.lose(ids.tolist())

    def _outgoing(self, infos: Sequence[Any], ids: np.ndarray) -> np.ndarray:
        """Return the infos ``[R]`` with the number of each one's environment, or None for each."""
        outgoing = np.full(len(infos), None)
        if self.pass_info:
            outgoing[:] = [{**info, "env_id": int(i)} for info, i in zip(infos, ids, strict=True)]
        return outgoing

    def _stack(self, rows: Sequence[Any], ids: np.ndarray) -> np.ndarray:
        """Make one new array ``[R, ...]`` of observations, an array of objects where they are no arrays.

        :raises ValueError: the shape is not that of the first reset.
        """
        try:
            stacked = np.array(rows)
        except ValueError:  # of different shapes
            stacked = np.empty(len(rows), dtype=object)
            stacked[:] = rows
        if self._obs_shape is None and stacked.dtype == object:
            return deepcopy(stacked)
        if self._obs_shape is None:
            self._obs_shape = stacked.shape[1:]
        if stacked.shape[1:] != self._obs_shape:
            i, row = next((i, x) for i, x in zip(ids, rows, strict=True) if np.shape(x) != self._obs_shape)
            raise ValueError(
                f"environment {i} returned an observation of shape {list(np.shape(row))}, "
                f"but those before had {list(self._obs_shape)}"
            )
        return stacked


def read_costs(infos: Sequence[Mapping[str, Any]], ids: np.ndarray, num_costs: int) -> np.ndarray:
    """Return the costs ``[R, C]`` (float64) in the info dictionaries ``[R]`` of the environments ``ids``.

    :raises ValueError: a cost is missing, is not numeric, or does not have ``C`` entries; the message names
        the environment.
    """
    try:
        costs = np.array([info["cost"] for info in infos], dtype=np.float64)
    except (KeyError, TypeError, ValueError):
        costs = None
    if costs is not None and num_costs == 1 and costs.shape == (len(infos),):
        return costs[:, None]
    if costs is not None and costs.shape == (len(infos), num_costs):
        return costs
    for info, env_id in zip(infos, ids, strict=True):
        _check_cost(info, int(env_id), num_costs)
    # Each is right by itself: there are numbers and arrays of one entry side by side.
    return np.array([np.reshape(info["cost"], num_costs) for info in infos], dtype=np.float64)


def _check_cost(info: Mapping[str, Any], env_id: int, num_costs: int) -> None:
    if "cost" not in info:
        raise ValueError(
            f"environment {env_id} reports no info['cost'] (its keys: {sorted(info)}); "
            "a constrained problem needs the cost of every step"
        )
    try:
        shape = np.asarray(info["cost"], dtype=np.float64).shape
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"info['cost'] of environment {env_id} must be a number or {num_costs} numbers, "
            f"got {info['cost']!r}"
        ) from error
    if shape != (num_costs,) and not (num_costs == 1 and shape == ()):
        raise ValueError(
            f"info['cost'] of environment {env_id} must have num_costs={num_costs} entries, got shape {shape}"
        )
