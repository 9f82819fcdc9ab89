"""Tasks whose best policy within a cost limit is known in closed form, to see whether an algorithm finds it.

The tasks are listed with those of the suites and need no simulator; ``docs/known_optimum.md`` has their
equations and results.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from fsrl_ext.env.contract import CostEnv
from fsrl_ext.errors import checked

HORIZON = 40
"""Steps of an episode of the listed tasks."""
FULL_COST = 10.0
"""Cost of an episode at full throttle, in units of ``cost_scale``."""

KNOWN_OPTIMUM_TASKS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "KnownOptimum-v0": {},
        "KnownOptimumFirstSix-v0": {"window": (0, 6)},
        "KnownOptimumLastSix-v0": {"window": (HORIZON - 6, HORIZON)},
        "KnownOptimumClock-v0": {"clock": True},
        "KnownOptimumNoise-v0": {"noise": True},
        "KnownOptimumLargeRewards-v0": {"noise": True, "reward_scale": 100.0},
        "KnownOptimumSmallRewards-v0": {"noise": True, "reward_scale": 0.01},
        "KnownOptimumLargeCosts-v0": {"noise": True, "cost_scale": 100.0},
        "KnownOptimumSmallCosts-v0": {"noise": True, "cost_scale": 0.01},
        "KnownOptimumLargeObservations-v0": {"noise": True, "obs_scale": 1000.0},
    }
)
"""Ids of the listed tasks, and the arguments of :class:`KnownOptimumEnv` that differ from its defaults."""


class KnownOptimumEnv(CostEnv):
    """Pays for a throttle, and charges for it in the steps of a window.

    The action in [-1, 1] is the throttle ``x = (1 + action) / 2``. Of the ``T`` steps of an episode each pays
    ``reward_scale * (1 - (1 - x)^2)``, and each of the ``n`` steps in the window costs
    ``cost_scale * 10 x / n``, so that an episode at full throttle costs ``10 cost_scale``.

    The observation ``[3]`` is ``obs_scale`` times the clock, the noise, and 1 inside the window or 0 outside.

    :param window: the first step that costs, and the step after the last one; None for all steps.
    :param clock: the observation has ``t / T``, the share of the episode that has passed; otherwise 0.
    :param noise: the observation has a number that each step draws from [-1, 1] and nothing depends on;
        otherwise 0.
    :param reward_scale: factor of all rewards, > 0.
    :param cost_scale: factor of all costs, > 0.
    :param obs_scale: factor of all observations, > 0.
    :param env_id: name of the task.
    :param max_episode_steps: ``T``, after which an episode is truncated.
    :param render_mode: None; there is nothing to draw.
    :param spec: see `CostEnv`.
    :raises ValueError: the window does not lie in the episode or is empty, or a factor is not positive.
    """

    @checked(
        at_least_one=("max_episode_steps",),
        at_least_zero=("window",),
    )
    def __init__(
        self,
        *,
        window: tuple[int, int] | None = None,
        clock: bool = False,
        noise: bool = False,
        reward_scale: float = 1.0,
        cost_scale: float = 1.0,
        obs_scale: float = 1.0,
        env_id: str = "KnownOptimum-v0",
        max_episode_steps: int = HORIZON,
        render_mode: str | None = None,
        spec: EnvSpec | None = None,
    ) -> None:
        first, end = window = (0, max_episode_steps) if window is None else window
        if not 0 <= first < end <= max_episode_steps:
            raise ValueError(f"window must hold steps of 0 to {max_episode_steps}, got {window}")
        scales = {"reward_scale": reward_scale, "cost_scale": cost_scale, "obs_scale": obs_scale}
        for name, scale in scales.items():
            if not 0 < scale < np.inf:
                raise ValueError(f"{name} must be > 0 and finite, got {scale}")
        super().__init__(
            env_id=env_id,
            # Without bounds, so that nothing but the observations themselves tells their scale.
            observation_space=spaces.Box(-np.inf, np.inf, (3,), np.float32),
            action_space=spaces.Box(-1.0, 1.0, (1,), np.float32),
            max_episode_steps=max_episode_steps,
            render_mode=render_mode,
            spec=spec,
        )
        self.window, self.horizon, self.clock, self.noise = window, max_episode_steps, clock, noise
        self.reward_scale, self.cost_scale, self.obs_scale = reward_scale, cost_scale, obs_scale
        self._cost_per_throttle = cost_scale * FULL_COST / (end - first)
        self._t = 0

    def _inside(self) -> bool:
        return self.window[0] <= self._t < self.window[1]

    def _observe(self) -> np.ndarray:
        clock = self.obs_scale * self._t / self.horizon if self.clock else 0.0
        noise = self.obs_scale * (2 * self.np_random.random() - 1) if self.noise else 0.0
        return np.array((clock, noise, self.obs_scale if self._inside() else 0.0), np.float32)

    def _reset(self, seed: int | None) -> tuple[np.ndarray, dict[str, Any]]:
        self._t = 0
        return self._observe(), {}

    def _step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        x = (1 + float(action[0])) / 2
        cost = self._cost_per_throttle * x if self._inside() else 0.0
        reward = self.reward_scale * (1 - (1 - x) ** 2)
        self._t += 1
        return self._observe(), reward, False, False, {"cost": cost}

    def optimum(self, cost_limit: float, discount: float = 1.0) -> tuple[float, float]:
        """Return the throttle inside the window and the return of the best policy within a limit.

        Outside of the window the throttle 1 costs nothing and is best. Inside, rewards are concave and costs
        linear in the throttle, so that one constant throttle which spends the whole limit is best (Jensen's
        inequality). With ``x = min(cost_limit / (10 cost_scale), 1)`` the return is
        ``reward_scale * (T - n + n (1 - (1 - x)^2))``, at the cost ``min(cost_limit, 10 cost_scale)``.

        With a limit on the discounted cost, this is the best policy among those with one throttle inside the
        window, which are all policies that do not see the clock. The mean of ``discount^t`` over the window's
        steps is then a factor of the cost.

        :param cost_limit: limit on the cost of an episode, >= 0.
        :param discount: factor per step of the costs that the limit is on, in [0, 1].
        :raises ValueError: the limit is negative, or the discount is not in [0, 1].
        """
        if cost_limit < 0:
            raise ValueError(f"cost_limit must be >= 0, got {cost_limit}")
        if not 0.0 <= discount <= 1.0:
            raise ValueError(f"discount must be in [0, 1], got {discount}")
        share = float(np.mean(discount ** np.arange(*self.window, dtype=float)))
        full_cost = self.cost_scale * FULL_COST * share
        x = min(cost_limit / full_cost, 1.0) if full_cost > 0.0 else 1.0
        inside = self.window[1] - self.window[0]
        return x, self.reward_scale * (self.horizon - inside * (1 - x) ** 2)


def make_known_optimum(id: str, **kwargs: Any) -> KnownOptimumEnv:
    """Build a listed task.

    :param id: a key of `KNOWN_OPTIMUM_TASKS`.
    :param kwargs: arguments of `KnownOptimumEnv`, which win over those of the task.
    """
    return KnownOptimumEnv(env_id=id, **{**KNOWN_OPTIMUM_TASKS[id], **kwargs})
