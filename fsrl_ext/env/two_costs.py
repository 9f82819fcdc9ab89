"""A task with two named costs whose best policy within both limits is known in closed form."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from fsrl_ext.env.contract import CostEnv
from fsrl_ext.env.cost_reader import CostReader
from fsrl_ext.env.known_optimum import FULL_COST, HORIZON

TWO_COSTS_TASK = "KnownOptimumTwoCosts-v0"
"""Id of the listed task."""
COSTS = ("first", "second")
"""Names of its costs."""


class TwoCostsEnv(CostEnv):
    """Pays for two throttles, and charges for each of them by a cost of its own.

    The action ``[2]`` in [-1, 1] sets the throttles ``x = (1 + action) / 2``. Of the ``T`` steps of an
    episode each pays ``sum_i (1 - (1 - x_i)^2)`` and has the costs ``10 x_i / T``, named "first" and
    "second", so that an episode at full throttle has the costs 10 and 10. The observation ``[1]`` is always
    1.

    :param env_id: name of the task.
    :param max_episode_steps: ``T``, after which an episode is truncated.
    :param render_mode: None; there is nothing to draw.
    :param spec: see `CostEnv`.
    """

    def __init__(
        self,
        *,
        env_id: str = TWO_COSTS_TASK,
        max_episode_steps: int = HORIZON,
        render_mode: str | None = None,
        spec: EnvSpec | None = None,
    ) -> None:
        super().__init__(
            env_id=env_id,
            observation_space=spaces.Box(-np.inf, np.inf, (1,), np.float32),
            action_space=spaces.Box(-1.0, 1.0, (2,), np.float32),
            max_episode_steps=max_episode_steps,
            render_mode=render_mode,
            spec=spec,
        )
        self.horizon = max_episode_steps
        self._read_cost = CostReader(env_id, num_costs=len(COSTS))

    def _separate_costs(self) -> Sequence[str]:
        return COSTS

    def _reset(self, seed: int | None) -> tuple[np.ndarray, dict[str, Any]]:
        return np.ones(1, np.float32), {}

    def _step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        x = (1 + np.asarray(action, dtype=float)) / 2
        costs = dict(zip(COSTS, (FULL_COST / self.horizon * x).tolist(), strict=True))
        return np.ones(1, np.float32), float((1 - (1 - x) ** 2).sum()), False, False, {"cost": costs}

    def optimum(self, cost_limit: Sequence[float]) -> tuple[tuple[float, ...], float]:
        """Return the throttles and the return of the best policy within two limits.

        Rewards are concave and costs linear in each throttle, so that constant throttles which spend the
        whole limits are best (Jensen's inequality): ``x_i = min(cost_limit_i / 10, 1)``, with the return
        ``T sum_i (1 - (1 - x_i)^2)``.

        :param cost_limit: limits ``[2]`` on the undiscounted costs of an episode, >= 0.
        :raises ValueError: there are not two limits, or one is negative.
        """
        if len(cost_limit) != len(COSTS) or min(cost_limit) < 0:
            raise ValueError(f"cost_limit must be {len(COSTS)} numbers >= 0, got {tuple(cost_limit)}")
        x = tuple(min(limit / FULL_COST, 1.0) for limit in cost_limit)
        return x, self.horizon * sum(1 - (1 - one) ** 2 for one in x)
