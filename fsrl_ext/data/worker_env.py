"""Environments that have a process to themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from fsrl_ext.data.randomness import seed_globals


class SeededProcess(gym.Wrapper):
    """Seeds the global generators of its process at every reset that has a seed.

    A new process has generators that no seed determines, or copies of those of the process that it was forked
    from. An environment that draws from them, and not from its own ``np_random`` alone, would differ between
    two runs of a seed, or be the same as its neighbours. Only an environment that has a process to itself may
    have this wrapper.
    """

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environment; see Gymnasium."""
        if seed is not None:
            seed_globals(seed)
        return self.env.reset(seed=seed, options=options)


@dataclass(frozen=True)
class WorkerEnvFn:
    """Builds an environment for a process of its own; it can be pickled if ``make_env`` can."""

    make_env: Callable[[], gym.Env]

    def __call__(self) -> gym.Env:
        """Build the environment."""
        return SeededProcess(self.make_env())
