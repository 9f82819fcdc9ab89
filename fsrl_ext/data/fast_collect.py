"""Tianshou's collect loop on plain arrays.

The loop does what Tianshou's ``Collector._collect`` does, and ends with the same buffer and the same numbers,
bit for bit (``tests/data/test_fast_collect.py``). It makes no ``Batch`` of each step, which only hooks and
infos need. ``benchmarks/throughput.py collect`` measures the gain.

Dimensions: ``R`` environments that step, ``O`` observation, ``A`` action, ``H`` hidden state, ``T`` steps of
all environments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from tianshou.data import Batch, to_numpy
from tianshou.data.collector import get_stddev_from_dist
from tianshou.policy import BasePolicy

from fsrl_ext.data.batches import raw_batch
from fsrl_ext.data.buffer import CostBuffer
from fsrl_ext.data.cost_env import CostVectorEnv
from fsrl_ext.data.episodes import EpisodeTracker
from fsrl_ext.data.errors import check_finite
from fsrl_ext.data.interrupts import InterruptGuard
from fsrl_ext.data.row_writer import RowWriter


class Actions(NamedTuple):
    """The actions of one step."""

    raw: np.ndarray
    """``[R, A]`` as stored."""
    mapped: np.ndarray
    """``[R, A]`` as the environments get them."""
    deviation: np.ndarray | None
    """``[R, A]`` standard deviations, of policies that report a distribution."""
    state: torch.Tensor | None
    """``[R, H]`` hidden states after the step, of recurrent policies."""


class FastCollect(NamedTuple):
    """The result of :meth:`FastCollector.collect`, besides what is in the buffer and in the tracker."""

    obs: np.ndarray
    """``[R, O]`` observations that the next step starts from."""
    steps: int
    episodes: int
    deviations: np.ndarray | None
    """``[T, A]`` standard deviations of the actions, of policies that report a distribution."""
    state: torch.Tensor | None
    """``[R, H]`` hidden states that the next step starts from, of recurrent policies."""


@dataclass(frozen=True, kw_only=True)
class FastCollector:
    """Runs the loop for one collector.

    :param policy: acts; must not need a hook or an info, nor a hidden state unless it says ``is_recurrent``.
    :param env: the environments.
    :param buffer: receives the transitions; one that :meth:`RowWriter.can_write` accepts.
    :param tracker: adds up the episodes.
    :param spaces: one action space per environment, for random actions.
    :param exploration_noise: see Tianshou.
    """

    policy: BasePolicy
    env: CostVectorEnv
    buffer: CostBuffer
    tracker: EpisodeTracker
    spaces: Sequence[gym.Space]
    exploration_noise: bool

    def collect(
        self,
        obs: np.ndarray,
        *,
        n_step: int | None,
        n_episode: int | None,
        random: bool,
        reset_kwargs: Mapping[str, Any],
        state: torch.Tensor | None = None,
    ) -> FastCollect | None:
        """Collect steps or episodes from all environments.

        :param obs: ``[R, O]`` the environments' observations now.
        :param n_episode: at least as many as there are environments.
        :param reset_kwargs: passed to environments whose episode ended.
        :param state: ``[R, H]`` hidden states of a recurrent policy now; None if all episodes begin.
        :return: None if the policy needs Tianshou's own loop. Nothing has happened then.
        :raises NonFiniteStepError: a step holds NaN or infinity; it is not stored.
        """
        ids = np.arange(len(self.env))
        deviations: list[np.ndarray] = []
        steps = episodes = 0
        with RowWriter(self.buffer) as writer, InterruptGuard() as guard:
            while not ((n_step and steps >= n_step) or (n_episode and episodes >= n_episode)):
                actions = self._random_actions(ids) if random else self._policy_actions(obs, state)
                if actions is None:
                    assert steps == 0, "the first step tells whether a policy needs Tianshou's loop"
                    return None
                if actions.deviation is not None:
                    deviations.append(actions.deviation)
                obs, done = self._step(writer, guard, ids, obs, actions)
                state = actions.state
                steps += len(ids)
                if not done.any():
                    continue
                episodes += int(done.sum())
                obs[done] = self.env.reset(ids[done], **reset_kwargs)[0]
                if state is not None:
                    state = forgotten(state, done)
                if n_episode:
                    stays = _still_needed(done, n_episode - episodes)
                    ids, obs = ids[stays], obs[stays]
                    state = None if state is None else state[torch.from_numpy(stays)]
        return FastCollect(obs, steps, episodes, np.concatenate(deviations) if deviations else None, state)

    def _step(
        self,
        writer: RowWriter,
        guard: InterruptGuard,
        ids: np.ndarray,
        obs: np.ndarray,
        actions: Actions,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Step, check, count and store.

        :return: the next observations ``[R, O]``, and which episodes ended ``[R]``.
        """
        obs_next, rew, terminated, truncated, _ = self.env.step(actions.mapped, ids)
        rew, cost = np.asarray(rew, dtype=float), self.env.cost
        check_one_reward(rew)
        # What is finite may be too large for the buffer's float32.
        stored = {"rew": rew, "cost": writer.as_stored("cost", cost)}
        stored |= {"obs_next": writer.as_stored("obs_next", obs_next), "act": actions.raw}
        for field, values in stored.items():
            check_finite(field, values, ids)
        done = np.logical_or(terminated, truncated)
        guard.hold()
        self.tracker.step(ids, rew, cost, done)
        writer.add(
            ids,
            obs=obs,
            terminated=terminated,
            truncated=truncated,
            done=done,
            **stored,
        )
        guard.release()
        return obs_next, done

    def _random_actions(self, ids: np.ndarray) -> Actions:
        mapped = np.array([self.spaces[i].sample() for i in ids])
        return Actions(to_numpy(self.policy.map_action_inverse(mapped.copy())), mapped, None, None)

    def _policy_actions(self, obs: np.ndarray, state: torch.Tensor | None) -> Actions | None:
        """Ask the policy for actions; None if it has an unknown kind of state, or entries to store."""
        seen = raw_batch(obs=obs.copy(), info=Batch())  # A policy may change what it sees.
        answer = self.policy(seen, state)
        entries, state = answer.get("policy"), answer.get("state")
        known = state is None or is_recurrent(self.policy)
        if not known or (isinstance(entries, Batch) and entries.get_keys()):
            return None
        raw, dist = to_numpy(answer.act), answer.get("dist")
        if self.exploration_noise:
            raw = self.policy.exploration_noise(raw, seen)
        # A copy, because it is kept while the policy acts again.
        deviation = None if dist is None else np.atleast_2d(to_numpy(get_stddev_from_dist(dist))).copy()
        return Actions(raw, self.policy.map_action(raw), deviation, state)


def is_recurrent(policy: BasePolicy) -> bool:
    """Tell whether a policy says that its state is a tensor ``[R, H]``, which is zero when episodes begin."""
    return bool(getattr(policy, "is_recurrent", False))


def forgotten(state: torch.Tensor, done: np.ndarray) -> torch.Tensor:
    """Return hidden states ``[R, H]`` with zeros where an episode is over, ``done [R]``."""
    over = torch.as_tensor(done, device=state.device)
    return state.masked_fill(over.view(-1, *[1] * (state.dim() - 1)), 0.0)


def check_one_reward(rew: np.ndarray) -> None:
    """:raises ValueError: the rewards are not ``[R]``, one per environment."""
    if rew.ndim != 1:
        raise ValueError(f"each environment must report one reward, got shape {rew.shape[1:]}")


def _still_needed(done: np.ndarray, episodes_left: int) -> np.ndarray:
    """Tell which environments ``[R]`` go on: as many as episodes are left; the first that are done leave."""
    stays = np.ones(len(done), dtype=bool)
    surplus = len(done) - episodes_left
    if surplus > 0:
        stays[np.flatnonzero(done)[:surplus]] = False
    return stays
