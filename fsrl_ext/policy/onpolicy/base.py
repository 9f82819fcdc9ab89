"""The base of CPO, TRPO-Lag, PPO-Lag and FOCOPS: acting, advantages, critics, the costs of episodes.

Dimension letters: ``B`` batch, ``T`` steps of a collect, ``O`` observation, ``A`` action, ``C`` costs,
``S = 1 + C`` signals (reward first).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import gymnasium as gym
import numpy as np
import torch
from tianshou.data import ReplayBuffer
from tianshou.data.types import RolloutBatchProtocol
from tianshou.policy.base import TLearningRateScheduler
from torch import Tensor, nn

from fsrl_ext.errors import NonFiniteError, check_all_finite, check_fields, checked
from fsrl_ext.functional.distribution import distribution
from fsrl_ext.functional.returns import (
    Advantages,
    floored_deviation,
    generalised_advantages,
    steps_before,
    weighted_advantages,
)
from fsrl_ext.net import RecurrentActor, RecurrentValueCritic, Windows
from fsrl_ext.net.normaliser import ObservationNormaliser
from fsrl_ext.policy.base import (
    ConstrainedPolicy,
    MetricStats,
    PolicyConfig,
    are_images,
    check_cost_buffer,
    check_whole_collect,
    clear_gradients,
    per_cost,
    to_device,
)
from fsrl_ext.policy.onpolicy.sequences import Cuts, Sequences
from fsrl_ext.policy.optimise import descend, fit_with_lbfgs


@dataclass(frozen=True, kw_only=True)
class OnpolicyConfig(PolicyConfig):
    """Settings of advantages and observations in on-policy learning; ``docs/algorithms/onpolicy.md``.

    :raises ValueError: for a value outside its range; the message names the field, the value and the range.
    """

    gae_lambda: float = 0.95
    """Decay lambda of the reward's generalised advantage estimates, in (0, 1]."""
    cost_gae_lambda: float = 0.95
    """Decay lambda of the costs' generalised advantage estimates, in (0, 1]."""
    cost_gamma: float | None = None
    """Discount factor of the costs, in (0, 1]; ``None`` for ``gamma``. With 1 a time limit ends the costs to
    come; with less the value of the state after it stands for further costs."""
    normalise_signals: bool = True
    """Whether the critic learns returns divided by the standard deviations of reward and costs, so that no
    setting depends on their units."""
    normalise_observations: bool = True
    """Whether the networks see observations shifted by their mean and divided by their standard deviation;
    both are saved with the policy."""
    normalise_steps: int = 100_000
    """Number of environment steps, from the first on, that give the observations' mean and deviation, >= 1.
    While these move, they change the policy beside its updates."""
    deterministic_eval: bool | None = None
    """Whether the policy acts with its most probable action outside training steps; false for sampled
    actions. ``None``: true for continuous actions, and false for discrete ones, because the best policy
    within a limit may have to mix them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            unit_interval=("gae_lambda", "cost_gae_lambda", "cost_gamma"),
            at_least_one=("normalise_steps",),
        )

    @property
    def discount_of_costs(self) -> float:
        """Discount factor of the costs in force: ``cost_gamma``, or else ``gamma``."""
        return self.gamma if self.cost_gamma is None else self.cost_gamma


TConfig = TypeVar("TConfig", bound=OnpolicyConfig)


class Rollout(NamedTuple):
    """The data of one collect, with what the policy that collected them computed for them."""

    obs: Any
    """``[T, O]`` normalised observations; those of a recurrent policy as :class:`~fsrl_ext.net.Windows`."""
    act: Tensor
    """``[T, A]`` actions as drawn, before clipping, or ``[T]`` discrete actions."""
    log_density: Tensor
    """``[T]`` log densities of the actions, or log probabilities."""
    dist: Any
    """The distributions that the actions were drawn from, of :mod:`fsrl_ext.functional.distribution`."""
    advantages: Tensor
    """``[T, S]`` advantages of reward and costs; those of discounted costs are weighted."""
    returns: Tensor
    """``[T, S]`` targets of the critic."""

    def minibatches(self, batch_size: int | None) -> Iterator[Rollout]:
        """Yields the data once in random order, in minibatches.

        :param batch_size: transitions of a minibatch; ``None`` for all at once.
        """
        for places, rows in minibatches(self.obs, batch_size):
            yield Rollout(self.obs[places], *(x[rows] for x in self[1:]))


class Trajectories(NamedTuple):
    """The data from which advantages are computed: each environment's steps in order of time."""

    obs: Any
    """``[T, O]`` normalised observations before each step, or :class:`~fsrl_ext.net.Windows` of them."""
    next_obs: Any
    """``[T, O]`` normalised observations after each step, or windows of one step each."""
    signals: Tensor
    """``[T, S]`` reward and costs."""
    terminated: Tensor
    """``[T]`` bool: whether the step led to a terminal state."""
    truncated: Tensor
    """``[T]`` bool: whether the time limit ended the episode with the step."""
    ends: Tensor
    """``[T]`` bool: whether the next row belongs to another episode or environment."""


