"""A task with discrete actions whose best policy within a cost limit is the solution of a linear program.

Dimension letters: ``T`` steps of an episode, ``S`` states, ``A`` actions.
"""

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from fsrl_ext.env.contract import CostEnv
from fsrl_ext.env.known_optimum import HORIZON

DISCRETE_TASK = "KnownOptimumDiscrete-v0"
"""Id of the listed task."""
LEGS = 4
"""Steps of one delivery."""
SPEED_REWARD = np.array([0.1, 0.6, 1.0])
"""Reward of a step with a sound vehicle at each speed; a damaged one earns half of it."""
SPEED_COST = np.array([0.0, 0.1, 0.4])
"""Cost of a step with a sound vehicle at each speed; a damaged one costs three times as much."""
SPEED_DAMAGE = np.array([0.0, 0.1, 0.3])
"""Probability that a step at each speed damages a sound vehicle."""


class DiscreteOptimumEnv(CostEnv):
    """Pays for speed in deliveries of four steps, and charges for the risk of damage.

    The actions are three speeds. The state is the leg of the delivery, 0 to 3, and whether the vehicle is
    damaged; the observation ``[8]`` is one-hot. A damaged vehicle earns half as much and costs three times as
    much until the delivery ends, so speed in an early leg also costs later. Every delivery begins with a
    sound vehicle. All deliveries of an episode are therefore alike, and no policy that knows the time earns
    more than the best one that knows the state alone.

    :param env_id: name of the task.
    :param max_episode_steps: ``T``, after which an episode is truncated; a multiple of 4.
    :param render_mode: None; there is nothing to draw.
    :param spec: see `CostEnv`.
    :raises ValueError: ``T`` is no multiple of 4.
    """

    def __init__(
        self,
        *,
        env_id: str = DISCRETE_TASK,
        max_episode_steps: int = HORIZON,
        render_mode: str | None = None,
        spec: EnvSpec | None = None,
    ) -> None:
        if max_episode_steps % LEGS:
            raise ValueError(f"max_episode_steps must be a multiple of {LEGS}, got {max_episode_steps}")
        num_states, num_actions = 2 * LEGS, len(SPEED_REWARD)
        super().__init__(
            env_id=env_id,
            observation_space=spaces.Box(0.0, 1.0, (num_states,), np.float32),
            action_space=spaces.Discrete(num_actions),
            max_episode_steps=max_episode_steps,
            render_mode=render_mode,
            spec=spec,
        )
        self.horizon = max_episode_steps
        self.start = np.eye(num_states)[0]
        """``[S]`` probability of each state at the beginning; state ``2 leg + damaged``."""
        self.moves = np.zeros((num_states, num_actions, num_states))
        """``[S, A, S]`` probability of each next state."""
        for leg in range(LEGS - 1):
            sound, damaged = 2 * leg, 2 * leg + 1
            self.moves[sound, :, sound + 2] = 1.0 - SPEED_DAMAGE
            self.moves[sound, :, damaged + 2] = SPEED_DAMAGE
            self.moves[damaged, :, damaged + 2] = 1.0
        self.moves[-2:, :, 0] = 1.0
        self.rewards = np.tile(np.stack([SPEED_REWARD, SPEED_REWARD / 2]), (LEGS, 1))
        """``[S, A]`` reward of each action in each state."""
        self.costs = np.tile(np.stack([SPEED_COST, 3 * SPEED_COST]), (LEGS, 1))
        """``[S, A]`` cost of each action in each state."""
        self._state = 0

    def _observe(self) -> np.ndarray:
        return np.eye(len(self.start), dtype=np.float32)[self._state]

    def _reset(self, seed: int | None) -> tuple[np.ndarray, dict[str, Any]]:
        self._state = 0
        return self._observe(), {}

    def _step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        place = self._state, int(action)
        self._state = int(np.searchsorted(self.moves[place].cumsum(), self.np_random.random(), "right"))
        return self._observe(), float(self.rewards[place]), False, False, {"cost": float(self.costs[place])}

    def value(self, policy: np.ndarray) -> tuple[float, float]:
        """Return the expected return and the expected cost of an episode, both exact.

        :param policy: ``[S, A]`` probabilities of the actions in each state.
        """
        earned = spent = 0.0
        states = self.start
        for _ in range(self.horizon):
            visits = states[:, None] * policy
            earned += float((visits * self.rewards).sum())
            spent += float((visits * self.costs).sum())
            states = np.einsum("sa,san->n", visits, self.moves)
        return earned, spent

    def optimum(self, cost_limit: float) -> tuple[np.ndarray, float]:
        """Return the best policy ``[S, A]`` within a limit and its return, from a linear program.

        Over the probabilities ``x[t, s, a] >= 0`` that step t is taken in state s with action a::

            maximise    sum_t,s,a x[t, s, a] r[s, a]
            subject to  sum_a x[0, s, a] = p[s]
                        sum_a x[t + 1, s', a] = sum_s,a x[t, s, a] P[s, a, s']
                        sum_t,s,a x[t, s, a] c[s, a] <= cost_limit

        (Altman, "Constrained Markov Decision Processes", 1999). The policy takes
        actions in proportion to ``sum_t x[t, s, a]``, and reaches the optimum because all deliveries are
        alike. In a state that is never visited, the policy takes the slowest speed.

        :param cost_limit: limit on the expected undiscounted cost of an episode, >= 0.
        :raises ValueError: the limit is negative.
        """
        from scipy.optimize import linprog

        if cost_limit < 0:
            raise ValueError(f"cost_limit must be >= 0, got {cost_limit}")
        (num_states, num_actions), steps = self.rewards.shape, self.horizon
        taken = np.repeat(np.eye(num_states), num_actions, axis=1)
        moved = self.moves.reshape(-1, num_states).T
        flows = np.kron(np.eye(steps), taken) - np.kron(np.eye(steps, k=-1), moved)
        solution = linprog(
            -np.tile(self.rewards.ravel(), steps),
            A_ub=np.tile(self.costs.ravel(), steps)[None],
            b_ub=[cost_limit],
            A_eq=flows,
            b_eq=np.concatenate([self.start, np.zeros((steps - 1) * num_states)]),
            method="highs",
        )
        visits = solution.x.reshape(steps, num_states, num_actions).sum(0)
        slowest = np.tile(np.eye(num_actions)[0], (num_states, 1))
        total = visits.sum(1, keepdims=True)
        policy = np.where(total > 1e-9, visits / np.maximum(total, 1e-9), slowest)
        return policy, -float(solution.fun)
