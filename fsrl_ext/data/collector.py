"""A collector that reads, checks, stores and counts costs."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from tianshou.data import Batch, Collector, ReplayBuffer, to_numpy
from tianshou.data.collector import (
    DEFAULT_BUFFER_MAXSIZE,
    CollectActionBatchProtocol,
    EpisodeRolloutHookProtocol,
    StepHookProtocol,
    get_stddev_from_dist,
)
from tianshou.data.types import RolloutBatchProtocol
from tianshou.env import BaseVectorEnv, DummyVectorEnv
from tianshou.policy import BasePolicy

from fsrl_ext.data.buffer import AnyCostBuffer, CostReplayBuffer, CostVectorReplayBuffer
from fsrl_ext.data.buffer_state import buffer_state, load_buffer_state
from fsrl_ext.data.cost_env import CostVectorEnv
from fsrl_ext.data.episodes import EpisodeTracker
from fsrl_ext.data.errors import NonFiniteStepError, check_finite
from fsrl_ext.data.history import EnvHistory, replay
from fsrl_ext.data.row_writer import RowWriter
from fsrl_ext.data.stats import CostCollectStats


class CostCollector(Collector[CostCollectStats]):
    """Tianshou's ``Collector`` for environments that report ``info["cost"]`` at every step.

    The cost of every transition goes to ``buffer.cost [S, C]``; ``info`` is not stored. Episode
    returns, lengths and costs are counted from what the environments do, not read back from the
    buffer, so they stay right when an on-policy trainer clears it in the middle of an episode.
    Resetting the environments closes the open episodes in the buffer: no n-step return reaches
    from one episode into the next. Every collect that succeeds is published in ``buffer.episodes``, an
    :class:`~fsrl_ext.data.episodes.EpisodeLog`. No gradients are recorded while collecting.

    :param policy: any Tianshou policy.
    :param env: an environment or a vectorised (not asynchronous) one.
    :param buffer: a :class:`CostReplayBuffer` (one environment) or
        :class:`CostVectorReplayBuffer`; default: a new one.
    :param exploration_noise: see Tianshou.
    :param on_episode_done_hook: see Tianshou. The hook sees what the buffer holds of the episode.
    :param on_step_hook: see Tianshou; it sees ``rollout_batch.cost [R, C]``. What it writes to
        ``rew`` and ``cost`` is stored and counted.
    :param raise_on_nan_in_buffer: see Tianshou. What enters the buffer is checked in any case.
    :param collect_stats_class: a subclass of :class:`CostCollectStats`.
    :param num_costs: number of costs ``C`` of the default buffer (1 if not given).
    :param discount: if given, statistics have discounted episode returns and costs, too.
    :param pass_info: show the environments' infos to the policy and to hooks. Off by default:
        converting them takes longer than everything else in a collector step.
    :param fast: write steps straight into the buffer's arrays where nothing needs Tianshou's way: no hooks,
        no infos, no rendering, no recurrent state, plain arrays. The results are the same, bit for bit.
    :param replayable: remember what the environments went through since they were last seeded, for
        :meth:`state_dict`.
    :raises TypeError: ``buffer`` has no place for costs, or ``collect_stats_class`` none.
    :raises ValueError: asynchronous environments; ``num_costs`` contradicts the buffer.

    Collecting raises ``ValueError`` naming the environment whose cost is missing or has the wrong
    number of entries, and :class:`NonFiniteStepError` for NaN and infinity; the step is not stored, and
    the environments must be reset before collecting on.
    """

    env: CostVectorEnv
    buffer: AnyCostBuffer

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
        discount: float | None = None,
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
        if discount is not None and not 0 <= discount <= 1:
            raise ValueError(f"discount must be in [0, 1], got {discount}")
        if not issubclass(collect_stats_class, CostCollectStats):
            raise TypeError(
                "collect_stats_class must be a subclass of CostCollectStats, "
                f"got {collect_stats_class.__name__}"
            )
        if buffer is None:
            size = DEFAULT_BUFFER_MAXSIZE * len(venv)
            buffer = CostVectorReplayBuffer(size, len(venv), 1 if num_costs is None else num_costs)
        if not isinstance(buffer, CostReplayBuffer | CostVectorReplayBuffer):
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
        self.discount = discount
        self.fast = fast
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
        if rew.ndim != 1:
            raise ValueError(f"each environment must report one reward, got shape {rew.shape[1:]}")
        self._episodes.step(self.env.ids, rew, np.asarray(rollout_batch.cost, dtype=float), done)

    def reset_env(self, gym_reset_kwargs: dict[str, Any] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Reset all environments; episodes that were open end here, in the buffer, too.

        :param gym_reset_kwargs: passed to every environment alike, so ``{"seed": 0}`` gives all of
            them the same seed; ``collector.env.seed(0)`` gives environment ``i`` the seed ``i``.
        :return: initial observations ``[N, ...]`` and infos ``[N]`` (None without ``pass_info``).
        :raises NonFiniteStepError: an initial observation holds NaN or infinity.
        """
        self.buffer.close_episodes()
        self._episodes.reset()
        self._pre_collect_obs_RO = None
        return super().reset_env(gym_reset_kwargs=gym_reset_kwargs)

    def reset_stat(self) -> None:
        """Reset the counters of steps, episodes and time."""
        super().reset_stat()
        self.env.steps = 0

    def renew_seeds(self, seeds: Sequence[int]) -> None:
        """Seeds ``[N]`` for each environment's next reset: a replayable collector forgets what was before.

        :raises ValueError: not as many seeds as environments; the collector is not replayable.
        """
        self._history().renew(seeds)

    def state_dict(self) -> dict[str, Any]:
        """Buffer, open episodes and environments, as plain arrays and numbers, between two collects.

        :raises ValueError: the collector is not replayable, shows infos or keeps a recurrent state.
        :raises TypeError: the buffer is not a :class:`CostVectorReplayBuffer` of plain arrays.
        """
        if not isinstance(self.buffer, CostVectorReplayBuffer):
            raise TypeError(f"buffer must be a CostVectorReplayBuffer, got {type(self.buffer).__name__}")
        return {"buffer": buffer_state(self.buffer), "acting": self.acting_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Puts a saved state into an equal collector; the environments repeat what they went through.

        :return: whether that led them to where they were. If not (an environment is not deterministic, or
            was never seeded), a warning says so, and new episodes begin.
        """
        assert isinstance(self.buffer, CostVectorReplayBuffer)
        load_buffer_state(self.buffer, state["buffer"])
        return self.load_acting_state(state["acting"])

    def acting_state(self) -> dict[str, Any]:
        """:meth:`state_dict` without the buffer."""
        history = self._history()
        if self.env.pass_info or self._pre_collect_hidden_state_RH is not None:
            raise ValueError("state_dict needs a collector without pass_info and without a recurrent policy")
        return {
            "history": history.state_dict(),
            "obs": np.array(self._pre_collect_obs_RO),
            "episodes": self._episodes.state_dict(),
            "spaces": [space.np_random.bit_generator.state for space in self._action_spaces()],
            "counters": [self.collect_step, self.collect_episode, self.collect_time, self.env.steps],
        }

    def load_acting_state(self, state: Mapping[str, Any]) -> bool:
        """:meth:`load_state_dict` without the buffer."""
        history, self.env.history = self._history(), None
        obs = replay(self.env, state["history"])
        self.env.history = history
        history.load_state_dict(state["history"])
        for space, saved in zip(self._action_spaces(), state["spaces"], strict=True):
            space.np_random.bit_generator.state = saved
        self.collect_step, self.collect_episode, self.collect_time, self.env.steps = state["counters"]
        if obs is not None and np.array_equal(obs, state["obs"]):
            self._episodes.load_state_dict(state["episodes"])
            self._pre_collect_obs_RO = obs
            self._pre_collect_info_R = np.full(self.env_num, None)
            self._pre_collect_hidden_state_RH = None
            return True
        warnings.warn(
            "the environments were never seeded; new episodes begin"
            if obs is None
            else "the environments did not repeat themselves from the same seeds; new episodes begin",
            stacklevel=2,
        )
        sequence = np.random.SeedSequence([self.collect_step, *(x or 0 for x in state["history"]["seeds"])])
        self.reset_env(gym_reset_kwargs={"seed": (sequence.generate_state(self.env_num) >> 1).tolist()})
        return False

    def _history(self) -> EnvHistory:
        if self.env.history is None:
            raise ValueError("the collector must be replayable=True")
        return self.env.history

    def _action_spaces(self) -> list[gym.Space]:
        return self._action_space if isinstance(self._action_space, list) else [self._action_space]

    def _collect(
        self,
        n_step: int | None = None,
        n_episode: int | None = None,
        random: bool = False,
        render: float | None = None,
        gym_reset_kwargs: dict[str, Any] | None = None,
    ) -> CostCollectStats:
        start = time.perf_counter()
        self._episodes.pop_finished()
        try:
            with torch.no_grad():
                stats = None
                if self._can_write_rows(n_episode, render):
                    stats = self._collect_rows(n_step, n_episode, random, gym_reset_kwargs)
                if stats is None:
                    stats = super()._collect(n_step, n_episode, random, render, gym_reset_kwargs)
        except BaseException as error:
            # Also after Ctrl-C: the environments have moved on from the observations kept for the next call.
            self._pre_collect_obs_RO = None
            if isinstance(error, NonFiniteStepError) and error.step is None:
                raise NonFiniteStepError(error.field, error.env_id, self.env.steps) from error
            raise
        stats.set_episodes(self._episodes.pop_finished(), discounted=self.discount is not None)
        self.buffer.episodes.publish(stats.costs, stats.lens)
        # Tianshou's synchronous collector leaves its clock at zero
        self.collect_time += time.perf_counter() - start
        return stats

    def _can_write_rows(self, n_episode: int | None, render: float | None) -> bool:
        return (
            self.fast
            and not (self._on_step_hook or self._on_episode_done_hook or self.env.pass_info or render)
            and (n_episode is None or n_episode >= self.env_num)
            and self._pre_collect_obs_RO is not None
            and self._pre_collect_hidden_state_RH is None
            and RowWriter.can_write(self.buffer)
        )

    def _collect_rows(
        self, n_step: int | None, n_episode: int | None, random: bool, gym_reset_kwargs: dict[str, Any] | None
    ) -> CostCollectStats | None:
        """What Tianshou's ``_collect`` does, without its batches; None if the policy needs those."""
        stats = self.collect_stats_class()
        ids, obs = np.arange(self.env_num), self._pre_collect_obs_RO
        assert obs is not None
        deviations: list[np.ndarray] = []
        steps = episodes = 0
        with RowWriter(self.buffer) as writer:
            while not ((n_step and steps >= n_step) or (n_episode and episodes >= n_episode)):
                action = self._row_actions(ids, obs, random)
                if action is None:
                    # Recurrent, or with entries to store: told by the first step, before anything happened.
                    assert steps == 0
                    self.fast = False
                    return None
                if action.deviation is not None:
                    deviations.append(action.deviation)
                following, rew, terminated, truncated, _ = self.env.step(action.mapped, ids)
                rew, cost = np.asarray(rew, dtype=float), self.env.cost
                if rew.ndim != 1:
                    raise ValueError(f"each environment must report one reward, got shape {rew.shape[1:]}")
                done = np.logical_or(terminated, truncated)
                for field, values in (("rew", rew), ("cost", cost), ("obs_next", following)):
                    check_finite(field, values, ids)
                self._episodes.step(ids, rew, cost, done)
                writer.add(
                    ids,
                    obs=obs,
                    act=action.raw,
                    rew=rew,
                    terminated=terminated,
                    truncated=truncated,
                    done=done,
                    obs_next=following,
                    cost=cost,
                )
                steps += len(ids)
                obs = following
                if done.any():
                    episodes += int(done.sum())
                    obs = following.copy()
                    obs[done] = self.env.reset(ids[done], **(gym_reset_kwargs or {}))[0]
                    surplus = len(ids) - (n_episode - episodes) if n_episode else 0
                    if surplus > 0:
                        stays = np.ones(len(ids), dtype=bool)
                        stays[np.flatnonzero(done)[:surplus]] = False
                        ids, obs = ids[stays], obs[stays]
        stats.n_collected_steps = steps
        if deviations:
            stats.pred_dist_std_array = np.concatenate(deviations)
        self.collect_step += steps
        self.collect_episode += episodes
        if n_step:
            self._pre_collect_obs_RO = obs
            self._pre_collect_info_R = np.full(self.env_num, None)
        else:
            self.reset_env(gym_reset_kwargs)
        return stats

    def _row_actions(self, ids: np.ndarray, obs: np.ndarray, random: bool) -> _Actions | None:
        """The actions of one step; None if the policy has a state or entries to store."""
        if random:
            batch = self._compute_action_policy_hidden(True, ids, obs, np.full(len(ids), None))
            return _Actions(to_numpy(batch.act), to_numpy(batch.act_normalized), None)
        seen = Batch()
        seen.__dict__.update(obs=obs, info=Batch())
        answer = self.policy(seen, None)
        entries = answer.get("policy")
        if answer.get("state") is not None or (isinstance(entries, Batch) and entries.get_keys()):
            return None
        raw, dist = to_numpy(answer.act), answer.get("dist")
        if self.exploration_noise:
            raw = self.policy.exploration_noise(raw, seen)
        deviation = None
        if dist is not None:
            deviation = np.atleast_2d(to_numpy(get_stddev_from_dist(dist)))
        return _Actions(raw, self._map_action(raw), deviation)

    def _map_action(self, raw: np.ndarray) -> np.ndarray:
        """``policy.map_action``; for clipped and scaled actions the same operations without its look-ups."""
        policy, box = self.policy, self.policy.action_space
        if (
            type(policy).map_action is not BasePolicy.map_action
            or policy.action_bound_method != "clip"
            or not policy.action_scaling
            or not isinstance(box, gym.spaces.Box)
        ):
            return policy.map_action(raw)
        clipped = np.minimum(np.maximum(raw, -1.0), 1.0)
        return box.low + (box.high - box.low) * (clipped + 1.0) / 2.0


class _Actions(NamedTuple):
    raw: np.ndarray
    """``[R, A]`` as stored."""
    mapped: np.ndarray
    """``[R, A]`` as the environments get them."""
    deviation: np.ndarray | None
    """``[R, A]`` standard deviations, of policies that say so."""
