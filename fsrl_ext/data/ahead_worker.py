"""Collecting one collect ahead of the learner: the side that plays the environments.

Dimensions: ``N`` environments, ``T`` steps of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from tianshou.env import BaseVectorEnv
from tianshou.policy import BasePolicy
from tianshou.policy.base import policy_within_training_step

from fsrl_ext.data.collector import CostCollector
from fsrl_ext.data.randomness import GlobalRandomness, seed_globals
from fsrl_ext.data.sizes import ceil_div
from fsrl_ext.data.stats import CostCollectStats
from fsrl_ext.data.vector_buffer import CostVectorReplayBuffer


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """The settings of the side that plays, see :class:`~fsrl_ext.data.ahead.AheadCollector`."""

    policy: BasePolicy
    make_envs: Callable[[], BaseVectorEnv]
    num_envs: int
    num_costs: int
    seed: int
    exploration_noise: bool
    discount: float | tuple[float, ...] | None
    replayable: bool


class CollectedRows(NamedTuple):
    """The result of one collect."""

    stats: CostCollectStats
    arrays: dict[str, np.ndarray]
    """``[N, T, ...]`` by key, in the order of time."""


class Worker:
    """The collector that plays. Its public methods are those that the learner calls.

    :raises ValueError: ``spec.make_envs`` builds another number of environments than ``spec.num_envs``.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        seed_globals(spec.seed)
        self.spec = spec
        self.policy = spec.policy.to("cpu").eval()
        self.envs = spec.make_envs()
        self._made: CostCollector | None = None
        if len(self.envs) != spec.num_envs:
            self.close()
            raise ValueError(f"make_envs must build {spec.num_envs} environments, built {len(self.envs)}")

    def reset(self, gym_reset_kwargs: dict[str, Any] | None) -> None:
        """Reset all environments."""
        self._collector().reset_env(gym_reset_kwargs)

    def collect(self, n_step: int, random: bool, parameters: Mapping[str, Any]) -> CollectedRows:
        """Collect ``n_step`` steps with a policy of the given ``state_dict``."""
        state = {k: torch.as_tensor(v) if isinstance(v, np.ndarray) else v for k, v in parameters.items()}
        self.policy.load_state_dict(state)
        steps = ceil_div(n_step, self.spec.num_envs)
        collector = self._collector(steps)
        collector.reset_buffer(keep_statistics=True)
        with policy_within_training_step(self.policy):
            stats = collector.collect(n_step=n_step, random=random)
        arrays = {
            key: values.reshape(self.spec.num_envs, -1, *values.shape[1:])[:, :steps]
            for key, values in collector.buffer.arrays.items()
        }
        return CollectedRows(stats, arrays)

    def close(self) -> None:
        """Close the environments."""
        (self._made or self.envs).close()

    def renew_seeds(self, seeds: list[int]) -> None:
        """See :meth:`CostCollector.renew_seeds`."""
        self._collector().renew_seeds(seeds)

    def state_dict(self) -> dict[str, Any]:
        """Return the collector's state and that of this process's random numbers."""
        collector = self._collector().state_dict(with_buffer=False)
        return {"collector": collector, "randomness": GlobalRandomness().state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Take over what :meth:`state_dict` returned; see :meth:`CostCollector.load_state_dict`."""
        exact = self._collector().load_state_dict(state["collector"])
        GlobalRandomness().load_state_dict(state["randomness"])
        return exact

    def _collector(self, steps: int = 1) -> CostCollector:
        """The collector, with room for ``steps`` steps of each environment."""
        spec, room = self.spec, steps * self.spec.num_envs
        if self._made is None:
            self._made = CostCollector(
                self.policy,
                self.envs,
                CostVectorReplayBuffer(room, spec.num_envs, spec.num_costs),
                exploration_noise=spec.exploration_noise,
                discount=spec.discount,
                replayable=spec.replayable,
            )
            # Until a reset seeds the environments, random actions depend on this process's seed.
            for i, space in enumerate(self._made.action_spaces):
                space.seed(spec.seed + i)
        elif self._made.buffer.maxsize < room:
            self._made.buffer = CostVectorReplayBuffer(room, spec.num_envs, spec.num_costs)
        return self._made
