"""Plays whole episodes of a policy and keeps every step, and replays them with another action in one step.

No simulator here saves and restores its whole state: the positions of goals, the counters of tasks and their
random numbers lie outside of it. Every deterministic environment however comes back to a state, bit for bit,
from the same seed and the same actions.

Dimension letters: ``T`` steps of an episode, ``O`` observation, ``A`` action, ``S`` signals (reward first,
then the costs), ``N`` actions per state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from tianshou.data import Batch
from tianshou.policy import BasePolicy
from tianshou.policy.base import policy_within_training_step

from fsrl_ext.data.action_boxes import ActionSpaces
from fsrl_ext.data.randomness import private_randomness
from fsrl_ext.errors import NonFiniteError


@dataclass(frozen=True)
class Episode:
    """One whole episode.

    :param seed: of the environment and of the policy's noise.
    :param obs: ``[T, O]`` before each step.
    :param act: ``[T, A]`` as the policy drew them; ``[T]`` discrete actions.
    :param executed: ``[T, A]`` as the environment got them.
    :param signals: ``[T, S]`` reward and costs.
    :param terminated: whether a terminal state ended the episode; otherwise a time limit did.
    """

    seed: int
    obs: np.ndarray
    act: np.ndarray
    executed: np.ndarray
    signals: np.ndarray
    terminated: bool


class Player:
    """Plays a policy in one environment.

    :param policy: in evaluation mode.
    :param env: an environment of ``fsrl_ext.env.make``; the caller closes it.
    """

    def __init__(self, policy: BasePolicy, env: gym.Env) -> None:
        self.policy, self.env = policy, env
        self._spaces = ActionSpaces([env.action_space])

    def episode(self, seed: int, *, explore: bool) -> Episode:
        """Play one episode.

        :param explore: whether the policy samples its actions as in training.
        :raises NonFiniteError: for a reward or a cost that is not finite.
        """
        rows: list[tuple[Any, ...]] = []
        with private_randomness(seed), policy_within_training_step(self.policy, enabled=explore):
            obs, _ = self.env.reset(seed=seed)
            over = False
            while not over:
                act = self._actions(obs[None])
                executed = self._executed(act)
                following, signals, terminated, over = self._step(executed)
                rows.append((obs, act[0], executed, signals))
                obs = following
        columns = [np.array(x) for x in zip(*rows, strict=True)]
        return Episode(seed, columns[0], columns[1], columns[2], columns[3], terminated)

    def samples(self, obs: np.ndarray, count: int, *, seed: int) -> np.ndarray:
        """Sample actions ``[n, count, A]``, as the policy draws them, in states ``obs [n, O]``.

        Of discrete actions A is 1.
        """
        with private_randomness(seed), policy_within_training_step(self.policy):
            act = self._actions(np.repeat(obs, count, 0))
        return act.reshape(len(obs), count, -1)

    def after(
        self, episode: Episode, step: int, act: np.ndarray, *, steps: int, explore: bool
    ) -> np.ndarray | None:
        """Return to a state of an episode, take an action there, and let the policy go on.

        The noise of the policy depends on the state alone, so that two actions are compared under the same
        random numbers.

        :param step: number of the step of the episode in whose state ``act [A]`` is taken.
        :param steps: number of steps to play from there on, at most.
        :return: signals ``[t, S]`` of these steps; ``None`` if the environment did not come to the same
            state.
        """
        with private_randomness(episode.seed):
            obs, _ = self.env.reset(seed=episode.seed)
            for executed in episode.executed[:step]:
                obs = self._step(executed)[0]
        if not np.array_equal(obs, episode.obs[step]):
            return None
        signals = []
        noise = int(np.random.SeedSequence([episode.seed, step]).generate_state(1)[0])
        with private_randomness(noise), policy_within_training_step(self.policy, enabled=explore):
            for _ in range(steps):
                obs, values, _, over = self._step(self._executed(act[None]))
                signals.append(values)
                if over:
                    break
                act = self._actions(obs[None])[0]
        return np.array(signals)

    @torch.no_grad()
    def _actions(self, obs: np.ndarray) -> np.ndarray:
        """Return the policy's actions ``[n, A]`` in states ``obs [n, O]``, before they are mapped."""
        act = self.policy(Batch(obs=obs, info=Batch())).act
        return np.asarray(act.cpu() if isinstance(act, torch.Tensor) else act)

    def _executed(self, act: np.ndarray) -> np.ndarray:
        """Return the action ``[A]`` that the environment gets for ``act [1, A]``."""
        mapped = np.reshape(self.policy.map_action(act), (1, *(self.env.action_space.shape or ())))
        return self._spaces.fit(mapped, np.arange(1))[0]

    def _step(self, executed: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool, bool]:
        """Take a step; returns observation, signals ``[S]``, whether it is terminal, and the last one."""
        # An environment may change the action that it is given.
        obs, reward, terminated, truncated, info = self.env.step(executed.copy())
        signals = np.concatenate([[float(reward)], np.atleast_1d(info["cost"]).astype(float)])
        if not np.isfinite(signals).all():
            raise NonFiniteError(f"the environment gave reward and costs {signals.tolist()}")
        return obs, signals, bool(terminated), bool(terminated or truncated)
