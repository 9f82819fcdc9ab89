"""Tianshou's prioritised, hindsight and cached buffers with costs, by one mix-in.

Dimensions: ``S`` size of the buffer, ``R`` transitions added at once, ``B`` sampled transitions, ``C`` costs,
``O`` observation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import accumulate, pairwise
from typing import Any, NoReturn, cast

import numpy as np
from tianshou.data import (
    Batch,
    CachedReplayBuffer,
    HERVectorReplayBuffer,
    PrioritizedVectorReplayBuffer,
    ReplayBuffer,
    ReplayBufferManager,
)
from tianshou.data.types import RolloutBatchProtocol

from fsrl_ext.data.batches import raw_batch
from fsrl_ext.data.episodes import EpisodeLog
from fsrl_ext.data.interrupts import InterruptGuard
from fsrl_ext.data.neighbours import SeveralEnvironments
from fsrl_ext.data.storage import STORED_KEYS, storable
from fsrl_ext.errors import checked


class WithCosts(SeveralEnvironments):
    """Adds ``cost [S, C]`` to one of Tianshou's buffers for several environments.

    The mix-in comes first among the bases, and the buffer's own arguments follow:

    .. code-block:: python

        class PrioritizedCostBuffer(WithCosts, PrioritizedVectorReplayBuffer): ...

        PrioritizedCostBuffer(20_000, 4, alpha=0.6, beta=0.4, num_costs=2)

    :param arguments: those of Tianshou's buffer.
    :param num_costs: number of cost signals ``C``.
    :param random_seed: seed of the sampling, of the buffer and of its sub-buffers.
    :param settings: those of Tianshou's buffer.
    """

    takes_rows = False
    buffers: np.ndarray

    @checked(at_least_one=("num_costs",), seed=("random_seed",))
    def __init__(self, *arguments: Any, num_costs: int = 1, random_seed: int = 42, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.num_costs = num_costs
        self.episodes = EpisodeLog(num_costs)
        # Tianshou seeds all of them with 42.
        for i, part in enumerate([self, *self.buffers]):
            part._random_state = np.random.RandomState([random_seed, i])
        for part in self.buffers:
            part._reserved_keys = STORED_KEYS

    def add(
        self,
        batch: RolloutBatchProtocol,
        buffer_ids: np.ndarray | list[int] | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Add one transition of each of the environments ``buffer_ids [R]`` (default: of all).

        :param batch: what Tianshou needs, every entry ``[R, ...]``, and ``cost [R, C]``.
        :return: as Tianshou's.
        :raises ValueError: ``cost`` is missing or has the wrong shape.
        :raises NonFiniteStepError: a field holds NaN or infinity.
        """
        ids = np.arange(self.num_envs) if buffer_ids is None else np.asarray(buffer_ids)
        checked = self._as_stored(storable(batch, self.num_costs, ids))
        with InterruptGuard() as guard:
            guard.hold()
            return super().add(checked, ids)

    @property
    def num_envs(self) -> int:
        """The number of environments whose transitions the buffer takes."""
        return len(self.buffers)

    def _as_stored(self, batch: RolloutBatchProtocol) -> RolloutBatchProtocol:
        """Return a checked batch in the form in which it is stored."""
        return batch

    def _neighbourhood(self, index: int | np.ndarray) -> tuple[np.ndarray, ...]:
        """The places, and their sub-buffers' first place, number of transitions and newest place."""
        place, edges = np.asarray(index) % self.maxsize, np.asarray(self.subbuffer_edges)
        owner = edges.searchsorted(place, side="right") - 1
        lengths = np.array([len(part) for part in self.buffers])
        return place, edges[owner], np.maximum(lengths[owner], 1), self.last_index[owner]

    @classmethod
    def _smallest(cls) -> NoReturn:
        raise NotImplementedError(f"{cls.__name__} cannot be read from a file; CostVectorReplayBuffer can")

    def save_hdf5(self, path: str, compression: str | None = None) -> NoReturn:
        """Refuse: priorities and rewritten goals are no arrays that could be read again."""
        raise NotImplementedError(
            f"{type(self).__name__} cannot be written to a file; CostVectorReplayBuffer can"
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self._meta.get_keys():
            cast(ReplayBufferManager, self)._set_batch_for_children()


class PrioritizedCostBuffer(WithCosts, PrioritizedVectorReplayBuffer):
    """Tianshou's ``PrioritizedVectorReplayBuffer`` with costs (Schaul et al. 2016, arXiv 1511.05952).

    The off-policy policies of this package weight the squared errors of all critics by the importance weights
    of a batch, and hand back new priorities: the mean absolute error of the critics of reward and costs on
    each transition, in units of the signals' standard deviations. Sampling draws from NumPy's global random
    numbers, as Tianshou's does.

    :param total_size: number of transitions ``S`` over all sub-buffers.
    :param buffer_num: number of sub-buffers, at least the number of environments.
    :param alpha: exponent of the priorities, > 0.
    :param beta: exponent of the importance weights, >= 0.

    The other arguments are those of :class:`WithCosts` and of Tianshou's buffer.
    """


class CachedCostBuffer(WithCosts, CachedReplayBuffer):
    """Tianshou's ``CachedReplayBuffer`` with costs: an episode moves to the main buffer when it ends.

    :param main_buffer: an empty ``tianshou.data.ReplayBuffer``.
    :param cached_buffer_num: number of environments.
    :param max_episode_length: the environments' time limit.

    The other arguments are those of :class:`WithCosts`.
    """

    @property
    def num_envs(self) -> int:
        """The number of environments whose transitions the buffer takes."""
        return self.cached_buffer_num


class HERCostBuffer(WithCosts, HERVectorReplayBuffer):
    """Tianshou's ``HERVectorReplayBuffer`` with costs (Andrychowicz et al. 2017, arXiv 1707.01495).

    Tianshou's buffer takes observations that are dictionaries. :func:`fsrl_ext.env.make` makes one vector of
    such observations, and so this buffer takes vectors and returns vectors, with other goals and the rewards
    of these goals in a part of the episodes that are sampled. Costs stay as they are, which is right where
    they do not depend on the goal.

    :param total_size: number of transitions ``S`` over all sub-buffers.
    :param buffer_num: number of sub-buffers, at least the number of environments.
    :param parts: sizes of the parts of an observation by name, in their order in the vector; among them
        ``achieved_goal`` and ``desired_goal``. The order of a ``Dict`` space is that of its sorted names.
    :param compute_reward_fn: returns rewards ``[B]`` of achieved and desired goals, ``[B, G]`` each.
    :param horizon: the environments' time limit.
    :param future_k: rewritten episodes for each one that stays as it was.
    :raises ValueError: ``parts`` lacks a goal, or observations have another length.

    The other arguments are those of :class:`WithCosts` and of Tianshou's buffer.
    """

    @checked(at_least_one=("horizon",), positive=("future_k",))
    def __init__(
        self,
        total_size: int,
        buffer_num: int,
        *,
        parts: Mapping[str, int],
        compute_reward_fn: Callable[[np.ndarray, np.ndarray], np.ndarray],
        horizon: int,
        future_k: float = 8.0,
        num_costs: int = 1,
        **settings: Any,
    ) -> None:
        if missing := {"achieved_goal", "desired_goal", "observation"} - set(parts):
            raise ValueError(
                f"parts must have the sizes of {' and '.join(sorted(missing))}, got {dict(parts)}"
            )
        super().__init__(
            total_size,
            buffer_num,
            compute_reward_fn=compute_reward_fn,
            horizon=horizon,
            future_k=future_k,
            num_costs=num_costs,
            **settings,
        )
        ends = list(accumulate(parts.values(), initial=0))
        self.parts = {name: slice(*edges) for name, edges in zip(parts, pairwise(ends), strict=True)}
        self.obs_dim = ends[-1]

    @property
    def obs(self) -> _Joined:
        """The observations ``[S, O]``, to be indexed by places."""
        return _Joined(self._meta.obs, self.parts)

    @property
    def obs_next(self) -> _Joined:
        """The observations ``[S, O]`` after each step, to be indexed by places."""
        return _Joined(self._meta.obs_next, self.parts)

    def close_episodes(self) -> np.ndarray:
        """See :meth:`CostBuffer.close_episodes`; the goals are the environments' own before."""
        self._restore_cache()
        return super().close_episodes()

    def sample_indices(self, batch_size: int | None) -> np.ndarray:
        """Draw ``batch_size`` places and rewrite goals; ``0`` and ``None`` rewrite none."""
        if batch_size:
            return super().sample_indices(batch_size)
        places = [
            start + ReplayBuffer.sample_indices(part, batch_size)
            for start, part in zip(self.subbuffer_edges[:-1], self.buffers, strict=True)
        ]
        return np.concatenate(places)

    def __getitem__(self, index: Any) -> RolloutBatchProtocol:
        """As Tianshou's, with observations that are vectors."""
        batch = super().__getitem__(index)
        batch.obs = _Joined(batch.obs, self.parts)[...]
        batch.obs_next = _Joined(batch.obs_next, self.parts)[...]
        return batch

    def _as_stored(self, batch: RolloutBatchProtocol) -> RolloutBatchProtocol:
        entries = dict(batch.items())
        for key in ("obs", "obs_next"):
            if entries[key].ndim != 2 or entries[key].shape[1] != self.obs_dim:
                raise ValueError(
                    f"observations must have {self.obs_dim} numbers, the sum of parts, got the shape "
                    f"{list(entries[key].shape[1:])}"
                )
            entries[key] = Batch({name: entries[key][:, where] for name, where in self.parts.items()})
        return cast(RolloutBatchProtocol, raw_batch(**entries))


class _Joined:
    """Observations of several parts as the vectors ``[..., O]`` that they were."""

    def __init__(self, parts: Any, names: Mapping[str, slice]) -> None:
        self._parts = [parts[name] for name in names]

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.concatenate([part[index] for part in self._parts], axis=-1)
