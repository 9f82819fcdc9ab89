"""A collector that reads, checks, stores and counts costs."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from tianshou.data import Collector, ReplayBuffer
from tianshou.data.collector import (
    DEFAULT_BUFFER_MAXSIZE,
    CollectActionBatchProtocol,
    EpisodeRolloutHookProtocol,
    StepHookProtocol,
)
from tianshou.data.types import RolloutBatchProtocol
from tianshou.env import BaseVectorEnv, DummyVectorEnv
from tianshou.policy import BasePolicy

from fsrl_ext.data.buffer import CostBuffer
from fsrl_ext.data.cost_env import CostVectorEnv
from fsrl_ext.data.episodes import EpisodeTracker, FinishedEpisodes
from fsrl_ext.data.errors import NonFiniteStepError
from fsrl_ext.data.fast_collect import FastCollector, check_one_reward, forgotten, is_recurrent
from fsrl_ext.data.history import EnvHistory, replay
from fsrl_ext.data.row_writer import RowWriter
from fsrl_ext.data.seeds import restart_seeds
from fsrl_ext.data.stats import CostCollectStats
from fsrl_ext.data.storage import storable
from fsrl_ext.data.vector_buffer import CostVectorReplayBuffer
from fsrl_ext.errors import checked, shown


class CostCollector(Collector[CostCollectStats]):
    """Tianshou's ``Collector`` for environments that report ``info["cost"]`` at every step.

    The cost of every transition goes to ``buffer.cost [S, C]``; ``info`` is not stored. Episode returns,
    lengths and costs are counted from what the environments do, not read back from the buffer, so they stay
    right when an on-policy trainer empties it in the middle of an episode. Every collect that succeeds is
    published in ``buffer.episodes``, an :class:`~fsrl_ext.data.episodes.EpisodeLog`. A reset of the
    environments closes the open episodes in the buffer, so no n-step return reaches from one episode into the
    next. No gradients are recorded while collecting.

    :param policy: any Tianshou policy.
    :param env: an environment or a vectorised (not asynchronous) one, ``N`` environments in all.
    :param buffer: a :class:`CostReplayBuffer` (one environment) or :class:`CostVectorReplayBuffer`; default:
        a new one.
    :param exploration_noise: see Tianshou.
    :param on_episode_done_hook: see Tianshou. The hook sees what the buffer holds of the episode.
    :param on_step_hook: see Tianshou. The hook sees ``rollout_batch.cost [R, C]``; what it writes to ``rew``
        and ``cost`` is stored and counted.
    :param raise_on_nan_in_buffer: see Tianshou. What enters the buffer is checked in any case.
    :param collect_stats_class: a subclass of :class:`CostCollectStats`.
    :param num_costs: number of costs ``C`` of the default buffer (1 if not given).
    :param discount: if given, statistics and the log of episodes have discounted episode returns and costs,
        too; one number for all of them, or one for the return and one for each cost.
    :param pass_info: show the environments' infos to the policy and to hooks. It is off by default, because
        converting them takes longer than everything else in a collector step.
    :param fast: use the loop of :mod:`fsrl_ext.data.fast_collect` where nothing needs Tianshou's own: there
        are no hooks, no infos and no rendering, and the buffer holds plain arrays. The results are the same,
        bit for bit. A policy that says ``is_recurrent`` has a tensor ``[R, H]`` as its state, which is kept
        for each environment until the end of its episode and is not stored; of another policy with a state,
        Tianshou's own loop stores it.
    :param replayable: remember what the environments went through since they were last seeded, which
        :meth:`state_dict` needs.
    :raises TypeError: ``buffer`` has no place for costs, or ``collect_stats_class`` has none.
    :raises ValueError: the environments are asynchronous, their action spaces are not the policy's,
        ``discount`` is not in [0, 1] or of another length, or ``num_costs`` contradicts the buffer.

    Collecting raises ``ValueError`` if a cost is missing or has the wrong number of entries, naming the
    environment, and :class:`NonFiniteStepError` for NaN and infinity. An exception of an environment passes
    on. The step is then not stored, and the steps before it are stored and counted. After an exception, and
    after Ctrl-C, the next collect resets all environments and says so in a warning
    (``docs/environments.md``).
    """

    env: CostVectorEnv
    buffer: CostBuffer

    @checked(
        at_least_one=("num_costs",), closed_unit_interval=("discount",), own=("buffer", "collect_stats_class")
    )
    def __init__(
        self,
        policy: BasePolicy,
        env: gym.Env | BaseVectorEnv,
        buffer: ReplayBuffer | None = None,
        exploration_noise: bool = False,
        on_episode_done_hook: EpisodeRolloutHookProtocol | None = None,
        on_step_hook: StepHookProtocol | None = None,
        raise_on_nan_in_buffer: bool = False,
        collect_stats_class: type[CostCollectStats] = CostCollectStats,
        *,
        num_costs: int | None = None,
        discount: float | tuple[float, ...] | None = None,
        pass_info: bool = False,
        fast: bool = True,
        replayable: bool = False,
    ) -> None:
        venv = env if isinstance(env, BaseVectorEnv) else DummyVectorEnv([lambda: env])
        if venv.is_async:
            raise ValueError(
                "CostCollector needs synchronous environments (wait_num and timeout not set): "
                "Tianshou's AsyncCollector has no place to read costs"
            )
        if not (isinstance(collect_stats_class, type) and issubclass(collect_stats_class, CostCollectStats)):
            got = shown(collect_stats_class)
            raise TypeError(f"collect_stats_class must be a subclass of CostCollectStats, got {got}")
        if buffer is None:
            size = DEFAULT_BUFFER_MAXSIZE * len(venv)
            buffer = CostVectorReplayBuffer(size, len(venv), 1 if num_costs is None else num_costs)
        if not isinstance(buffer, CostBuffer):
            raise TypeError(
                "buffer must be a CostReplayBuffer or CostVectorReplayBuffer, "
                f"got {type(buffer).__name__}, which does not store costs"
            )
        if num_costs not in (None, buffer.num_costs):
            raise ValueError(f"num_costs={num_costs}, but the buffer has {buffer.num_costs}")
        super().__init__(
            policy,
            CostVectorEnv(venv, buffer.num_costs, pass_info),
            buffer,
            exploration_noise,
            on_episode_done_hook,
            on_step_hook,
            raise_on_nan_in_buffer,
            collect_stats_class,
        )
        self.env.action_spaces.check_policy(policy.action_space)
        self._action_space = self.env.action_spaces
        _check_discount(policy, discount)
        self.discount = discount
        self.fast = fast
        self._failed = False
        if replayable:
            self.env.history = EnvHistory(self.env_num)
        self._episodes = EpisodeTracker(self.env_num, buffer.num_costs, discount)

    @property
    def num_costs(self) -> int:
        """Number of costs ``C``."""
        return self.buffer.num_costs

    @property
    def replayable(self) -> bool:
        """Whether the collector remembers what its environments went through."""
        return self.env.history is not None

    @property
    def action_spaces(self) -> list[gym.Space]:
        """The action space of each environment, which random actions are drawn from.

        They are copies, which a reset with a seed seeds: the same seeds give the same random actions,
        wherever the environments run.
        """
        return self.env.action_spaces

    def run_on_step_hook(
        self, action_batch: CollectActionBatchProtocol, rollout_batch: RolloutBatchProtocol
    ) -> None:
        """Add the costs to the step, run the user's hook, count the step."""
        rollout_batch.cost = self.env.cost
        if not self.env.pass_info:
            rollout_batch.pop("info")
        done = np.array(rollout_batch.done, dtype=bool)
        super().run_on_step_hook(action_batch, rollout_batch)
        rew = np.asarray(rollout_batch.rew, dtype=float)
        check_one_reward(rew)
        storable(rollout_batch, self.num_costs, self.env.ids)  # What will be refused is not counted either.
        self._episodes.step(self.env.ids, rew, np.asarray(rollout_batch.cost, dtype=float), done)

    def reset_env(self, gym_reset_kwargs: dict[str, Any] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Reset all environments, and close the open episodes in the buffer.

        :param gym_reset_kwargs: passed to every environment; ``"seed"`` may be a sequence with one seed for
            each.
        :return: initial observations ``[N, ...]`` and infos ``[N]`` (None without ``pass_info``).
        :raises NonFiniteStepError: an initial observation holds NaN or infinity.
        """
        self.buffer.close_episodes()
        self._episodes.reset()
        self._pre_collect_obs_RO = None
        self._failed = True  # unless all environments are reset
        start = super().reset_env(gym_reset_kwargs=gym_reset_kwargs)
        self._failed = False
        return start

    def reset_stat(self) -> None:
        """Reset the counters of steps, episodes and time."""
        super().reset_stat()
        self.env.steps = 0

    def renew_seeds(self, seeds: Sequence[int]) -> None:
        """Seed each environment at its next reset, so a replayable collector forgets what was before.

        :param seeds: ``[N]``.
        :raises ValueError: there is not one seed per environment, or the collector is not replayable.
        """
        self._history().renew(seeds)

    def state_dict(self, *, with_buffer: bool = True) -> dict[str, Any]:
        """Return open episodes, environments and buffer as plain arrays and numbers, between two collects.

        :param with_buffer: whether the buffer is part of it.
        :raises ValueError: the collector is not replayable, shows infos, or keeps the state of a policy that
            does not say ``is_recurrent``.
        :raises TypeError: the buffer is not a :class:`CostVectorReplayBuffer` of plain arrays.
        """
        history = self._history()
        hidden = self._pre_collect_hidden_state_RH
        if self.env.pass_info or (hidden is not None and not is_recurrent(self.policy)):
            raise ValueError(
                "state_dict needs a collector without pass_info, and a policy without a state of its own kind"
            )
        state: dict[str, Any] = {
            "history": history.state_dict(),
            "obs": None if self._pre_collect_obs_RO is None else self._pre_collect_obs_RO.copy(),
            "episodes": self._episodes.state_dict(),
            "spaces": [space.np_random.bit_generator.state for space in self.action_spaces],
            "counters": [self.collect_step, self.collect_episode, self.collect_time, self.env.steps],
        }
        if isinstance(hidden, torch.Tensor):
            state["hidden_states"] = hidden.cpu().numpy().copy()
        return state | ({"buffer": self._vector_buffer().state_dict()} if with_buffer else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Take over the state of an equal collector; the environments repeat what they went through.

        :return: whether that led the environments to where they were. If not (an environment is not
            deterministic, or was never seeded), a warning says so, and new episodes begin.
        """
        if "buffer" in state:
            self._vector_buffer().load_state_dict(state["buffer"])
        history, self.env.history = self._history(), None  # Replaying is not part of the history.
        try:
            obs = replay(self.env, state["history"])
        finally:
            self.env.history = history
        history.load_state_dict(state["history"])
        for space, saved in zip(self.action_spaces, state["spaces"], strict=True):
            space.np_random.bit_generator.state = saved
        self.collect_step, self.collect_episode, self.collect_time, self.env.steps = state["counters"]
        if obs is not None and state["obs"] is not None and np.array_equal(obs, state["obs"]):
            self._episodes.load_state_dict(state["episodes"])
            hidden = state.get("hidden_states")
            self._start_from(obs, None if hidden is None else torch.as_tensor(hidden.copy()))
            return True
        warnings.warn(
            "the environments were never seeded; new episodes begin"
            if obs is None
            else "the collect before was broken off; new episodes begin"
            if state["obs"] is None
            else "the environments did not repeat themselves from the same seeds; new episodes begin",
            stacklevel=2,
        )
        seeds = restart_seeds(self.collect_step, state["history"]["seeds"], self.env_num)
        self.reset_env(gym_reset_kwargs={"seed": seeds})
        return False

    def _history(self) -> EnvHistory:
        if self.env.history is None:
            raise ValueError("the collector must be replayable=True")
        return self.env.history

    def _vector_buffer(self) -> CostVectorReplayBuffer:
        if not isinstance(self.buffer, CostVectorReplayBuffer):
            raise TypeError(f"buffer must be a CostVectorReplayBuffer, got {type(self.buffer).__name__}")
        return self.buffer

    def _collect(
        self,
        n_step: int | None = None,
        n_episode: int | None = None,
        random: bool = False,
        render: float | None = None,
        gym_reset_kwargs: dict[str, Any] | None = None,
    ) -> CostCollectStats:
        start = time.perf_counter()
        if self._failed:
            warnings.warn(
                "the last collect or reset failed; all environments are reset and new episodes begin",
                stacklevel=3,
            )
            self.reset_env(gym_reset_kwargs)
        before = self.collect_step, self.collect_episode
        try:
            with torch.no_grad():
                stats = None
                if self._can_collect_fast(n_episode, render):
                    stats = self._collect_fast(n_step, n_episode, random, gym_reset_kwargs)
                if stats is None:
                    stats = super()._collect(n_step, n_episode, random, render, gym_reset_kwargs)
        except BaseException as error:
            # Also after Ctrl-C: the environments have moved on from the observations kept for the next call.
            self._pre_collect_obs_RO = None
            self._failed = True
            finished = self._publish_episodes(only_steps=True)
            self.collect_step = before[0] + int(finished.steps.sum())
            self.collect_episode = before[1] + len(finished.lens)
            if isinstance(error, NonFiniteStepError) and error.step is None:
                raise NonFiniteStepError(error.field, error.env_id, self.env.steps) from error
            raise
        finished = self._publish_episodes()
        stats.set_episodes(finished, discounted=self.discount is not None)
        # Tianshou's synchronous collector leaves its clock at zero.
        self.collect_time += time.perf_counter() - start
        return stats

    def _publish_episodes(self, *, only_steps: bool = False) -> FinishedEpisodes:
        """Report the episodes that ended in this collect, and its steps, to the log of the buffer.

        :param only_steps: report nothing if no step was stored.
        """
        finished = self._episodes.pop_finished()
        if finished.steps.any() or not only_steps:
            self.buffer.episodes.publish(
                finished.costs,
                finished.lens,
                finished.steps,
                discounted_costs=None if self.discount is None else finished.discounted_costs,
                open_steps=finished.open_steps,
            )
        return finished

    def _compute_action_policy_hidden(
        self, random: bool, ready_env_ids_R: np.ndarray, last_obs_RO: np.ndarray, *others: Any, **kwargs: Any
    ) -> CollectActionBatchProtocol:
        # The policy may change what it sees; the observations are stored after it has acted.
        seen = deepcopy(last_obs_RO)
        answer = super()._compute_action_policy_hidden(random, ready_env_ids_R, seen, *others, **kwargs)
        if is_recurrent(self.policy):
            answer.policy_entry.pop("hidden_state", None)  # which Tianshou would store
        return answer

    @staticmethod
    def _reset_hidden_state_based_on_type(env_ind_local_D: np.ndarray, last_hidden_state_RH: Any) -> None:
        if not isinstance(last_hidden_state_RH, torch.Tensor):
            Collector._reset_hidden_state_based_on_type(env_ind_local_D, last_hidden_state_RH)
            return
        # Tianshou sets a copy of these rows to zero.
        done = np.zeros(len(last_hidden_state_RH), dtype=bool)
        done[env_ind_local_D] = True
        last_hidden_state_RH.copy_(forgotten(last_hidden_state_RH, done))

    def _can_collect_fast(self, n_episode: int | None, render: float | None) -> bool:
        return (
            self.fast
            and not (self._on_step_hook or self._on_episode_done_hook or self.env.pass_info or render)
            and (n_episode is None or n_episode >= self.env_num)
            and self._pre_collect_obs_RO is not None
            and (self._pre_collect_hidden_state_RH is None or is_recurrent(self.policy))
            and RowWriter.can_write(self.buffer)
        )

    def _collect_fast(
        self, n_step: int | None, n_episode: int | None, random: bool, gym_reset_kwargs: dict[str, Any] | None
    ) -> CostCollectStats | None:
        """Collect by the loop on plain arrays; None if the policy needs Tianshou's own loop."""
        assert self._pre_collect_obs_RO is not None
        loop = FastCollector(
            policy=self.policy,
            env=self.env,
            buffer=self.buffer,
            tracker=self._episodes,
            spaces=self.action_spaces,
            exploration_noise=self.exploration_noise,
        )
        hidden: Any = self._pre_collect_hidden_state_RH
        done = loop.collect(
            self._pre_collect_obs_RO,
            n_step=n_step,
            n_episode=n_episode,
            random=random,
            reset_kwargs=gym_reset_kwargs or {},
            state=hidden,
        )
        if done is None:
            self.fast = False
            return None
        self.collect_step += done.steps
        self.collect_episode += done.episodes
        if n_step:
            self._start_from(done.obs, done.state)
        else:
            self.reset_env(gym_reset_kwargs)
        stats = self.collect_stats_class()
        stats.n_collected_steps = done.steps
        if done.deviations is not None:
            stats.pred_dist_std_array = done.deviations
        return stats

    def _start_from(self, obs: np.ndarray, state: torch.Tensor | None) -> None:
        """Let the next collect start from observations ``[N, ...]`` and hidden states ``[N, H]``."""
        self._failed = False
        self._pre_collect_hidden_state_RH = state
        self._pre_collect_obs_RO = obs
        self._pre_collect_info_R = np.full(self.env_num, None)


def _check_discount(policy: BasePolicy, discount: float | tuple[float, ...] | None) -> None:
    """:raises ValueError: the policy limits discounted costs, and the collector has another discount."""
    if getattr(policy, "limit_unit", "episode") != "discounted":
        return
    config: Any = policy.config
    wanted = config.discount_of_costs
    factors = np.atleast_1d(np.asarray(discount, dtype=float))  # None becomes NaN
    if not (factors[min(1, len(factors) - 1) :] == wanted).all():
        raise ValueError(
            f"discount must be {wanted:g} for the costs, because the policy has limit_unit='discounted' and "
            f"this discount of the costs, got {shown(discount)}"
        )
