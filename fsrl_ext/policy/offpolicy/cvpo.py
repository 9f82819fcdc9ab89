"""Constrained Variational Policy Optimization (Liu et al., ICML 2022, arXiv 2201.11927).

Dimension letters: ``B`` batch, ``N`` sampled actions, ``A`` action, ``C`` costs, ``S = 1 + C`` signals
(reward first), ``K`` steps of the n-step window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import gymnasium as gym
import numpy as np
import torch
from tianshou.data import ReplayBuffer
from tianshou.data.types import RolloutBatchProtocol
from tianshou.policy.base import TLearningRateScheduler
from torch import Tensor, nn

from fsrl_ext.errors import check_all_finite, checked
from fsrl_ext.functional.distribution import Categorical, distribution
from fsrl_ext.functional.estep import EStepSolution, Status
from fsrl_ext.functional.gaussian import sample_actions, scale_noise
from fsrl_ext.functional.mstep import weighted_moments
from fsrl_ext.net.values import QValues, reduce_reward
from fsrl_ext.policy.base import (
    ConstrainedPolicy,
    MetricStats,
    PolyakAverage,
    check_cost_buffer,
    clear_gradients,
    per_cost,
    to_device,
)
from fsrl_ext.policy.offpolicy.cost_level import LEVEL_STATES, CriticLevel, MeasuredCost
from fsrl_ext.policy.offpolicy.critics import (
    critic_losses,
    hand_back_priorities,
    importance_weights,
    nstep_returns,
    nstep_windows,
    to_tensors,
)
from fsrl_ext.policy.offpolicy.cvpo_config import CVPOConfig
from fsrl_ext.policy.offpolicy.cvpo_estep import EStep, mean_cost
from fsrl_ext.policy.offpolicy.cvpo_mstep import TrustRegions, fit_categorical, fit_gaussian
from fsrl_ext.policy.offpolicy.replay import newest_places
from fsrl_ext.policy.optimise import clip_gradients, to_host


class CVPOPolicy(ConstrainedPolicy[CVPOConfig]):
    """CVPO as a Tianshou policy, for continuous or discrete actions and one or several costs.

    Every gradient step solves an E-step: it reweights actions that the old policy samples in the states of a
    batch, so that the expected reward is highest while the expected cost meets the threshold and the weights
    stay near uniform. An M-step then fits the Gaussian actor to the weighted actions inside a trust region.

    The actor's mean lies in the normalised box ``[-1, 1]``. Sampled actions may lie outside: the environment
    and the critics get them clipped, and likelihoods are those of the actions as sampled.

    With a ``Discrete`` action space only the executed actions are sampled. The E-step reweights the old
    policy's probabilities of all actions, the critics' targets are exact expectations over the old policy,
    and the M-step has one trust region, with the bound ``kl_bound_mean``.

    :param actor: ``(mean, scale), state = actor(obs)``; :class:`~fsrl_ext.net.GaussianActor` or Tianshou's
        ``ActorProb``. For discrete actions ``logits, state = actor(obs)``;
        :class:`~fsrl_ext.net.CategoricalActor`.
    :param actor_optim: optimiser of the actor.
    :param critic: ``QValues = critic(obs, act)`` for reward and all costs, such as
        :class:`~fsrl_ext.net.EnsembleCritic`. For discrete actions, ``critic(obs)`` gives the values of all
        actions; :class:`~fsrl_ext.net.DiscreteCritic`.
    :param critic_optim: optimiser of the critic.
    :param action_space: a bounded ``Box``, or a ``Discrete`` space.
    :param cost_limit: largest cost of an episode in ``limit_unit``, >= 0, one number or one per cost; ``inf``
        for no constraint. The attribute can be set while training.
    :param max_episode_steps: the environment's time limit in steps, for the threshold.
    :param observation_space: passed on to Tianshou's ``BasePolicy``.
    :param lr_scheduler: Tianshou steps it after every update.
    :param config: all other settings; ``None`` for their defaults.
    :param settings: single settings by name, as in ``CVPOPolicy(..., gamma=0.99)``, which replace those of
        ``config``.
    :raises ValueError: for a space, limit or setting that the policy cannot use.
    :raises TypeError: for a config of another class, or a setting that does not exist.
    """

    config_type = CVPOConfig
    takes_discrete_actions = True

    @checked(at_least_one=("max_episode_steps",), own=("config", "cost_limit"))
    def __init__(
        self,
        *,
        actor: nn.Module,
        actor_optim: torch.optim.Optimizer,
        critic: nn.Module,
        critic_optim: torch.optim.Optimizer,
        action_space: gym.Space,
        cost_limit: float | Sequence[float],
        max_episode_steps: int,
        observation_space: gym.Space | None = None,
        lr_scheduler: TLearningRateScheduler | None = None,
        config: CVPOConfig | None = None,
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
        self.actor_optim = actor_optim
        self.critic = critic
        self.critic_optim = critic_optim
        self.old_actor = self._copy(actor)
        self.target_critic = self._copy(critic)
        self.average_actor = None if self.config.average_tau is None else self._copy(actor)
        # A walk through the modules at every gradient step would take longer than reading these lists.
        self._actor_parameters = list(actor.parameters())
        self._critic_parameters = list(critic.parameters())
        self._target = PolyakAverage((self.target_critic, critic))
        self._old = PolyakAverage((self.old_actor, actor))
        self._average = PolyakAverage()
        if self.average_actor is not None:
            self._average.add(self.average_actor, actor)
        self.kl_multipliers: Tensor
        """Multipliers of the M-step's KL bounds: ``[2]`` for mean and covariance, or ``[1]``."""
        self.kl_bounds: Tensor
        """These bounds, in nats."""
        regions = 1 if self.is_discrete else 2
        self.register_buffer("kl_multipliers", torch.zeros(regions))
        bounds = torch.tensor([self.config.kl_bound_mean, self.config.kl_bound_scale][:regions])
        self.register_buffer("kl_bounds", bounds, persistent=False)
        self.kl_multiplier_lr: Tensor
        """Change of each KL multiplier per relative violation of its bound."""
        self.kl_multiplier_max: Tensor
        """Largest values of the KL multipliers."""
        for name in ("kl_multiplier_lr", "kl_multiplier_max"):
            values = getattr(self.config, name)[:regions]
            self.register_buffer(name, torch.tensor(values), persistent=False)
        low = self.config.estep_precision != "float32"
        self._estep_precision = {"hidden_dtype": torch.bfloat16} if low else {}
        self.data = self.config.statistics(self.num_costs)
        """Scales, bounds and episode costs that were measured in the buffer."""
        self.measured_cost = MeasuredCost(
            self.num_costs,
            former_episodes=self.config.cost_level_episodes,
            margin_rate=self.config.margin_rate,
            recovery_share=self.config.recovery_share,
        )
        """Estimate of the actor's episode cost, from measured costs."""
        self.level = CriticLevel(measured=self.config.cost_level == "measured")
        """Episode cost that the critics' level stands for, held against measured costs."""
        self._level_unit = float(self.discounted([1.0] * self.num_costs)[0])
        self._estep = EStep(self.config, self.measured_cost, self._level_unit)
        self._acted_since_update = True

    @property
    def episode_cost(self) -> np.ndarray | None:
        """``[C]`` mean cost of the newest finished episodes; ``None`` before the first ones."""
        return self.data.episode_cost

    def _act(self, obs: Any, state: Any, *, explore: bool) -> tuple[Tensor, Any]:
        """Returns actions ``[B, A]``, which may lie outside the box, or ``[B]``, and the actor's state."""
        if explore and not self.updating:
            self._acted_since_update = True
        dist, state = self.acting_distribution(obs, state, explore=explore)
        if not explore and not self.samples_in_evaluations:
            return dist.mode(), state
        if self.is_discrete:
            return dist.sample(), state
        return sample_actions(dist.mean, dist.std, 1).squeeze(1), state

    def acting_distribution(self, obs: Any, state: Any = None, *, explore: bool = False) -> tuple[Any, Any]:
        """Returns the distributions of the actions at observations ``[B, O]``, and the actor's state.

        A full covariance has its Cholesky factor in place of the standard deviations.

        :param explore: whether the newest actor acts, as in training, even if there is an average one.
        """
        actor = self.actor if explore or self.average_actor is None else self.average_actor
        output, state = actor(self.data.observations(obs), state=state)
        return distribution(output), state

    @torch.no_grad()
    def process_fn(
        self, batch: RolloutBatchProtocol, buffer: ReplayBuffer, indices: np.ndarray
    ) -> RolloutBatchProtocol:
        """Prepares a batch for :meth:`learn`.

        Adds the n-step targets ``batch.returns [B, S]``, which bootstrap from the target critics' values of
        the old policy's actions, and the old policy at ``batch.obs``: ``batch.old_mean [B, A]`` and
        ``batch.old_scale [B, A]`` (or ``[B, A, A]``), or ``batch.old_log_probs [B, A]`` of discrete actions.
        ``batch.obs`` and ``batch.act`` become tensors.

        The first call after a collect begins a cycle.

        :param buffer: a buffer of :mod:`fsrl_ext.data`.
        :param indices: ``[B]`` places of the batch in the buffer.
        :raises TypeError: if the buffer does not store costs.
        """
        check_cost_buffer(buffer)
        # A cycle begins with new data, even if a copy of this policy collected them elsewhere, and after an
        # action of this policy.
        if self.data.arrived(buffer) or self._acted_since_update:
            self._begin_cycle(buffer)
        to_tensors(batch, self.data)
        windows = nstep_windows(buffer, indices, self.config)
        next_obs = [self.data.observations(to_device(x.obs_next, self.device)) for x in windows]
        assert isinstance(batch.obs, Tensor)
        # One pass of the old actor serves all states, and one of the critics those after the windows.
        size = len(indices)
        output = self.old_actor(torch.cat([batch.obs, *next_obs]))[0]
        if self.is_discrete:
            old = distribution(output)
            batch.old_log_probs = old.log_probs[:size]
            q_reward, q_cost = self._expected_values(torch.cat(next_obs), old[size:])
        else:
            mean, scale = output
            batch.old_mean, batch.old_scale = mean[:size], scale[:size]
            next_act = sample_actions(mean[size:], scale[size:], 1).squeeze(1)
            q_reward, q_cost = self._reduce(self.target_critic(torch.cat(next_obs), self._executed(next_act)))
        bootstrap = torch.cat([q_reward[:size, None], q_cost[:, -size:].T], dim=1)
        batch.returns = nstep_returns(windows, bootstrap, config=self.config, data=self.data)
        return batch

    def _begin_cycle(self, buffer: ReplayBuffer) -> None:
        """Measures the costs of the newest data, and replaces the old policy."""
        self._acted_since_update = False
        # The change of the episode cost that the critics expect of the last cycle's updates
        obs = to_device(buffer.obs[newest_places(buffer, self.max_episode_steps, LEVEL_STATES)], self.device)
        before, after = self._expected_costs(self.data.observations(obs))
        self.measured_cost.change(self._counted_steps * (after - before) * self._cost_scale)
        level = after * self._cost_scale / self._level_unit
        # Scales of the signals, and costs of the newest episodes
        costs, lens = self.data.measure(buffer)
        self.measured_cost.measure(
            costs,
            lens,
            bound=self.cost_bound.cpu().double(),
            num_envs=len(buffer.subbuffer_edges) - 1,
            otherwise=self._counted_steps * self.data.step_cost,
        )
        if len(costs):
            self.level.compare(level.numpy(), costs.mean(0), self.cost_limit)
        # The old policy of this cycle
        if self.config.old_policy == "frozen":
            self.old_actor.load_state_dict(self.actor.state_dict())

    @property
    def _counted_steps(self) -> float:
        """Mean number of steps of the newest episodes, as they count in the unit of the limits.

        The time limit stands for the number of steps before any episode has finished.
        """
        return self.steps_that_count(self.data.episode_length or float(self.max_episode_steps))

    @property
    def _cost_scale(self) -> Tensor:
        """Scales of the costs ``[C]``, float64 on the host."""
        return torch.from_numpy(self.data.scale[1:])

    def _expected_costs(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean values of the cost critics, in units of the scales, under the old and the new policy.

        Both policies act with the same noise, so that the difference has little of it.

        :param obs: ``[n, O]``, as the networks see it.
        :return: ``[C]`` float64 on the host, each.
        """
        if self.is_discrete:
            dists = [distribution(actor(obs)[0]) for actor in (self.old_actor, self.actor)]
            before, after = (self._expected_values(obs, dist)[1] for dist in dists)
            return before.mean(1, dtype=torch.float64).cpu(), after.mean(1, dtype=torch.float64).cpu()
        noise: Tensor | None = None
        means = []
        for actor in (self.old_actor, self.actor):
            mean, scale = actor(obs)[0]
            if noise is None:
                noise = self._sample(torch.zeros_like(mean), torch.ones_like(mean))
            act = mean[:, None] + scale_noise(noise, scale)
            q_cost = self._reduce(self.target_critic(obs, self._executed(act)))[1]
            means.append(q_cost.mean((1, 2), dtype=torch.float64).cpu())
        return means[0], means[1]

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Loads what ``state_dict`` returned, as the base class does.

        A measured bias of the critics, which version 0.1.0 saved, has no place any more.
        """
        state = {name: value for name, value in state_dict.items() if name != "cost_bias"}
        return super().load_state_dict(state, strict=strict, assign=assign)

    def get_extra_state(self) -> dict[str, Any]:
        """Returns what was measured in the buffer, the level of the cost, and where SLSQP starts."""
        return {
            "units": self.data.units(),
            "data": self.data.progress(),
            "measured_cost": self.measured_cost.state_dict(),
            "level": self.level.state_dict(),
            "running_level": self._estep.running_level.state_dict(),
            "acted_since_update": self._acted_since_update,
            "slsqp_start": self._estep.slsqp_start,
        }

    def _load_units(self, state: Mapping[str, Any]) -> None:
        self.data.load_units(state)

    def _load_progress(self, state: Mapping[str, Any]) -> None:
        self.data.load_progress(state["data"])
        self.measured_cost.load_state_dict(state["measured_cost"])
        self.level.load_state_dict(state["level"])
        self._estep.running_level.load_state_dict(state["running_level"])
        self._acted_since_update = state["acted_since_update"]
        self._estep.slsqp_start = state["slsqp_start"]

    @property
    def _is_stratified(self) -> bool:
        return self.config.action_sampling == "stratified"

    def _sample(self, mean: Tensor, scale: Tensor) -> Tensor:
        """Returns the actions ``[B, N, A]`` of an E-step."""
        return sample_actions(mean, scale, self.config.num_samples, stratified=self._is_stratified)

    def _reduce(self, q: QValues) -> tuple[Tensor, Tensor]:
        """Returns one estimate per signal from the ensembles: reward ``[...]`` and costs ``[C, ...]``."""
        return reduce_reward(q.reward), self.config.reduce_cost(q)

    def _expected_values(self, obs: Tensor, dist: Categorical) -> tuple[Tensor, Tensor]:
        """Returns the target critics' values of discrete actions that are drawn from distributions.

        :param obs: ``[B, O]``, as the networks see it.
        :return: reward ``[B]`` and costs ``[C, B]``, exact means over the actions.
        """
        q_reward, q_cost = self._reduce(self.target_critic(obs))
        return (dist.probs * q_reward).sum(-1), (dist.probs * q_cost).sum(-1)

    def learn(self, batch: RolloutBatchProtocol, *args: Any, **kwargs: Any) -> MetricStats:
        """Takes one gradient step of the critics, solves one E-step and makes one M-step.

        On an accelerator the host waits once, for the Q-values of the sampled actions and for the sums that
        show whether losses and actor are finite.

        :param batch: what :meth:`process_fn` returned.
        :raises NonFiniteError: if a loss or the actor's output is not finite; no parameter has changed then.
            With ``mstep_iterations > 1``, the loss of a later iteration can fail after the steps before.
        """
        obs, act = batch.obs, batch.act
        assert isinstance(obs, Tensor), "process_fn comes before learn"
        assert isinstance(act, Tensor), "process_fn comes before learn"
        # Critic loss: regression on the n-step targets
        critic_loss = critic_losses(
            self.critic(obs, self._executed(act)), batch.returns, importance_weights(batch, self.device)
        )
        hand_back_priorities(batch, critic_loss)
        output = self.actor(obs)[0]
        parts = (output,) if self.is_discrete else output
        # E-step: Q-values of the old policy's actions, and the best weights that the constraint allows
        with torch.no_grad():
            actions, q_reward, q_cost = self._estep_actions(obs, batch)
            checks = torch.stack([critic_loss.total, *(x.sum() for x in parts)])
        given = (batch.old_log_probs,) if self.is_discrete else ()
        q_reward, q_cost, checks, *priors = to_host(q_reward, q_cost, checks, *given)
        names = ("actor's logits",) if self.is_discrete else ("actor's mean", "actor's scale")
        check_all_finite(checks, ("critic loss", *names))
        log_prior = priors[0] if priors else None
        old_cost = mean_cost(q_cost, log_prior)
        threshold = self._estep.threshold(
            q_cost,
            old_cost,
            log_prior,
            scale=self._cost_scale,
            bound=self.cost_bound.cpu().double(),
            discounted_bound=self.cost_threshold,
            steps=self._counted_steps,
        )
        solution = self._estep.solve(q_reward, q_cost, threshold, log_prior)

        # Critic step; it waits until here because nothing may change if a check fails
        clear_gradients(self._critic_parameters)
        critic_loss.backward()
        self.critic_optim.step()
        # M-step: the actor is fitted to the weighted actions
        weights = to_device(solution.weights, obs.device)
        how: dict[str, Any] = {
            "regions": TrustRegions(
                self.kl_multipliers, self.kl_bounds, self.kl_multiplier_lr, self.kl_multiplier_max
            ),
            "iterations": self.config.mstep_iterations,
            "step_actor": self._step_actor,
        }
        if actions is None:
            metrics = fit_categorical(
                self.actor, obs, weights, Categorical(batch.old_log_probs), output, **how
            )
        else:
            old = batch.old_mean, batch.old_scale
            with torch.no_grad():
                moments = weighted_moments(weights, actions, *old, control_variate=self._is_stratified)
            metrics = fit_gaussian(self.actor, obs, moments, *old, *output, **how)

        # Moving averages: target critics, old policy, acting average
        self._target.update(self.config.tau)
        if self.config.old_policy == "polyak":
            self._old.update(self.config.old_policy_tau)
        if self.config.average_tau is not None:
            self._average.update(self.config.average_tau)
        return MetricStats.of(
            metrics | critic_loss.metrics(self.data), self._estep_metrics(solution, old_cost)
        )

    def _estep_actions(self, obs: Tensor, batch: Any) -> tuple[Tensor | None, Tensor, Tensor]:
        """Returns the actions of an E-step and their values by the target critics.

        :param obs: ``[B, O]``.
        :param batch: has the old policy at ``obs``.
        :return: actions ``[B, N, A]``, or ``None`` for all N discrete ones; values of the reward ``[B, N]``
            and of the costs ``[C, B, N]``.
        """
        if self.is_discrete:
            return None, *self._reduce(self.target_critic(obs))
        actions = self._sample(batch.old_mean, batch.old_scale)
        q = self.target_critic(obs, self._executed(actions), **self._estep_precision)
        return actions, *self._reduce(q)

    def _step_actor(self, outputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Moves the actor against the gradients of the loss in its outputs."""
        clear_gradients(self._actor_parameters)
        torch.autograd.backward(outputs, gradients)
        clip_gradients(self._actor_parameters, self.config.max_grad_norm)
        self.actor_optim.step()

    def _estep_metrics(self, solution: EStepSolution, old_cost: Tensor) -> dict[str, float]:
        """Returns numbers to log of an E-step.

        :param old_cost: ``[C]`` mean of Q_c over the batch under the old policy, in units of the scales.
        """
        expected = self._estep.expected_cost(
            solution.expected_cost.cpu(), old_cost, scale=self._cost_scale, steps=self._counted_steps
        )
        metrics = {
            "estep/kl_relative": solution.kl / self.config.kl_bound,
            "estep/temperature": solution.temperature,
            "estep/kkt_residual": solution.kkt_residual,
        }
        for status in get_args(Status):
            metrics[f"estep/{status}"] = float(solution.status == status)
        if self.episode_cost is not None:
            metrics |= per_cost("constraint/episode_cost", self.episode_cost.tolist())
        if self.level.value is not None:
            metrics |= per_cost("constraint/critic_level", self.level.value.tolist())
        if self.measured_cost.value is not None:
            metrics |= per_cost("constraint/measured_cost", self.measured_cost.value.tolist())
            metrics |= per_cost("constraint/extra_margin", self.measured_cost.extra_margin.tolist())
            metrics |= per_cost("constraint/extra_share", self.measured_cost.extra_share.tolist())
        return (
            metrics
            | per_cost("constraint/expected_cost", expected.tolist())
            | per_cost("constraint/multiplier", solution.multipliers.tolist())
            | self.per_constraint("constraint/surplus", (expected - self.cost_bound.cpu()).tolist())
        )