def minibatches(obs: Any, batch_size: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields all steps once in random order, in minibatches: places in ``obs``, and numbers of the steps.

    Both are the same, but of a recurrent policy the places are windows, each with all of its steps.

    :param obs: ``[T, O]``, or windows.
    :param batch_size: steps of a minibatch; ``None`` for all at once.
    """
    if isinstance(obs, Windows):
        yield from obs.minibatches(batch_size)
        return
    for places in shuffled(len(obs), batch_size, obs.device):
        yield places, places


def shuffled(size: int, batch_size: int | None, device: torch.device) -> tuple[Tensor, ...]:
    """Returns the places ``0 .. size - 1`` in random order, split into parts of ``batch_size``.

    :param batch_size: ``None`` for a single part.
    """
    return torch.randperm(size, device=device).split(batch_size or size)


class OnpolicyPolicy(ConstrainedPolicy[TConfig]):
    """Base class of the on-policy actor-critics with cost limits.

    An update uses all data of a collect. It computes generalised advantages of reward and costs, updates the
    actor (by the subclass), fits the critic, and updates the observations' statistics last, so that until
    then all networks see observations as the policy that collected saw them.

    Continuous actions are drawn from a Gaussian; only the environment gets them clipped to the normalised box
    ``[-1, 1]``. Discrete actions are drawn from a categorical distribution.

    A recurrent policy learns from windows of consecutive steps. The hidden states before them are those of
    the policy that collected: every update computes them from the beginning of each episode on, and episodes
    that go on in the next collect go on with the hidden states that the policy keeps for it. The collects of
    such a policy have to be passed to it one after the other, each once.

    :param actor: ``((mean, std), state) = actor(obs)``, such as :class:`~fsrl_ext.net.OnpolicyActor`; for
        discrete actions ``(logits [B, A], state) = actor(obs)``, such as
        :class:`~fsrl_ext.net.CategoricalActor`. With a :class:`~fsrl_ext.net.RecurrentActor` the policy is
        recurrent.
    :param critic: ``values [B, S] = critic(obs)``, such as :class:`~fsrl_ext.net.ValueCritic`; of a recurrent
        policy a :class:`~fsrl_ext.net.RecurrentValueCritic`.
    :param critic_optim: optimiser of the critic. ``torch.optim.LBFGS`` takes one step, of several iterations,
        on all data, with its settings for each network by itself; another optimiser takes minibatches in
        ``repeat`` passes over the data.
    :param action_space: a bounded ``Box``, or a ``Discrete`` space.
    :param cost_limit: largest cost of an episode in ``limit_unit``, >= 0, one number or one per cost; ``inf``
        for no constraint. The attribute can be set while training.
    :param max_episode_steps: the environment's time limit in steps, which stands for the length of an episode
        if none ends in the data.
    :param obs_dim: O; only ``normalise_observations`` needs it, which has no effect on images.
    :param observation_space: passed on to Tianshou's ``BasePolicy``.
    :param lr_scheduler: Tianshou steps it after every update.
    :param config: all other settings; ``None`` for their defaults. A config of the plain algorithm leaves the
        settings of the constraint at their defaults.
    :param settings: single settings by name, as in ``gamma=0.99``, which replace those of ``config``.
    :raises ValueError: for a space, limit or setting that the policy cannot use.
    :raises TypeError: for a config of another class, or a setting that does not exist.
    """

    takes_discrete_actions = True

    @checked(at_least_one=("max_episode_steps", "obs_dim"), own=("config", "cost_limit"))
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
        self._critic_parameters = list(critic.parameters())
        self.normaliser: ObservationNormaliser | None = None
        if self.config.normalise_observations and not getattr(actor, "sees_images", False):
            if obs_dim is None:
                raise ValueError("obs_dim must be given to normalise observations, got None")
            self.normaliser = ObservationNormaliser(obs_dim, horizon=self.config.normalise_steps)
        if isinstance(actor, RecurrentActor) != isinstance(critic, RecurrentValueCritic):
            raise ValueError(
                "actor and critic must both be recurrent or neither, "
                f"got {type(actor).__name__} and {type(critic).__name__}"
            )
        self._sequences: Sequences | None = None
        self._carried: dict[str, Tensor] | None = None
        self.cores = 1
        """Threads that fit the critic's networks at a time, at most; the number changes no result."""
        self._moments = np.zeros((3, 1 + self.num_costs))
        self.signal_scale: Tensor
        """``[S]`` scales of reward and costs, by which the critic's targets are divided."""
        self.value_level: Tensor
        """``[S]`` numbers, in units of reward and costs, that are added to the critic's values."""
        self.step_scale: Tensor
        """``[C]`` standard deviations of the costs of all steps so far."""
        self.register_buffer("signal_scale", torch.ones(1 + self.num_costs), persistent=False)
        self.register_buffer("value_level", torch.zeros(1 + self.num_costs), persistent=False)
        self.register_buffer("step_scale", torch.ones(self.num_costs), persistent=False)
        self.episode_cost = np.zeros(self.num_costs)
        """``[C]`` mean cost of the episodes that ended in the newest data, in the unit of the limits."""
        self.episode_length = float(max_episode_steps)
        """Mean number of steps of these episodes."""
        self._set_up()

    def _set_up(self) -> None:
        """Builds the parts that only one algorithm has; the constructor calls it last."""

    @property
    def is_recurrent(self) -> bool:
        """Whether actions depend on earlier observations of the episode, by a hidden state."""
        return isinstance(self.actor, RecurrentActor)

    def compute_action(self, obs: Any, info: dict[str, Any] | None = None, state: Any = None) -> Any:
        """Returns the action for one observation, in the environment's units.

        :raises ValueError: if the policy is recurrent, because the method returns no hidden state;
            :class:`~fsrl_ext.policy.EpisodeActor` remembers it.
        """
        if self.is_recurrent:
            raise ValueError(
                "compute_action has no place for the hidden state of a recurrent policy; "
                "act = fsrl_ext.policy.EpisodeActor(policy) keeps it: act.reset() before each episode, "
                "action = act(obs) in it"
            )
        return super().compute_action(obs, info, state)

    def _normalised(self, obs: Any) -> Tensor:
        """Returns observations ``[B, O]`` as the networks see them; images stay as they are."""
        if self.normaliser is not None:
            return self.normaliser(obs)
        if are_images(obs):
            return to_device(obs, self.device)
        return torch.as_tensor(obs, dtype=torch.float32, device=self.device).flatten(1)

    def acting_distribution(self, obs: Any, state: Any = None) -> tuple[Any, Any]:
        """Returns the distributions of the actions at observations ``[B, O]``, and the actor's state."""
        output, state = self.actor(self._normalised(obs), state=state)
        return distribution(output), state

    def _act(self, obs: Any, state: Any, *, explore: bool) -> tuple[Tensor, Any]:
        """Returns drawn actions, which may lie outside a box, or the most probable ones in evaluations."""
        dist, state = self.acting_distribution(obs, state)
        return (dist.sample() if explore or self.samples_in_evaluations else dist.mode()), state

    @torch.no_grad()
    def process_fn(
        self, batch: RolloutBatchProtocol, buffer: ReplayBuffer, indices: np.ndarray
    ) -> RolloutBatchProtocol:
        """Adds ``batch.advantages`` and ``batch.returns``, both ``[T, S]``, and reads the costs of episodes.

        ``batch.obs`` and ``batch.act`` become tensors. With limits on discounted costs, the advantages of the
        costs are weighted by the discounts of their steps
        (:func:`~fsrl_ext.functional.returns.weighted_advantages`).

        :param buffer: a buffer of :mod:`fsrl_ext.data`.
        :param indices: ``[T]`` places of all transitions in the buffer, each environment's in order of time.
        :raises TypeError: if the buffer does not store costs.
        :raises ValueError: if steps were overwritten since the buffer was last emptied, or if it does not
            store ``obs_next``: the last observation of an episode that the time limit ends is nowhere else.
        """
        check_cost_buffer(buffer)
        check_whole_collect(buffer)
        if not buffer._save_obs_next:
            raise ValueError("buffer must store obs_next (ignore_obs_next=False), got ignore_obs_next=True")
        assert isinstance(batch.obs, np.ndarray), "vectors or images"
        self._read_episodes(buffer, indices)
        device = self.device
        # An environment's last row ends its data, even if its episode goes on in the next collect.
        ends = buffer.done[indices] | np.isin(indices, buffer.unfinished_index())
        signals = np.concatenate([buffer.rew[indices, None], buffer.cost[indices]], axis=1)
        obs: Any = self._normalised(batch.obs)
        next_obs: Any = self._normalised(buffer.obs_next[indices])
        if self.is_recurrent:
            obs, next_obs = self._in_windows(obs, next_obs, buffer, indices, ends)
        data = Trajectories(
            obs,
            next_obs,
            to_device(signals, device),
            to_device(buffer.terminated[indices], device),
            to_device(buffer.truncated[indices], device),
            to_device(ends, device),
        )
        self._measure_scales(signals)
        self._prepare_critic(data)
        estimates = self._advantages(data, self.config.gae_lambda, self.config.cost_gae_lambda)
        batch.advantages, batch.returns = estimates.advantages, estimates.returns
        if self.limit_unit == "discounted":
            weights = self._step_discounts(buffer, indices, ends)
            of_costs = weighted_advantages(batch.advantages[:, 1:], to_device(weights, device))
            batch.advantages = torch.cat([batch.advantages[:, :1], of_costs], dim=1)
        batch.obs = to_device(batch.obs, device)
        batch.act = to_device(batch.act, device)
        return batch

    def _in_windows(
        self, obs: Tensor, next_obs: Tensor, buffer: Any, indices: np.ndarray, ends: np.ndarray
    ) -> tuple[Windows, Windows]:
        """Runs actor and critic over the data, and returns observations and next observations as windows.

        The hidden states before the windows are kept for :meth:`learn`, and those at the end of the data for
        the next data. The hidden states of an episode that the policy has not seen the beginning of are zero.

        :param obs: ``[T, O]`` normalised; likewise ``next_obs``.
        :param indices: as in :meth:`process_fn`.
        :param ends: ``[T]`` bool: whether the next row belongs to another episode or environment.
        """
        actor: Any = self.actor
        owners, first_steps = _owners(buffer, indices)
        cuts = Cuts.of(ends, owners, first_steps, actor.bptt_steps, obs.device)
        parts: dict[str, Any] = {"actor": actor.features, "critic": self.critic.features}
        carried = self._carried
        if carried is None or len(carried["actor"]) != len(first_steps):
            carried = {name: part.start(len(first_steps)) for name, part in parts.items()}
        states = {name: cuts.hidden_states(part, obs, carried[name].to(obs)) for name, part in parts.items()}
        self._carried = {name: after[cuts.last_steps] for name, (_, after) in states.items()}
        self._sequences = Sequences(cuts, states["actor"][0], states["critic"][0])
        afterwards = Windows.of_single_steps(next_obs, states["actor"][1], states["critic"][1])
        return self._sequences.windows(obs), afterwards

    def _measure_scales(self, signals: np.ndarray) -> None:
        """Adds ``signals [T, S]`` to the moments of all steps, and sets the scales.

        A scale stays as it is until it is wrong by a factor of two, because the critic learnt with it.
        """
        signals = signals.astype(np.float64)
        self._moments += np.stack([np.ones_like(signals), signals, signals**2]).sum(1)
        count, first, second = self._moments
        variance = np.maximum(second / count - (first / count) ** 2, 0.0)
        deviation = floored_deviation(np.sqrt(variance), np.sqrt(second / count))
        self.step_scale.copy_(torch.as_tensor(deviation[1:]))
        if not self.config.normalise_signals:
            return
        scale = self.signal_scale.cpu().numpy().astype(np.float64)
        wrong = (np.abs(np.log(deviation / scale)) > np.log(2.0)) | (count == len(signals))
        self.signal_scale.copy_(torch.as_tensor(np.where(wrong, deviation, scale)))

    def _values(self, obs: Tensor) -> Tensor:
        """Returns the critic's values ``[T, S]`` of observations ``[T, O]``, in units of reward and costs."""
        return self.critic(obs) * self.signal_scale + self.value_level

    def _prepare_critic(self, data: Trajectories) -> None:
        r"""Moves the level of the critic's values to where the TD errors of new data are zero on average.

        With the share p of steps after which nothing is bootstrapped, the level moves by

        .. math:: \frac{\mathbb{E} [s + \gamma V(s') - V(s)]}{1 - \gamma (1 - p)} .

        A critic begins at zero, and values of long sums are many times the differences between states. Until
        an optimiser has raised the critic so far, the missing level would make steps near the end of an
        episode look worse than all others, by more than any action does (``docs/notes/onpolicy.md``).
        """
        if not self.config.normalise_signals:
            return
        errors, follows = self._errors(data)
        # Undiscounted costs without an end in the data have no level; an end per time limit stands for it.
        loss = (1.0 - follows.mean(0)).clamp(min=1.0 / self.max_episode_steps)
        change = errors.mean(0) / loss
        self.value_level += torch.where(change.isfinite(), change, 0.0)  # learn refuses such data

    def _errors(self, data: Trajectories) -> tuple[Tensor, Tensor]:
        """Returns the TD errors ``[T, S]``, and the factors ``[T, S]`` of the values after each step."""
        gammas = [self.config.gamma, *[self.config.discount_of_costs] * self.num_costs]
        follows = torch.tensor(gammas, device=self.device) * ~data.terminated[:, None]
        over = data.truncated[:, None] & (follows == 1.0)
        follows = follows.masked_fill(over, 0.0)
        # The values of a terminal state may be anything, NaN included.
        ahead = torch.where(follows > 0.0, follows * self._values(data.next_obs), 0.0)
        return data.signals + ahead - self._values(data.obs), follows

    def _advantages(self, data: Trajectories, gae_lambda: float, cost_gae_lambda: float) -> Advantages:
        """Computes generalised advantages and value targets, ``[T, S]`` each, with the critic as it is.

        Undiscounted costs end at a time limit, because the sum of all costs without an end is not finite.
        Where the collect cuts an episode, the critic's values stand for the costs until its end.
        """
        cost_gamma = self.config.discount_of_costs
        next_values = self._values(data.next_obs)
        if cost_gamma == 1.0:
            over = data.truncated[:, None] & (torch.arange(self.num_costs + 1, device=self.device) > 0)
            next_values = next_values.masked_fill(over, 0.0)
        return generalised_advantages(
            data.signals,
            self._values(data.obs),
            next_values,
            terminated=data.terminated,
            ends=data.ends,
            gamma=[self.config.gamma, *[cost_gamma] * self.num_costs],
            gae_lambda=[gae_lambda, *[cost_gae_lambda] * self.num_costs],
        )

    def _step_discounts(self, buffer: Any, indices: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Returns the discount of the costs of each step, from the first step of its episode on, ``[T]``.

        An episode that the collect before began goes on with the steps that it had.

        :param indices: as in :meth:`process_fn`.
        :param ends: ``[T]`` bool: whether the next row belongs to another episode or environment.
        """
        steps = steps_before(np.concatenate([[True], ends[:-1]]), *_owners(buffer, indices))
        return self.config.discount_of_costs**steps

    def _read_episodes(self, buffer: Any, indices: np.ndarray) -> None:
        """Sets mean cost and length of an episode from the episodes that ended in the buffer's data.

        If none ended, the cost of an episode is that of ``max_episode_steps`` steps of the mean cost.
        """
        episodes = buffer.episodes
        if len(episodes.lens):
            self.episode_cost = episodes.limited_costs(self.limit_unit).mean(0)
            self.episode_length = float(episodes.lens.mean())
        else:
            self.episode_length = float(self.max_episode_steps)
            step_cost = buffer.cost[indices].mean(0, dtype=np.float64)
            self.episode_cost = step_cost * self.steps_that_count(self.episode_length)

    def _step_surplus(self) -> Tensor:
        """Returns the surplus of an episode's cost over the limit less the margin, per step, ``[C]``.

        In either unit of the limits, the change of the mean over steps of ``ratio A_c`` stands for the change
        of the episode's cost divided by the number of its steps.
        """
        return (to_device(self.episode_cost, self.device) - self.cost_bound) / self.episode_length

    def get_extra_state(self) -> dict[str, Any]:
        """Returns mean cost and length of the newest episodes, and the scales of reward and costs."""
        carried: dict[str, Any] | None = None
        if self._carried is not None:
            carried = {name: state.tolist() for name, state in self._carried.items()}
        return {
            **({"hidden_states": carried} if self.is_recurrent else {}),
            "episode_cost": self.episode_cost.tolist(),
            "episode_length": self.episode_length,
            "units": {
                "moments": self._moments.tolist(),
                "signal_scale": self.signal_scale.tolist(),
                "step_scale": self.step_scale.tolist(),
                "value_level": self.value_level.tolist(),
            },
        }

    def _load_progress(self, state: Mapping[str, Any]) -> None:
        if self.is_recurrent and state["hidden_states"] is not None:
            states = state["hidden_states"].items()
            self._carried = {name: torch.tensor(x, device=self.device) for name, x in states}
        self.episode_cost, self.episode_length = np.array(state["episode_cost"]), state["episode_length"]

    def _load_units(self, state: Mapping[str, Any]) -> None:
        self._moments = np.array(state["moments"])
        self.signal_scale.copy_(torch.tensor(state["signal_scale"]))
        self.step_scale.copy_(torch.tensor(state["step_scale"]))
        # Earlier files had no level: the critic learnt the whole values.
        self.value_level.copy_(torch.tensor(state.get("value_level", [0.0] * len(self.value_level))))

    def learn(
        self, batch: RolloutBatchProtocol, batch_size: int | None, repeat: int, *args: Any, **kwargs: Any
    ) -> MetricStats:
        """Updates actor, critic and observation statistics.

        :param batch: what :meth:`process_fn` returned.
        :param batch_size: transitions of a minibatch, ``None`` for all at once.
        :param repeat: passes over the data.
        :raises NonFiniteError: if the data are not finite, and no parameter has changed then; or if a loss is
            not finite, and the step on that loss is not taken.
        """
        # The old policy on its data
        rollout = self._rollout(batch)
        # Actor
        metrics = self._update_actor(rollout, batch_size, repeat)
        # Critic
        metrics |= self._fit_critic(rollout.obs, rollout.returns, batch_size, repeat)
        metrics |= per_cost("constraint/episode_cost", self.episode_cost.tolist())
        metrics |= rollout.dist.metrics()
        # Observation statistics
        if self.normaliser is not None and not self.normaliser.settled:
            assert isinstance(batch.obs, Tensor)
            metrics["policy/drift"] = self._move_statistics(self.normaliser, batch.obs)
        return MetricStats.of({}, metrics)

    @torch.no_grad()
    def _move_statistics(self, normaliser: ObservationNormaliser, obs: Tensor) -> float:
        """Adds observations ``[B, O]`` to the statistics.

        :return: mean KL divergence, in nats, of the policy before from the policy after.
        """
        before = self._dist(self._inputs(normaliser(obs)))
        normaliser.update(obs)
        return float(before.kl(self._dist(self._inputs(normaliser(obs)))).mean())

    def _inputs(self, obs: Tensor) -> Any:
        """Returns normalised observations ``[T, O]`` of the processed data as actor and critic take them."""
        if not self.is_recurrent:
            return obs
        assert self._sequences is not None, "process_fn comes before learn"
        return self._sequences.windows(obs)

    def _dist(self, obs: Any) -> Any:
        """Returns the actor's distributions for normalised observations ``[B, O]``, or for windows."""
        return distribution(self.actor(obs)[0])

    @torch.no_grad()
    def _rollout(self, batch: RolloutBatchProtocol) -> Rollout:
        """Returns the processed batch with the distributions that its actions were drawn from.

        :raises NonFiniteError: if observations, actions or returns are not finite.
        """
        assert isinstance(batch.obs, Tensor), "process_fn comes before learn"
        assert isinstance(batch.act, Tensor), "process_fn comes before learn"
        obs = self._normalised(batch.obs)
        inputs = self._inputs(obs)
        dist = self._dist(inputs)
        density = dist.log_density(batch.act)
        sums = torch.stack([obs.sum(dtype=density.dtype), density.sum(), batch.returns.sum()])
        check_all_finite(sums, ["observations", "actions", "returns of reward or cost"])
        return Rollout(inputs, batch.act, density, dist, batch.advantages, batch.returns)

    @abstractmethod
    def _update_actor(self, rollout: Rollout, batch_size: int | None, repeat: int) -> dict[str, float]:
        """Updates the actor by the algorithm's rule; returns numbers to log.

        :param batch_size: transitions of a minibatch, ``None`` for all at once.
        :param repeat: passes over the data.
        """

    @torch.no_grad()
    def _mean_kl(self, rollout: Rollout) -> float:
        """Returns the mean KL divergence of the policy that collected from the current one, in nats."""
        return float(rollout.dist.kl(self._dist(rollout.obs)).mean())

    def _fit_critic(self, obs: Any, returns: Tensor, batch_size: int | None, repeat: int) -> dict[str, float]:
        """Fits the critic's values to returns by least squares.

        :param obs: ``[T, O]``, normalised, or windows.
        :param returns: ``[T, S]``.
        :param batch_size: transitions of a minibatch, ``None`` for all at once; L-BFGS takes all at once.
        :param repeat: passes over the data; L-BFGS makes one call instead.
        :return: numbers to log.
        :raises NonFiniteError: if the loss is not finite; the step on that loss is not taken.
        """

        targets = (returns - self.value_level) / self.signal_scale

        def losses(places: Tensor | slice, rows: Tensor | slice) -> Tensor:
            return (self.critic(obs[places]) - targets[rows]).square().mean(0)

        if isinstance(self.critic_optim, torch.optim.LBFGS):
            self._fit_with_lbfgs(self.critic_optim, obs, targets)
        else:
            for _ in range(repeat):
                for places, rows in minibatches(obs, batch_size):
                    loss = losses(places, rows).sum()
                    descend(self.critic_optim, loss, self._critic_parameters, "critic loss")
        with torch.no_grad():
            remaining = losses(slice(None), slice(None))
        unexplained = (remaining / targets.var(0, correction=0).clamp(min=1e-12)).tolist()
        metrics = {"loss/critic_reward": float(remaining[0]), "critic/unexplained_reward": unexplained[0]}
        metrics |= per_cost("loss/critic_cost", remaining[1:].tolist())
        return metrics | per_cost("critic/unexplained_cost", unexplained[1:])

    def _fit_with_lbfgs(self, optim: torch.optim.LBFGS, obs: Any, targets: Tensor) -> None:
        """Fits the critic's networks to targets, each by an L-BFGS of its own with the optimiser's settings.

        The networks share no parameter, so a length of the step and a curvature for each network fit them
        better than common ones do. Threads fit the networks side by side, which changes no number.

        :param obs: ``[T, O]``.
        :param targets: ``[T, S]``.
        :raises NonFiniteError: if the loss of a network is not finite; no network has changed then.
        """
        # The annotation is `Any` because a critic of another class may lack the networks.
        critic: Any = self.critic
        if not hasattr(critic, "loss_and_gradients"):
            self._fit_whole_critic(optim, obs, targets)
            return
        before = [x.detach().clone() for x in self._critic_parameters]
        settings = {name: value for name, value in optim.param_groups[0].items() if name != "params"}

        def fit(net: int) -> None:
            own = critic.network(net)

            def backward() -> Tensor:
                loss, gradients = critic.loss_and_gradients(net, obs, targets)
                for parameter, gradient in zip(own, gradients, strict=True):
                    parameter.grad = gradient
                return loss

            fit_with_lbfgs(torch.optim.LBFGS(own, **settings), backward, own, "critic loss")

        try:
            if self.cores == 1 or critic.num_nets == 1:
                for net in range(critic.num_nets):
                    fit(net)
            else:
                with ThreadPoolExecutor(min(self.cores, critic.num_nets)) as pool:
                    list(pool.map(fit, range(critic.num_nets)))
        except NonFiniteError:
            with torch.no_grad():
                torch._foreach_copy_(list(self._critic_parameters), before)
            raise

    def _fit_whole_critic(self, optim: torch.optim.LBFGS, obs: Any, targets: Tensor) -> None:
        """Fits a critic of any class to targets by one call of the optimiser."""

        def backward() -> Tensor:
            clear_gradients(self._critic_parameters)
            with torch.enable_grad():
                loss = (self.critic(obs) - targets).square().mean(0).sum()
            loss.backward()
            return loss.detach()

        fit_with_lbfgs(optim, backward, self._critic_parameters, "critic loss")


def _owners(buffer: Any, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the environment of each row, and how many steps the environments' first episodes had before.

    :param indices: ``[T]`` places of all transitions in the buffer.
    :return: ``[T]`` and ``[N]``.
    """
    owners = np.searchsorted(buffer.subbuffer_edges, indices, side="right") - 1
    first = buffer.episodes.first_steps
    if len(first) == 1:
        first = np.full(len(buffer.subbuffer_edges) - 1, first[0])
    return owners, first
