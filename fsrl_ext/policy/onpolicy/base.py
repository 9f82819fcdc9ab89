"""What CPO, TRPO-Lag, PPO-Lag and FOCOPS share: acting, advantages, critics, the costs of episodes.

Dimension letters: ``B`` batch, ``T`` steps of a collect, ``O`` observation, ``A`` action, ``C`` costs,
``S = 1 + C`` signals (reward first).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import gymnasium as gym
import numpy as np
import torch
from tianshou.data import ReplayBuffer
from tianshou.data.types import RolloutBatchProtocol
from tianshou.policy.base import TLearningRateScheduler
from torch import Tensor, nn

from fsrl_ext.errors import check_all_finite, check_fields
from fsrl_ext.functional.gaussian import kl_divergence, log_density
from fsrl_ext.functional.returns import Advantages, generalised_advantages
from fsrl_ext.net.normaliser import ObservationNormaliser
from fsrl_ext.policy.base import ConstrainedPolicy, MetricStats, PolicyConfig, per_cost, to_device
from fsrl_ext.policy.optimise import descend, fit_with_lbfgs


@dataclass(frozen=True, kw_only=True)
class OnpolicyConfig(PolicyConfig):
    """Returns, advantages and observations of on-policy learning; ``docs/algorithms/onpolicy.md``.

    :raises ValueError: for values that cannot be used, naming them.
    """

    gae_lambda: float = 0.95
    """Decay of the reward's generalised advantages, in (0, 1]."""
    cost_gae_lambda: float = 0.95
    """Decay of the costs' generalised advantages, in (0, 1]."""
    normalise_observations: bool = True
    """Shift and scale observations by their mean and deviation, which are saved with the policy."""
    normalise_steps: int = 100_000
    """Environment steps that mean and deviation are taken from. While these move, so does the policy, and not
    by the choice of the update."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, unit_interval=("gae_lambda", "cost_gae_lambda"), at_least_one=("normalise_steps",))


TConfig = TypeVar("TConfig", bound=OnpolicyConfig)


class Rollout(NamedTuple):
    """The data of one collect, as the policy that collected it saw it."""

    obs: Tensor
    """``[T, O]``, normalised."""
    act: Tensor
    """``[T, A]`` as drawn."""
    log_density: Tensor
    """``[T]`` of these actions."""
    mean: Tensor
    """``[T, A]``; with ``std [T, A]`` the Gaussians that they were drawn from."""
    std: Tensor
    advantages: Tensor
    """``[T, S]``."""
    returns: Tensor
    """``[T, S]`` targets of the critic."""

    def minibatches(self, batch_size: int | None) -> Iterator[Rollout]:
        """One pass over the data in random order; ``None`` for all of it at once."""
        for places in shuffled(len(self.obs), batch_size, self.obs.device):
            yield Rollout(*(x[places] for x in self))


class Trajectories(NamedTuple):
    """What advantages are computed from."""

    obs: Tensor
    """``[T, O]``, normalised, like ``next_obs``."""
    next_obs: Tensor
    signals: Tensor
    """``[T, S]`` reward and costs."""
    terminated: Tensor
    """``[T]`` bool."""
    ends: Tensor
    """``[T]`` bool, whether the next row is not the continuation of this one."""


def shuffled(size: int, batch_size: int | None, device: torch.device) -> tuple[Tensor, ...]:
    """Places ``0 .. size - 1`` in random order, in parts."""
    return torch.randperm(size, device=device).split(batch_size or size)


class OnpolicyPolicy(ConstrainedPolicy[TConfig]):
    """Base of the on-policy actor-critics with cost limits.

    An update reads all data of a collect, in order: generalised advantages of reward and every cost, the
    actor's update (each algorithm's own), the critic's fit, and last the observations' statistics, so that
    the update is about the policy that collected. Actions are drawn from a Gaussian over the normalised box
    ``[-1, 1]`` and clipped by the environment's side alone.

    :param actor: ``((mean, std), state) = actor(obs)``, such as :class:`~fsrl_ext.net.OnpolicyActor`.
    :param critic: ``values [B, S] = critic(obs)``, such as :class:`~fsrl_ext.net.ValueCritic`.
    :param critic_optim: optimiser of the critic. Adam and the like take minibatches, ``repeat`` passes over
        the data; ``torch.optim.LBFGS`` takes one step (of several iterations) on all of it.
    :param action_space: a bounded ``Box``.
    :param cost_limit: undiscounted cost that an episode may have, one number or one per cost; ``inf`` for no
        constraint. It can be set anew while training.
    :param max_episode_steps: the environment's time limit, for data without the end of any episode.
    :param obs_dim: O, needed to normalise observations.
    :param observation_space: kept for Tianshou.
    :param lr_scheduler: called after every update.
    :param config: all other settings; a config of the plain algorithm will do without a constraint.
    :param settings: single settings by name, as in ``gamma=0.99``; they win over ``config``.
    :raises ValueError: for unusable spaces, limits or settings.
    """

    def __init__(
        self,
        *,
        actor: nn.Module,
        critic: nn.Module,
        critic_optim: torch.optim.Optimizer,
        action_space: gym.Space,
        cost_limit: float | Sequence[float],
        max_episode_steps: int,
        obs_dim: int | None = None,
        observation_space: gym.Space | None = None,
        lr_scheduler: TLearningRateScheduler | None = None,
        config: OnpolicyConfig | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(
            action_space=action_space,
            observation_space=observation_space,
            lr_scheduler=lr_scheduler,
            cost_limit=cost_limit,
            num_costs=getattr(critic, "num_costs", None),
            max_episode_steps=max_episode_steps,
            config=config,
            settings=settings,
        )
        self.actor = actor
        self.critic = critic
        self.critic_optim = critic_optim
        self._actor_parameters = list(actor.parameters())
        self._critic_parameters = list(critic.parameters())
        self.normaliser: ObservationNormaliser | None = None
        if self.config.normalise_observations:
            if obs_dim is None:
                raise ValueError("obs_dim must be given to normalise observations, got None")
            self.normaliser = ObservationNormaliser(obs_dim, horizon=self.config.normalise_steps)
        self.episode_cost = np.zeros(self.num_costs)
        """``[C]`` mean cost of the episodes of the newest data."""
        self.episode_length = float(max_episode_steps)
        """Mean number of steps of the episodes of the newest data."""
        self._set_up()

    def _set_up(self) -> None:
        """Builds what one algorithm has and the others lack; nothing, by default."""

    def _normalised(self, obs: Any) -> Tensor:
        """Returns observations ``[B, O]`` as the networks see them."""
        if self.normaliser is not None:
            return self.normaliser(obs)
        return torch.as_tensor(obs, dtype=torch.float32, device=self.device).flatten(1)

    def _act(self, obs: Any, state: Any, *, explore: bool) -> tuple[Tensor, Any]:
        """Draws actions when exploring, which may lie outside the normalised box; else the mean."""
        (mean, std), state = self.actor(self._normalised(obs), state=state)
        return (mean + std * torch.randn_like(mean) if explore else mean), state

    @torch.no_grad()
    def process_fn(
        self, batch: RolloutBatchProtocol, buffer: ReplayBuffer, indices: np.ndarray
    ) -> RolloutBatchProtocol:
        """Adds ``batch.advantages`` and ``batch.returns [T, S]``, and reads what finished episodes cost.

        ``batch.obs`` and ``batch.act`` become tensors.

        :param indices: all of the buffer's transitions, each environment's in order of time.
        :raises TypeError: if the buffer does not store costs.
        :raises ValueError: if the buffer does not store ``obs_next``: the last observation of an episode
            that the time limit ends is nowhere else.
        """
        if not hasattr(buffer, "num_costs"):
            raise TypeError(
                "buffer must be a CostReplayBuffer or CostVectorReplayBuffer, "
                f"got {type(buffer).__name__}, which does not store costs"
            )
        if not buffer._save_obs_next:
            raise ValueError("buffer must store obs_next (ignore_obs_next=False)")
        assert isinstance(batch.obs, np.ndarray), "flat observations"
        self._read_episodes(buffer, indices)
        device = self.device
        # Data of one environment ends where that of the next begins, whether its episode does or not.
        ends = buffer.done[indices] | np.isin(indices, buffer.unfinished_index())
        signals = np.concatenate([buffer.rew[indices, None], buffer.cost[indices]], axis=1)
        data = Trajectories(
            self._normalised(batch.obs),
            self._normalised(buffer.obs_next[indices]),
            to_device(signals, device),
            to_device(buffer.terminated[indices], device),
            to_device(ends, device),
        )
        self._prepare_critic(data)
        estimates = self._advantages(data, self.config.gae_lambda, self.config.cost_gae_lambda)
        batch.advantages, batch.returns = estimates.advantages, estimates.returns
        batch.obs = to_device(batch.obs, device)
        batch.act = to_device(batch.act, device)
        return batch

    def _prepare_critic(self, data: Trajectories) -> None:
        """What is done to the critic before it judges the data; nothing, by default."""

    def _advantages(self, data: Trajectories, gae_lambda: float, cost_gae_lambda: float) -> Advantages:
        """Generalised advantages and value targets ``[T, S]`` with the critic as it is."""
        return generalised_advantages(
            data.signals,
            self.critic(data.obs),
            self.critic(data.next_obs),
            terminated=data.terminated,
            ends=data.ends,
            gamma=self.config.gamma,
            gae_lambda=[gae_lambda, *[cost_gae_lambda] * self.num_costs],
        )

    def _read_episodes(self, buffer: Any, indices: np.ndarray) -> None:
        """Takes mean cost and length from the episodes that the collector counted since the last update.

        Without the end of any episode, the mean cost of a step stands for that of an episode.
        """
        episodes = buffer.episodes
        if len(episodes.lens):
            self.episode_cost, self.episode_length = episodes.costs.mean(0), float(episodes.lens.mean())
        else:
            self.episode_length = float(self.max_episode_steps)
            self.episode_cost = buffer.cost[indices].mean(0, dtype=np.float64) * self.episode_length

    def _step_surplus(self) -> Tensor:
        """How far an average step of the data exceeds its share of each limit less the margin, ``[C]``."""
        return (to_device(self.episode_cost, self.device) - self.cost_bound) / self.episode_length

    def get_extra_state(self) -> dict[str, Any]:
        """What learning goes on from besides parameters and buffers, for ``state_dict``."""
        return {"episode_cost": self.episode_cost.tolist(), "episode_length": self.episode_length}

    def _load_progress(self, state: Mapping[str, Any]) -> None:
        self.episode_cost, self.episode_length = np.array(state["episode_cost"]), state["episode_length"]

    def learn(
        self, batch: RolloutBatchProtocol, batch_size: int | None, repeat: int, *args: Any, **kwargs: Any
    ) -> MetricStats:
        """One update of actor, critic and observation statistics.

        :param batch_size: transitions of a minibatch, ``None`` for all at once.
        :param repeat: passes over the data.
        :raises NonFiniteError: if the data or a loss is not finite.
        """
        rollout = self._rollout(batch)
        # The actor's update, the critic's fit, the observations' statistics
        metrics = self._update_actor(rollout, batch_size, repeat)
        metrics |= self._fit_critic(rollout.obs, rollout.returns, batch_size, repeat)
        metrics |= per_cost("constraint/episode_cost", self.episode_cost.tolist())
        metrics["policy/std"] = float(rollout.std[0].mean())
        if self.normaliser is not None and not self.normaliser.settled:
            assert isinstance(batch.obs, Tensor)
            metrics["policy/drift"] = self._move_statistics(self.normaliser, batch.obs)
        return MetricStats.of({}, metrics)

    @torch.no_grad()
    def _move_statistics(self, normaliser: ObservationNormaliser, obs: Tensor) -> float:
        """Takes observations ``[B, O]`` into the statistics; how far that moved the policy, in nats."""
        (mean, std), _ = self.actor(normaliser(obs))
        normaliser.update(obs)
        (moved_mean, moved_std), _ = self.actor(normaliser(obs))
        return float(kl_divergence(mean, std, moved_mean, moved_std).mean())

    @torch.no_grad()
    def _rollout(self, batch: RolloutBatchProtocol) -> Rollout:
        """The processed batch, with the distributions that its actions were drawn from.

        :raises NonFiniteError: if any of it is not finite.
        """
        assert isinstance(batch.obs, Tensor), "process_fn comes before learn"
        assert isinstance(batch.act, Tensor), "process_fn comes before learn"
        obs = self._normalised(batch.obs)
        (mean, std), _ = self.actor(obs)
        density = log_density(mean, std, batch.act)
        sums = torch.stack([obs.sum(), density.sum(), batch.returns.sum()])
        check_all_finite(sums, ["observations", "actions", "returns of reward or cost"])
        return Rollout(obs, batch.act, density, mean, std, batch.advantages, batch.returns)

    @abstractmethod
    def _update_actor(self, rollout: Rollout, batch_size: int | None, repeat: int) -> dict[str, float]:
        """The algorithm's own update; returns numbers to log."""

    @torch.no_grad()
    def _mean_kl(self, rollout: Rollout) -> float:
        """Mean divergence of the policy that collected from the policy of now, in nats."""
        (mean, std), _ = self.actor(rollout.obs)
        return float(kl_divergence(rollout.mean, rollout.std, mean, std).mean())

    def _fit_critic(
        self, obs: Tensor, returns: Tensor, batch_size: int | None, repeat: int
    ) -> dict[str, float]:
        """Least squares of values ``[T, S]`` to returns, one number per signal to log."""

        def losses(places: Tensor | slice) -> Tensor:
            return (self.critic(obs[places]) - returns[places]).square().mean(0)

        everything, parameters = slice(None), self._critic_parameters
        if isinstance(self.critic_optim, torch.optim.LBFGS):
            fit_with_lbfgs(self.critic_optim, lambda: losses(everything).sum(), parameters, "critic loss")
        else:
            for _ in range(repeat):
                for places in shuffled(len(obs), batch_size, obs.device):
                    descend(self.critic_optim, losses(places).sum(), parameters, "critic loss")
        with torch.no_grad():
            left = losses(everything)
        unexplained = (left / returns.var(0, correction=0).clamp(min=1e-12)).tolist()
        metrics = {"loss/critic_reward": float(left[0]), "critic/unexplained_reward": unexplained[0]}
        metrics |= per_cost("loss/critic_cost", left[1:].tolist())
        return metrics | per_cost("critic/unexplained_cost", unexplained[1:])
