"""Environments that have a process to themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from fsrl_ext.data.randomness import seed_globals
from fsrl_ext.data.remote_errors import RemoteError
from fsrl_ext.errors import check_reset, check_step

FAILURE = "fsrl_ext.failure"
"""Key of the info under which a worker's answer has the exception that the environment raised."""


class SeededProcess(gym.Wrapper):
    """Seeds the global generators of its process at every reset that has a seed, and answers with exceptions.

    A new process has generators that no seed determines, or copies of those of the process that it was forked
    from. An environment that draws from them, and not from its own ``np_random`` alone, would differ between
    two runs of a seed, or be the same as its neighbours. Only an environment that has a process to itself may
    have this wrapper.

    An exception would end the process. The wrapper returns it in the info instead, and
    :class:`~fsrl_ext.data.env_calls.EnvWorkers` raises it in the process that asked, with its traceback.
    """

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environment; see Gymnasium."""
        try:
            if seed is not None:
                seed_globals(seed)
            answer = self.env.reset(seed=seed, options=options)
            check_reset(answer)
            self._check_shape(answer[0])
        except Exception as error:  # of any kind: the process that asked raises it
            return None, {FAILURE: RemoteError.of(error)}
        return answer

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment; see Gymnasium."""
        try:
            answer = self.env.step(action)
            check_step(answer)
            self._check_shape(answer[0])
        except Exception as error:  # of any kind: the process that asked raises it
            return None, 0.0, False, False, {FAILURE: RemoteError.of(error)}
        return answer

    def _check_shape(self, obs: Any) -> None:
        """:raises ValueError: the observation would not fit into the memory that processes share."""
        space = self.observation_space
        if isinstance(space, gym.spaces.Box) and np.shape(obs) != space.shape:
            raise ValueError(
                f"an observation must have shape {list(space.shape)} like the observation space, "
                f"got {list(np.shape(obs))}"
            )


@dataclass(frozen=True)
class WorkerEnvFn:
    """Builds an environment for a process of its own; it can be pickled if ``make_env`` can."""

    make_env: Callable[[], gym.Env]

    def __call__(self) -> gym.Env:
        """Build the environment."""
        return SeededProcess(self.make_env())
