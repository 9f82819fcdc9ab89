"""A policy's critic as the diagnosis reads it: values in units of reward and costs, and their meaning.

Dimension letters: ``n`` states, ``N`` actions of a state, ``O`` observation, ``A`` action, ``S`` signals
(reward first, then the costs).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from tianshou.policy import BasePolicy
from torch import Tensor

from fsrl_ext.functional.gaussian import squash
from fsrl_ext.net.values import reduce_reward
from fsrl_ext.policy import CVPOPolicy, DDPGLagPolicy, SACLagPolicy, TD3LagPolicy
from fsrl_ext.policy.base import are_images
from fsrl_ext.policy.offpolicy.lagrangian import LagrangianPolicy
from fsrl_ext.policy.onpolicy.base import OnpolicyPolicy

CHUNK = 16_384
"""Number of pairs of state and action whose values are computed at a time, at most."""


@dataclass(frozen=True, kw_only=True)
class Critic:
    """The values that a policy learns from, and what they are values of.

    :param kind: ``"q"`` for values of actions, ``"v"`` for values of states.
    :param gamma: ``[S]`` discount factors.
    :param ends: ``[S]`` bool, whether a time limit ends the sum; otherwise it goes on beyond the limit.
    :param explores: whether the values are those of the policy with sampled actions.
    :param call: ``values [S, n] = call(obs [n, O], act [n, A])`` on the policy's device.
    :param goal: reward from which on a step ends the sums of the reward, as a terminal state does; ``None``
        for no such step.
    :param bonus: ``[n] = bonus(obs [n, O])``, a sample of what the reward's values count in a state beside
        the reward; ``None`` if they count nothing.
    """

    kind: Literal["q", "v"]
    gamma: np.ndarray
    ends: np.ndarray
    explores: bool
    device: torch.device
    call: Callable[[Tensor, Tensor], Tensor]
    goal: float | None = None
    bonus: Callable[[Tensor], Tensor] | None = None

    def stops(self, signals: np.ndarray) -> np.ndarray:
        """Return ``[T, S]`` bool, whether a step with ``signals [T, S]`` ends the sum of a signal."""
        stops = np.zeros(signals.shape, dtype=bool)
        if self.goal is not None:
            stops[:, 0] = signals[:, 0] >= self.goal
        return stops

    @torch.no_grad()
    def values(self, obs: np.ndarray, act: np.ndarray) -> np.ndarray:
        """Return values ``[n, S]`` of states ``obs [n, O]`` and actions ``act [n, A]``, as drawn."""
        parts = [
            self.call(self._tensor(obs[i : i + CHUNK]), self._tensor(act[i : i + CHUNK])).T.cpu().numpy()
            for i in range(0, len(obs), CHUNK)
        ]
        return np.concatenate(parts).astype(float)

    def action_values(self, obs: np.ndarray, act: np.ndarray) -> np.ndarray:
        """Return values ``[n, N, S]`` of states ``obs [n, O]`` and actions ``act [n, N, A]``."""
        states, actions = act.shape[:2]
        flat = self.values(np.repeat(obs, actions, 0), act.reshape(states * actions, -1))
        return flat.reshape(states, actions, -1)

    @torch.no_grad()
    def bonuses(self, obs: np.ndarray) -> np.ndarray:
        """Return the bonus ``[n]`` of being in the states ``obs [n, O]``."""
        if self.bonus is None:
            return np.zeros(len(obs))
        return self.bonus(self._tensor(obs)).cpu().numpy().astype(float)

    def _tensor(self, values: np.ndarray) -> Tensor:
        if are_images(values):
            return torch.as_tensor(values, device=self.device)
        return torch.as_tensor(values, dtype=torch.float32, device=self.device)


def critic_of(policy: BasePolicy) -> Critic | None:
    """Return the critic of a policy of this library; ``None`` for a policy of another class.

    Cost critics count as the policy reads them: reduced over the ensemble, with actions clipped as they are
    executed.
    """
    if not isinstance(policy, CVPOPolicy | LagrangianPolicy | OnpolicyPolicy):
        return None
    config: Any = policy.config
    cost_gamma = getattr(config, "discount_of_costs", config.gamma)
    gamma = np.array([config.gamma] + [cost_gamma] * policy.num_costs)
    if isinstance(policy, OnpolicyPolicy):
        return Critic(
            kind="v",
            gamma=gamma,
            ends=gamma == 1.0,
            explores=True,
            device=policy.device,
            call=lambda obs, act: _state_values(policy, obs),
        )
    return Critic(
        kind="q",
        gamma=gamma,
        ends=np.full(len(gamma), config.time_limits == "end"),
        explores=not isinstance(policy, DDPGLagPolicy | TD3LagPolicy),
        device=policy.device,
        call=lambda obs, act: _action_values(policy, obs, act),
        goal=getattr(config, "goal_reward", None),
        bonus=(lambda obs: _entropy_bonus(policy, obs)) if isinstance(policy, SACLagPolicy) else None,
    )


def _state_values(policy: OnpolicyPolicy[Any], obs: Tensor) -> Tensor:
    """Return ``[S, n]``."""
    seen = obs if policy.normaliser is None else policy.normaliser(obs)
    return (policy.critic(seen) * policy.signal_scale + policy.value_level).T


def _action_values(policy: CVPOPolicy | LagrangianPolicy[Any], obs: Tensor, act: Tensor) -> Tensor:
    """Return ``[S, n]`` of what the actor's update reads: CVPO's target critics, or else the critics."""
    critic = policy.target_critic if isinstance(policy, CVPOPolicy) else policy.critic
    executed = act.flatten().long() if policy.is_discrete else act.clamp(-1.0, 1.0)
    q = critic(policy.data.observations(obs), executed)
    values = torch.cat([reduce_reward(q.reward)[None], policy.config.reduce_cost(q)])
    return values * policy.data.signal_scale[:, None]


def _entropy_bonus(policy: SACLagPolicy, obs: Tensor) -> Tensor:
    """Return SAC's bonus ``-alpha log pi [n]`` of one sampled action in each state, in units of reward."""
    mean, std = policy.actor(policy.data.observations(obs))[0]
    log_density = squash(mean, std, torch.randn_like(mean))[1]
    return -policy.alpha * log_density * policy.data.signal_scale[0]
