"""A wrapper of a vectorised environment that reads ``info["cost"]`` of every step.

Tianshou turns the infos of a step into one ``Batch``. That takes longer than many policies, and it fills a
key that one environment does not report with 0, so a missing cost would read as "safe". The wrapper reads the
costs from the dictionaries, before Tianshou sees them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tianshou.env import BaseVectorEnv, DummyVectorEnv, VectorEnvWrapper
from tianshou.env.utils import gym_new_venv_step_type

from fsrl_ext.data.action_boxes import ActionSpaces
from fsrl_ext.data.errors import check_finite
from fsrl_ext.data.history import EnvHistory


class CostVectorEnv(VectorEnvWrapper):
    """Reads the costs of each step; ``R`` environments step, each with ``C`` costs.

    After a step, ``ids [R]`` holds the environments that stepped and ``cost [R, C]`` (float64) their costs.
    What an environment receives lies in its action space and has its dtype, if that is a ``Box`` of
    floating-point numbers.

    :param venv: the environments; each reports ``info["cost"]`` at each step, a number or ``C`` numbers.
    :param num_costs: number of costs ``C``.
    :param pass_info: hand the infos on; otherwise they are replaced by None.
    """

    def __init__(self, venv: BaseVectorEnv, num_costs: int, pass_info: bool = False) -> None:
        super().__init__(venv)
        self.num_costs = num_costs
        self.pass_info = pass_info
        spaces = venv.action_space
        self.action_spaces = ActionSpaces(spaces if isinstance(spaces, list) else [spaces] * len(venv))
        """One for each environment; a reset with a seed seeds it, too."""
        self._in_process = type(venv) is DummyVectorEnv
        self.steps = 0
        """Steps of all environments together, since the last reset of the collector's counters."""
        self.ids = np.array([], dtype=int)
        self.cost = np.zeros((0, num_costs))
        self.history: EnvHistory | None = None
        """If given, it notes the seeds, actions and resets of every environment."""
        self._workers = venv.workers if self._in_process else []

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
        :raises ValueError: there is not one seed per environment.
        """
        ids = np.arange(len(self)) if env_id is None else np.atleast_1d(np.asarray(env_id))
        if self.history is not None:
            kwargs = self.history.reset(ids, kwargs)
        seeds = kwargs.get("seed")
        if seeds is None or np.ndim(seeds) == 0:
            self.action_spaces.seed(ids, [seeds] * len(ids))
            obs, infos = self.venv.reset(env_id, **kwargs)
        else:
            # Tianshou hands the same arguments to every environment, so each is reset on its own.
            if len(seeds) != len(ids):
                raise ValueError(f"seed must have {len(ids)} entries, got {len(seeds)}")
            self.action_spaces.seed(ids, seeds)
            each = [
                self.venv.reset(int(i), **{**kwargs, "seed": None if s is None else int(s)})
                for i, s in zip(ids, seeds, strict=True)
            ]
            obs = np.concatenate([o for o, _ in each])
            infos = np.concatenate([i for _, i in each])
        check_finite("obs", obs, ids, self.steps)
        return obs, self._outgoing(infos)

    def seed(self, seed: int | list[int] | None = None) -> list[list[int] | None]:
        """Seed the environments, see Tianshou, and the spaces that random actions are drawn from."""
        ids = np.arange(len(self))
        if isinstance(seed, list):
            self.action_spaces.seed(ids, seed)
        elif seed is not None:
            self.action_spaces.seed(ids, seed + ids)
        return self.venv.seed(seed)

    def step(
        self,
        action: np.ndarray | torch.Tensor | None,
        id: int | list[int] | np.ndarray | None = None,
    ) -> gym_new_venv_step_type:
        """Step some environments (default: all) and read their costs.

        :raises NonFiniteStepError: an action holds NaN or infinity (the environments did not step).
        :raises ValueError: an environment reports no cost or not ``C`` numbers.
        """
        ids = np.arange(len(self)) if id is None else np.atleast_1d(np.asarray(id))
        check_finite("act", action, ids, self.steps)
        action = self.action_spaces.fit(action, ids)
        if self._in_process and len(ids):
            obs, rew, terminated, truncated, infos = self._step_in_process(action, ids)
        else:
            obs, rew, terminated, truncated, infos = self.venv.step(action, id)
        if self.history is not None:
            self.history.step(ids, action)
        self.ids, self.cost = ids, read_costs(infos, ids, self.num_costs)
        self.steps += len(ids)
        return obs, rew, terminated, truncated, self._outgoing(infos)

    def _step_in_process(self, action: Any, ids: np.ndarray) -> tuple[np.ndarray, ...]:
        """Do what ``DummyVectorEnv.step`` does, without messages to workers that are no processes.

        ``benchmarks/throughput.py collect`` measures it, as part of both of our collectors.
        """
        workers = self._workers
        results = [workers[i].env.step(a) for i, a in zip(ids.tolist(), action, strict=True)]
        obs, rew, terminated, truncated, infos = zip(*results, strict=True)
        if self.pass_info:
            for info, env_id in zip(infos, ids, strict=True):
                info["env_id"] = env_id
        kept = np.empty(len(infos), dtype=object)
        kept[:] = infos
        return _stack(obs), np.array(rew), np.array(terminated), np.array(truncated), kept

    def _outgoing(self, infos: np.ndarray) -> np.ndarray:
        return infos if self.pass_info else np.full(len(infos), None)


def _stack(rows: Sequence[Any]) -> np.ndarray:
    """Make one array of all observations, an array of objects where their shapes differ."""
    try:
        stacked = np.array(rows)
    except ValueError:
        stacked = np.array(rows, dtype=object)
    return stacked


def read_costs(infos: np.ndarray, ids: np.ndarray, num_costs: int) -> np.ndarray:
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


def _check_cost(info: dict[str, Any], env_id: int, num_costs: int) -> None:
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
